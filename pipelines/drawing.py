"""Drawing: an engine's answer to a request; torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.image_io import RGBImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """The time and the evaluations that an engine has spent on one request.

    Attributes:
        encode_s, denoise_s, decode_s: seconds. ``denoise_s`` counts the steps of the groups in which the
            request took part; a direct answer is all decoding.
        evaluations: network evaluations of all its pictures, guidance counted once; 0 where nobody counted.
    """

    encode_s: float = 0.0
    denoise_s: float = 0.0
    decode_s: float = 0.0
    evaluations: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """The answer to a `Request`.

    Attributes:
        images: in the order of the request's seeds, exactly ``width`` x ``height``; twice that with an
            ``upscaler``.
        flagged: the safety checker's verdict on each image; None where no checker has looked.
        warnings: sentences for the caller, in the caller's words.
        texts: the answers to the texts of a `Rewriting`, in their order.
    """

    images: tuple[RGBImage, ...]
    flagged: tuple[bool, ...] | None = None
    timings: Timings = Timings()
    warnings: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
