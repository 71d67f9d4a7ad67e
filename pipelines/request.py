"""Requests as frozen values in diffusers' argument names; torch-free, picklable, storable as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast

from pydantic import Field, TypeAdapter

from pipelines.image_io import RGBImage

Replacement = Literal["black", "blur", "pixelate", "sensitive_content_text"]
"""The picture that is shown instead of a flagged one."""

HIGHRES_STRENGTH = 0.55
"""The part of the steps in the second pass of ``highres_fix``: detail is new, the composition stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerChoice:
    """The noise scheduler of a request, and its options.

    Attributes:
        name: a diffusers class name (``UniPCMultistepScheduler``), or for flow-matching models the name of a
            sampler (``dpmpp_2m``). Empty: the checkpoint's own.
        use_karras_sigmas: None leaves the checkpoint's configuration as it is.
        algorithm_type: for ``DPMSolverMultistepScheduler``; None leaves the configuration as it is.
        sigma_schedule: for flow-matching models, the spacing of noise levels (``sgm_uniform`` ...).
    """

    name: str = ""
    use_karras_sigmas: bool | None = None
    algorithm_type: str | None = None
    sigma_schedule: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """A LoRA of the manifest, and the strength with which it is applied (1.0 = as trained)."""

    name: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A ControlNet of the manifest, and the picture that it follows.

    Attributes:
        image: the picture, already as large as the one that is asked for.
        preprocessor: makes the control image of the picture ("canny" ...); None: the picture is one already.
            "inpaint" makes it of the request's own picture and mask.
        scale: diffusers' ``controlnet_conditioning_scale``, 1.0 = as trained; more follows it more closely.
    """

    name: str
    image: RGBImage
    preprocessor: str | None = None
    scale: float = 1.0


class _Pictures:
    """The size of a request whose pictures are all equally large."""

    __slots__ = ()

    width: int
    height: int
    seeds: tuple[int, ...]

    @property
    def pixels(self) -> int:
        """The pixels of all pictures of the request together."""
        return self.width * self.height * len(self.seeds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted(_Pictures):
    """A request to a latent diffusion checkpoint, whatever it starts from.

    Attributes:
        pipeline: name in the manifest.
        negative_prompt: None is not the same as "": Kandinsky's prior treats them differently.
        width, height: pixels of the returned picture, exactly.
        seeds: one per picture, each 0 .. 2**64 - 1; the order is the order of the returned pictures.
        prompt_weighting: brackets in both prompts weigh words (`pipelines.prompts.weighting`); else they are
            text.
        clip_skip: hidden layers of CLIP left out at the end, in diffusers' counting (None or 0 = none).
        embeddings: textual inversions of the manifest, usable as tokens of their name.
        controls: ControlNets that steer the picture, each named once.
        guess_mode: the ControlNets steer only the half of guidance with the prompt, and leave more to it.
        vae: a VAE of the manifest instead of the checkpoint's own.
        token_merging_ratio: part of the tokens merged by ToMe (0 = off).
        safety_checker: replace flagged pictures where the checkpoint has a checker.
        replacement: the kind of picture that replaces a flagged one.
        highres_fix: draw at a size that the checkpoint knows, enlarge the latents, draw again.
        upscaler: an upscaler of the manifest, which makes the finished pictures twice as wide and high.
        self_attention: self-attention guidance besides classifier-free guidance.
        panorama: draw overlapping views that agree, so that the left and right edges match.
    """

    pipeline: str
    prompt: str
    negative_prompt: str | None = None
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    seeds: tuple[int, ...]
    scheduler: SchedulerChoice = SchedulerChoice()
    prompt_weighting: bool = False
    clip_skip: int | None = None
    loras: tuple[Lora, ...] = ()
    embeddings: tuple[str, ...] = ()
    controls: tuple[Control, ...] = ()
    guess_mode: bool = False
    vae: str | None = None
    token_merging_ratio: float = 0.0
    safety_checker: bool = False
    replacement: Replacement = "black"
    highres_fix: bool = False
    upscaler: str | None = None
    self_attention: bool = False
    panorama: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TextToImage(Prompted):
    """One or more pictures of a prompt, from noise."""

    kind: Literal["text_to_image"] = "text_to_image"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorTextToImage(_Pictures):
    """Text to image through a diffusion prior (Kandinsky 2.2): the prompt becomes an image embedding first.

    Attributes: as in `Prompted`; ``prior_num_inference_steps`` are the prior's own steps.
    """

    kind: Literal["prior_text_to_image"] = "prior_text_to_image"
    pipeline: str
    prompt: str
    negative_prompt: str | None = None
    width: int
    height: int
    num_inference_steps: int
    prior_num_inference_steps: int
    guidance_scale: float
    prior_guidance_scale: float
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageToImage(Prompted):
    """Redraw a picture towards a prompt.

    Attributes:
        image: the start picture, already ``width`` x ``height``.
        strength: 0 < strength <= 1; the part of the steps that is really drawn.
    """

    kind: Literal["image_to_image"] = "image_to_image"
    image: RGBImage
    strength: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Inpainting(Prompted):
    """Repaint a part of a picture towards a prompt; the rest stays as it is, to the pixel.

    Attributes:
        image: the picture, already ``width`` x ``height``.
        mask: a picture of that size; white is repainted, black kept. The network repaints where
            the mask is at least half bright; grey pixels of the result are mixed of both pictures, so a
            blurred mask has a soft edge.
        strength: 0 < strength <= 1; the part of the steps that is really drawn; 1 forgets the picture.
    """

    kind: Literal["inpainting"] = "inpainting"
    image: RGBImage
    mask: RGBImage
    strength: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoseToImage(_Pictures):
    """Text to image in the pose of a person in a photograph, or of a skeleton picture.

    Attributes:
        image: photograph or OpenPose skeleton, any size; the skeleton is fitted to ``width`` x ``height``.
        controlnet_conditioning_scale: how closely the pose is kept, 0 .. 1.
    """

    kind: Literal["pose_to_image"] = "pose_to_image"
    pipeline: str
    prompt: str
    negative_prompt: str | None = None
    image: RGBImage
    controlnet_conditioning_scale: float
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    seeds: tuple[int, ...]
    scheduler: SchedulerChoice = SchedulerChoice()


@dataclass(frozen=True, slots=True, kw_only=True)
class Upscaling(_Pictures):
    """Enlarge a picture.

    Attributes:
        pipeline: name of an upscaler in the manifest.
        width, height: pixels of the returned picture; a network of another scale draws its own size, which is
            resized.
        seeds: a single one, since nothing in the picture is random.
        face_restorer: a face restorer of the manifest, which draws the faces of the enlarged picture.
    """

    kind: Literal["upscaling"] = "upscaling"
    pipeline: str
    image: RGBImage
    width: int
    height: int
    seeds: tuple[int, ...] = (0,)
    face_restorer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceRestoration(_Pictures):
    """Draw the faces of an enlarged picture anew, from what they were before.

    Attributes:
        pipeline: name of a face restorer in the manifest.
        original: the picture in which faces are looked for.
        image: the enlarged picture, on which the faces are drawn.
        width, height: pixels of the enlarged picture.
        seeds: a single one, since nothing in the picture is random.
    """

    kind: Literal["face_restoration"] = "face_restoration"
    pipeline: str
    original: RGBImage
    image: RGBImage
    width: int
    height: int
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyCheck(_Pictures):
    """Ask a checkpoint's safety checker about a picture, which comes back as it is.

    Attributes:
        width, height: pixels of the picture.
        seeds: a single one, since nothing in the picture is random.
    """

    kind: Literal["safety_check"] = "safety_check"
    pipeline: str
    image: RGBImage
    width: int
    height: int
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewriting:
    """Texts to be translated or continued; nothing is drawn.

    Attributes:
        pipeline: name in the manifest, of a family of language models.
        pixels: a request without pictures takes no place in a group.
    """

    kind: Literal["rewriting"] = "rewriting"
    pipeline: str
    texts: tuple[str, ...]
    pixels: ClassVar[int] = 0


CheckpointRequest = TextToImage | ImageToImage | Inpainting
"""The requests that a checkpoint of the class of SD1.5 or SDXL draws."""

PictureRequest = CheckpointRequest | PriorTextToImage | PoseToImage | Upscaling | SafetyCheck
"""The requests that become pictures, and a job that is paid for."""

Request = PictureRequest | FaceRestoration | Rewriting
"""All requests that an engine takes."""


def pipelines_of(request: Request) -> tuple[str, ...]:
    """The names of all pipelines that a request needs on the device."""
    after = request.upscaler if isinstance(request, Prompted) else None
    if isinstance(request, Upscaling):
        after = request.face_restorer
    return (request.pipeline,) if after is None else (request.pipeline, after)


R = TypeVar("R", bound=Prompted | PriorTextToImage | PoseToImage | Upscaling | SafetyCheck)


def map_pictures(request: R, change: Callable[[RGBImage], RGBImage]) -> R:
    """The same request with every picture in it changed, in the order of its fields."""
    return cast(R, _mapped(request, change))


def _mapped(value: Any, change: Callable[[RGBImage], RGBImage]) -> Any:
    if isinstance(value, RGBImage):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_mapped(item, change) for item in cast("tuple[Any, ...]", value))
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: _mapped(getattr(value, field.name), change) for field in fields(value)}
        return replace(value, **parts)
    return value


_ADAPTER: TypeAdapter[PictureRequest] = TypeAdapter(Annotated[PictureRequest, Field(discriminator="kind")])


def to_json(request: PictureRequest) -> bytes:
    """Serialize for storage; pictures travel losslessly."""
    return _ADAPTER.dump_json(request)


def from_json(stored: bytes | str) -> PictureRequest:
    """Undo `to_json`.

    Raises:
        pydantic.ValidationError: the stored text is not a request of this version.
    """
    return _ADAPTER.validate_json(stored)
