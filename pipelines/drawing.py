"""What an engine gives back; torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.image_io import RGBImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """What an engine spent on one request.

    Attributes:
        encode_s, denoise_s, decode_s: seconds; ``denoise_s`` counts group steps the request took part in.
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
        flagged: the safety checker's word on each image; None where none looked.
        warnings: what the caller should know, in the caller's words.
        texts: of a `Rewriting`, in its order.
    """

    images: tuple[RGBImage, ...]
    flagged: tuple[bool, ...] | None = None
    timings: Timings = Timings()
    warnings: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
