"""The networks of each family: their sizes, when they are needed, what drawing takes. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipelines.weights.kinds import Family

Stage = Literal["encode", "prior", "denoise", "finish"]
"""A stage of drawing: texts and pictures are read, an image embedding is made of noise (Kandinsky alone),
latents are made of noise, a picture is decoded."""

GIGABYTE = 10**9
"""The bytes of a gigabyte, as the manifest counts them in ``memory``."""

HALF_BYTES = 2
"""The bytes of a number in half precision."""

WEIGHTS_ALONE = 0
"""The bytes that a stage takes beside its weights, where they are too few to count."""


@dataclass(frozen=True, slots=True)
class Activations:
    """The bytes that a stage takes beside the weights, in half precision; twice as many in full precision.

    Attributes:
        per_pixel: for each pixel of a picture that is drawn, with guidance.
        fixed: for each picture, whatever its size.
    """

    per_pixel: int = WEIGHTS_ALONE
    fixed: int = WEIGHTS_ALONE


@dataclass(frozen=True, slots=True)
class FamilyNetworks:
    """The networks of a family, by their names in its ``modules``.

    The numbers (parameters and buffers) are counted on the meta device, of the configurations that ship.

    Attributes:
        numbers: how many numbers each network has.
        stages: the networks that each stage needs, in the order of drawing.
        default_pixels: the pixels of a picture of the default size.
        activations: what each stage takes beside the weights.
        kept_full: the share of a network's numbers that stay in full precision where it is opened in float16,
            because half precision overflows.
        full: the networks that run in full precision whatever the entry says.
        optional: networks that are there only where the entry has this part.
        may_skip: networks that the family can draw without.
        linear: the share of a text encoder's numbers that are in linear layers, which may be quantized.
    """

    numbers: Mapping[str, int]
    stages: Mapping[Stage, tuple[str, ...]]
    default_pixels: int
    activations: Mapping[Stage, Activations]
    kept_full: Mapping[str, float] = field(default_factory=dict[str, float])
    full: frozenset[str] = frozenset()
    optional: Mapping[str, str] = field(default_factory=dict[str, str])
    may_skip: tuple[str, ...] = ()
    linear: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """The names of the networks that read texts."""
        return tuple(name for name in self.numbers if name.split(".")[-1].startswith("text_encoder"))


def tokenizer_of(text_encoder: str) -> str:
    """The component that cuts texts for a text encoder, by its name."""
    return text_encoder.replace("text_encoder", "tokenizer")


_CLIP_L, _CLIP_G = 123_060_557, 694_659_917
_LINEAR_OF_CLIP_L, _LINEAR_OF_CLIP_G = 0.690, 0.908
_VAE, _VAE_OF_16 = 83_653_863, 83_819_683
_SAFETY_CHECKER = 303_981_845

_DECODE = Activations(per_pixel=1536)
"""The VAE's last level holds three times 128 and 256 channels of every pixel."""

_READ_PICTURE = Activations(per_pixel=1286)
"""The VAE reads one picture; texts take less than that."""

