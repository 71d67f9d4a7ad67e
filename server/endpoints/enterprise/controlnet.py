"""POST controlnet: pictures of a prompt that follow the edges, the pose or the depth of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from fastapi import APIRouter
from pydantic import Field

from pipelines.image_io import RGBImage
from pipelines.request import CheckpointRequest, Control, ImageToImage, Inpainting, TextToImage
from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.drawing.canonical import canonical
from server.endpoints.enterprise.drawing.checkpoints import check_adapters, checkpoint
from server.endpoints.enterprise.drawing.comma_lists import comma_list, number_for_each
from server.endpoints.enterprise.drawing.controlnet_names import controlnets_meant
from server.endpoints.enterprise.drawing.draw import draw_and_answer
from server.endpoints.enterprise.drawing.fields import PictureFields, steps
from server.endpoints.enterprise.drawing.picture_fields import FORMS, refuse_too_little, url_or_none
from server.endpoints.enterprise.drawing.preprocessors import (
    INPAINT,
    PREPROCESSORS,
    inpaint_or_nothing,
    preprocessor_for_each,
)
from server.endpoints.enterprise.routes import post
from server.endpoints.enterprise.wire import yes_no
from server.endpoints.fields import Flag, Number, PictureField, Text, WholeNumber
from server.errors import FieldError, MissingField
from server.jobs.order import JSON

HIGHEST_SCALE = 20


class ControlNetFields(PictureFields):
    """The fields of controlnet, their defaults as the enterprise page documents them; `families` has those of
    the v5 page. multi_lingual stays off although both document it as on: their own sample answers say no.

    The pictures decide what is drawn: with ``mask_image`` a part of ``init_image`` is repainted; with
    ``control_image`` the whole ``init_image`` is redrawn; ``init_image`` or ``control_image`` alone is the
    control image of a picture from noise.
    """

    slug: ClassVar[str] = "controlnet"
    summary: ClassVar[str] = "ControlNet"
    default_steps: ClassVar[int] = 21
    example: ClassVar[Mapping[str, object]] = {
        "key": "enterprise_api_key",
        "model_id": "stable-diffusion-v1-5",
        "controlnet_model": "canny",
        "controlnet_type": "canny",
        "auto_hint": "yes",
        "guess_mode": "no",
        "prompt": "a model photo shoot",
        "negative_prompt": None,
        "init_image": "https://example.com/a-person.png",
        "control_image": None,
        "mask_image": None,
        "width": "512",
        "height": "512",
        "samples": "1",
        "num_inference_steps": "30",
        "safety_checker": "no",
        "enhance_prompt": "yes",
        "guidance_scale": 7.5,
        "strength": 0.55,
        "controlnet_conditioning_scale": 1,
        "scheduler": "UniPCMultistepScheduler",
        "seed": None,
        "lora_model": None,
        "tomesd": "yes",
        "use_karras_sigmas": "yes",
        "vae": None,
        "lora_strength": None,
        "embeddings_model": None,
        "webhook": None,
        "track_id": None,
    }
    answer: ClassVar[Mapping[str, object]] = {
        "status": "success",
        "generationTime": 3.83,
        "id": 302458,
        "output": ["http://127.0.0.1:8000/generations/05c3260d-6a2e-4aa5-82f0-e952f2a5fa10-0.png"],
        "nsfw_content_detected": False,
        "meta": {"prompt": "...", "seed": 1793745243, "steps": 30, "controlnet_model": "canny"},
    }

    prompt: Text = Field("", description="What to draw; needed unless guess_mode is on.")
    num_inference_steps: WholeNumber = steps(21)
    controlnet_model: Text = Field(description="ControlNets of this server, a comma list: `canny,depth`.")
    controlnet_type: Text | None = Field(
        None,
        description=f"What auto_hint makes: {', '.join(PREPROCESSORS)}. A comma list, one for each"
        " ControlNet; by default, and where several ControlNets share one, what each was made for. With"
        " `inpaint`, and with a ControlNet for it, init_image without the part in mask_image is the control"
        " image, whatever auto_hint says.",
    )
    auto_hint: Flag = Field(
        False,
        description="Make the control image of the picture (controlnet_type); no: the picture is the control"
        " image.",
    )
    guess_mode: Flag = Field(
        False, description="Follow the control image more than the prompt, which may be empty."
    )
    controlnet_conditioning_scale: Text | Number | None = Field(
        None,
        description=f"How closely a control image is followed: 0 to {HIGHEST_SCALE} each, a comma list, or"
        " one number for all. The pages document up to 2, 5 and 20; beyond 2 pictures fall apart.",
    )
    init_image: PictureField | None = Field(
        None,
        description="The control image where there is no control_image; with one, the picture that is"
        f" redrawn, and with a mask_image the one that is repainted. {FORMS}",
    )
    control_image: PictureField | None = Field(None, description=f"The control image. {FORMS}")
    mask_image: PictureField | None = Field(
        None, description=f"Repaint init_image where this is white, and keep the rest to the pixel. {FORMS}"
    )
    strength: Number = Field(
        0.7,
        ge=0,
        le=1,
        description="How much of init_image is redrawn where it is more than a control image; else"
        " `meta.strength` is null.",
    )

    @property
    def redraws(self) -> bool:
        """Whether init_image is redrawn or repainted, and not only a control image."""
        return self.init_image is not None and bool(self.mask_image or self.control_image)

    def sent_pictures(self) -> Mapping[str, str | bytes]:
        given = {
            "init_image": self.init_image,
            "control_image": self.control_image,
            "mask_image": self.mask_image,
        }
        return {name: picture for name, picture in given.items() if picture}

    def validate_together(self) -> None:
        if not self.prompt and not self.guess_mode:
            raise MissingField("prompt")
        if self.init_image is None and (self.mask_image is not None or self.control_image is None):
            raise MissingField("init_image")
        if self.redraws:
            refuse_too_little(self.num_inference_steps, self.strength)

    def validate_names(self, manifest: Manifest) -> None:
        super().validate_names(manifest)
        self.validate_controls(manifest)

    def validate_controls(self, manifest: Manifest) -> None:
        """Look whether this server has the ControlNets that are named, and can make their control images.

        Raises:
            FieldError: an unknown ControlNet, preprocessor or scale.
        """
        names = self._names(manifest)
        if not names:
            raise MissingField("controlnet_model")
        if len(set(names)) < len(names):
            raise FieldError("controlnet_model", "names a ControlNet twice")
        check_adapters("controlnet_model", names, manifest.controlnets, checkpoint(manifest, self.model_id))
        self._scales(names)
        self._preprocessors(names, manifest)

    def controls(self, manifest: Manifest, control_image: RGBImage) -> tuple[Control, ...]:
        """The ControlNets that the fields name, once they were validated.

        Args:
            control_image: the picture that all of them get, already ``width`` x ``height``.
        """
        names = self._names(manifest)
        each = zip(names, self._preprocessors(names, manifest), self._scales(names), strict=True)
        return tuple(
            Control(name=name, image=control_image, preprocessor=preprocessor, scale=scale)
            for name, preprocessor, scale in each
        )

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> CheckpointRequest:
        control_image = pictures.get("control_image") or pictures["init_image"]
        drawn = self._without_controls(manifest, pictures)
        return replace(drawn, controls=self.controls(manifest, control_image), guess_mode=self.guess_mode)

    def without_effect(self) -> dict[str, str]:
        options = super().without_effect()
        if not self.auto_hint and "inpaint" not in (self.controlnet_type or "").lower():
            options["controlnet_type"] = "while auto_hint is no"
        if not self.redraws:
            options["strength"] = "without a picture that is redrawn"
        return options

    def own_meta(self) -> dict[str, JSON]:
        return {
            "controlnet_model": self.controlnet_model,
            "controlnet_type": self.controlnet_type,
            "auto_hint": yes_no(self.auto_hint),
            "guess_mode": yes_no(self.guess_mode),
            "controlnet_conditioning_scale": self.controlnet_conditioning_scale,
            "init_image": url_or_none(self.init_image),
            "control_image": url_or_none(self.control_image),
            "mask_image": url_or_none(self.mask_image),
            "strength": self.strength if self.redraws else None,
        }

    def _without_controls(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> CheckpointRequest:
        arguments = canonical(self, manifest)
        if not self.redraws:
            return TextToImage(**arguments)
        image = pictures["init_image"]
        if mask := pictures.get("mask_image"):
            return Inpainting(**arguments, image=image, mask=mask, strength=self.strength)
        return ImageToImage(**arguments, image=image, strength=self.strength)

    def _names(self, manifest: Manifest) -> list[str]:
        return controlnets_meant(comma_list(self.controlnet_model), manifest, self.model_id)

    def _scales(self, names: list[str]) -> list[float]:
        given = self.controlnet_conditioning_scale
        return number_for_each(
            "controlnet_model", names, "controlnet_conditioning_scale", given, 0, HIGHEST_SCALE
        )

    def _preprocessors(self, names: list[str], manifest: Manifest) -> list[str | None]:
        """The preprocessor of each ControlNet; None where the picture already is its control image."""
        own = [manifest.controlnets[name].preprocessor for name in names]
        types = comma_list(self.controlnet_type)
        preprocessors = (
            preprocessor_for_each(types, names, own) if self.auto_hint else inpaint_or_nothing(types, own)
        )
        if INPAINT in preprocessors and self.mask_image is None:
            raise FieldError("mask_image", "is needed by the ControlNet for inpainting, beside init_image")
        return preprocessors


router = APIRouter()
post(router, ControlNetFields, draw_and_answer)