NETWORKS: Mapping[Family, FamilyNetworks] = {
    "sd15": FamilyNetworks(
        numbers={
            "text_encoder": _CLIP_L,
            "unet": 859_520_964,
            "vae": _VAE,
            "safety_checker": _SAFETY_CHECKER,
        },
        stages={
            "encode": ("text_encoder", "vae"),
            "denoise": ("unet",),
            "finish": ("vae", "safety_checker"),
        },
        default_pixels=512 * 512,
        activations={"encode": _READ_PICTURE, "denoise": Activations(522), "finish": _DECODE},
        optional={"safety_checker": "safety_checker"},
        linear={"text_encoder": _LINEAR_OF_CLIP_L},
    ),
    "sdxl": FamilyNetworks(
        numbers={
            "text_encoder": _CLIP_L,
            "text_encoder_2": _CLIP_G,
            "unet": 2_567_463_684,
            "vae": _VAE,
            "safety_checker": _SAFETY_CHECKER,
        },
        stages={
            "encode": ("text_encoder", "text_encoder_2", "vae"),
            "denoise": ("unet",),
            "finish": ("vae", "safety_checker"),
        },
        default_pixels=1024 * 1024,
        activations={"encode": _READ_PICTURE, "denoise": Activations(316), "finish": _DECODE},
        optional={"safety_checker": "safety_checker"},
        linear={"text_encoder": _LINEAR_OF_CLIP_L, "text_encoder_2": _LINEAR_OF_CLIP_G},
    ),
    "kolors": FamilyNetworks(
        numbers={"text_encoder": 6_243_584_032, "unet": 2_579_458_820, "vae": _VAE},
        stages={"encode": ("text_encoder",), "denoise": ("unet",), "finish": ("vae",)},
        default_pixels=1024 * 1024,
        activations={
            "encode": Activations(fixed=93_000_000),
            "denoise": Activations(322),
            "finish": _DECODE,
        },
        linear={"text_encoder": 0.957},
    ),
    "sd3_pose": FamilyNetworks(
        numbers={
            "text_encoder": 123_650_381,
            "text_encoder_2": _CLIP_G,
            "text_encoder_3": 4_762_310_656,
            "controlnet": 595_428_864,
            "transformer": 2_084_951_104,
            "vae": _VAE_OF_16,
            "annotator_body": 52_311_446,
            "annotator_hand": 36_832_324,
            "annotator_face": 38_425_706,
        },
        stages={
            "encode": (
                "text_encoder",
                "text_encoder_2",
                "text_encoder_3",
                "vae",
                "annotator_body",
                "annotator_hand",
                "annotator_face",
            ),
            "denoise": ("controlnet", "transformer"),
            "finish": ("vae",),
        },
        default_pixels=1024 * 1024,
        # The skeleton is read twice, once for each half of guidance.
        activations={
            "encode": Activations(2 * _READ_PICTURE.per_pixel),
            "denoise": Activations(468),
            "finish": _DECODE,
        },
        kept_full={"text_encoder_3": 0.2114},
        full=frozenset({"annotator_body", "annotator_hand", "annotator_face"}),
        optional=dict.fromkeys(("annotator_body", "annotator_hand", "annotator_face"), "annotator"),
        may_skip=("text_encoder_3",),
        linear={
            "text_encoder": _LINEAR_OF_CLIP_L,
            "text_encoder_2": _LINEAR_OF_CLIP_G,
            "text_encoder_3": 0.972,
        },
    ),
    "kandinsky22": FamilyNetworks(
        numbers={
            "prior.text_encoder": _CLIP_G,
            "prior.image_encoder": 1_844_907_264,
            "prior.prior": 1_026_232_481,
            "decoder.unet": 1_253_057_288,
            "decoder.movq": 67_832_495,
        },
        stages={
            "encode": ("prior.text_encoder", "prior.image_encoder"),
            "prior": ("prior.prior",),
            "denoise": ("decoder.unet",),
            "finish": ("decoder.movq",),
        },
        default_pixels=768 * 768,
        activations={
            "encode": Activations(fixed=12_000_000),
            "prior": Activations(fixed=10_000_000),
            "denoise": Activations(361),
            "finish": Activations(2570),
        },
        linear={"prior.text_encoder": _LINEAR_OF_CLIP_G},
    ),
    "mbart50": FamilyNetworks(
        numbers={"model": 611_129_542},
        stages={"encode": ("model",)},
        default_pixels=0,
        activations={"encode": Activations(fixed=500_000_000)},
    ),
    # GPT-2's size: which language model it is, only the manifest says.
    "prompt_writer": FamilyNetworks(
        numbers={"model": 124_439_808},
        stages={"encode": ("model",)},
        default_pixels=0,
        activations={"encode": Activations(fixed=100_000_000)},
    ),
    # RealESRGAN x4 on one tile of 384 x 384.
    "upscaler": FamilyNetworks(
        numbers={"upscaler": 16_697_987},
        stages={"denoise": ("upscaler",)},
        default_pixels=1536 * 1536,
        activations={"denoise": Activations(257)},
    ),
    # GFPGAN on one face of 512 x 512.
    "face_restorer": FamilyNetworks(
        numbers={"face_restorer": 87_143_276},
        stages={"denoise": ("face_restorer",)},
        default_pixels=512 * 512,
        activations={"denoise": Activations(1082)},
    ),
}
"""Every family's networks.

Activations are the most bytes of living tensors during one evaluation at the default size, with attentions
fused, counted on the meta device by ``python -m tests.benchmarks.activations``.
"""

CONTROLNET_NUMBERS: Mapping[Literal["sd15", "sdxl"], int] = {"sd15": 361_279_120, "sdxl": 1_251_014_160}
"""How many numbers a ControlNet has that a request adds to a checkpoint of the family."""
