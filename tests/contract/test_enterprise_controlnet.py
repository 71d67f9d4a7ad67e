"""The documented controlnet page of the enterprise dialect: its sample, which pictures do what, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.image_io import RGBImage
from pipelines.request import Control, ImageToImage, Inpainting, SchedulerChoice, TextToImage
from pipelines.weights.entries import ControlNetEntry
from pipelines.weights.manifest import Manifest, load_manifest
from server.endpoints.enterprise.controlnet import ControlNetFields
from server.endpoints.enterprise.drawing.controlnet_names import DOCUMENTED
from server.endpoints.enterprise.drawing.preprocessors import ALIASES, PREPROCESSORS, WITHOUT_PREPROCESSOR
from server.endpoints.enterprise.wire import by_field
from server.endpoints.fields import field_errors
from server.errors import FieldError, MissingField
from tests.documented_bodies import CONTROLNET

MANIFEST = Manifest.model_validate(
    {
        "pipelines": {
            "sd": {"family": "sd15", "parts": {"pipeline": {"folder": "sd"}}},
            "xl": {"family": "sdxl", "parts": {"pipeline": {"folder": "xl"}}},
        },
        "controlnets": {
            "canny": {"source": {"folder": "canny"}, "family": "sd15", "preprocessor": "canny"},
            "depth": {"source": {"folder": "depth"}, "family": "sd15", "preprocessor": "depth"},
            "plain": {"source": {"folder": "plain"}, "family": "sd15"},
        },
    }
)

INIT, CONTROL_IMAGE, MASK = (RGBImage(1, 1, bytes([number] * 3)) for number in range(3))
PICTURES = {"init_image": INIT, "control_image": CONTROL_IMAGE, "mask_image": MASK}

SAMPLE = {**CONTROLNET, "model_id": "sd"}
"""The page's own request body, with a checkpoint of the manifest."""


def fields(**changes: object) -> ControlNetFields:
    return ControlNetFields.model_validate({**SAMPLE, **changes})


def request(**changes: object) -> Any:
    sent_fields = fields(**changes)
    sent_fields.validate_together()
    sent_fields.validate_names(MANIFEST)
    return sent_fields.to_request(MANIFEST, {name: PICTURES[name] for name in sent_fields.sent_pictures()})


def test_the_pages_own_sample_becomes_exactly_this_request():
    drawn = request()
    assert drawn == TextToImage(
        pipeline="sd",
        prompt="a model photo shoot",
        negative_prompt="",
        width=512,
        height=512,
        num_inference_steps=30,
        guidance_scale=7.5,
        seeds=(7,),
        scheduler=SchedulerChoice(name="UniPCMultistepScheduler", use_karras_sigmas=True),
        controls=(Control(name="canny", image=INIT, preprocessor="canny", scale=1.0),),
        prompt_weighting=drawn.prompt_weighting,
    )


def test_defaults_make_no_hints_and_guess_nothing():
    sent_fields = ControlNetFields.model_validate(
        {"model_id": "sd", "prompt": "a cat", "controlnet_model": "depth", "control_image": "AAAA"}
    )
    (control,) = sent_fields.controls(MANIFEST, CONTROL_IMAGE)
    assert control == Control(name="depth", image=CONTROL_IMAGE, preprocessor=None, scale=1.0)
    assert sent_fields.num_inference_steps == 21
    assert (sent_fields.guess_mode, sent_fields.strength, sent_fields.redraws) == (False, 0.7, False)


@pytest.mark.parametrize(
    ("pictures", "kind", "control_image"),
    [
        (("init_image",), TextToImage, INIT),
        (("control_image",), TextToImage, CONTROL_IMAGE),
        (("init_image", "control_image"), ImageToImage, CONTROL_IMAGE),
        (("init_image", "mask_image"), Inpainting, INIT),
        (("init_image", "control_image", "mask_image"), Inpainting, CONTROL_IMAGE),
    ],
)
def test_the_pictures_say_what_is_drawn(pictures: tuple[str, ...], kind: type[Any], control_image: RGBImage):
    sent = {name: "AAAA" if name in pictures else None for name in PICTURES}
    drawn = request(**sent)
    assert type(drawn) is kind
    assert [control.image for control in drawn.controls] == [control_image]
    if kind is not TextToImage:
        assert (drawn.image, drawn.strength) == (INIT, 0.55)
    if kind is Inpainting:
        assert drawn.mask == MASK
    assert fields(**sent).own_meta()["strength"] == (None if kind is TextToImage else 0.55)


@pytest.mark.parametrize(
    ("changes", "preprocessors"),
    [
        ({"auto_hint": "no"}, [None]),
        ({"auto_hint": "no", "controlnet_type": "tea leaves"}, [None]),
        ({"controlnet_type": None}, ["canny"]),
        ({"controlnet_type": "SoftEdge"}, ["hed"]),
        ({"controlnet_model": "canny, depth", "controlnet_type": "canny"}, ["canny", "depth"]),
        ({"controlnet_model": "canny,depth", "controlnet_type": "hed,mlsd"}, ["hed", "mlsd"]),
        ({"controlnet_model": "plain", "controlnet_type": None}, [None]),
        ({"controlnet_type": "tile"}, [None]),
        ({"controlnet_model": "canny,depth", "controlnet_type": "ip2p,depth_zoe"}, [None, "zoe"]),
        *(({"controlnet_type": name}, [name]) for name in PREPROCESSORS),
        *(({"controlnet_type": name}, [meant]) for name, meant in ALIASES.items()),
    ],
)
def test_hints_are_made_as_each_controlnet_needs_them(changes: dict[str, object], preprocessors: list[Any]):
    assert [control.preprocessor for control in request(**changes).controls] == preprocessors


@pytest.mark.parametrize(
    ("given", "scales"),
    [(None, (1.0, 1.0)), ("0.5", (0.5, 0.5)), (2.55, (2.55, 2.55)), ("0, 20", (0.0, 20.0))],
)
def test_scales_are_one_for_all_or_one_each(given: object, scales: tuple[float, float]):
    drawn = request(controlnet_model="canny,depth", controlnet_conditioning_scale=given)
    assert tuple(control.scale for control in drawn.controls) == scales


WITH_INPAINT = MANIFEST.with_entry(
    "controlnets",
    "inpaint",
    ControlNetEntry.model_validate(
        {"source": {"folder": "inpaint"}, "family": "sd15", "preprocessor": "inpaint"}
    ),
)


@pytest.mark.parametrize("auto_hint", ["yes", "no", None])
@pytest.mark.parametrize(
    ("controlnets", "types", "preprocessors"),
    [
        ("inpaint", "inpaint", ["inpaint"]),
        ("inpaint", None, ["inpaint"]),
        ("plain", "Inpaint", ["inpaint"]),
        ("canny,inpaint", "canny,inpaint", ["canny", "inpaint"]),
        ("canny, inpaint", "inpaint", ["canny", "inpaint"]),
        ("inpaint,depth", None, ["inpaint", "depth"]),
    ],
)
def test_inpaint_takes_the_picture_and_its_mask_whatever_auto_hint_says(
    auto_hint: str | None, controlnets: str, types: str | None, preprocessors: list[str]
):
    sent_fields = fields(
        controlnet_model=controlnets, controlnet_type=types, auto_hint=auto_hint, mask_image="AAAA"
    )
    sent_fields.validate_together()
    sent_fields.validate_names(WITH_INPAINT)
    drawn: Any = sent_fields.to_request(WITH_INPAINT, PICTURES)
    assert (type(drawn), drawn.image, drawn.mask) == (Inpainting, INIT, MASK)
    hinted = [each if auto_hint == "yes" or each == "inpaint" else None for each in preprocessors]
    assert [control.preprocessor for control in drawn.controls] == hinted


def test_inpaint_without_a_mask_is_refused_before_anything_is_fetched():
    with pytest.raises(FieldError, match=r"^mask_image: is needed by the ControlNet for inpainting"):
        fields(controlnet_model="inpaint", controlnet_type="inpaint").validate_names(WITH_INPAINT)


SHIPPED = load_manifest(Path(__file__).parents[2] / "weights.yaml")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_documented_controlnet_is_here_or_refused_by_name_with_what_is_there(name: str):
    sent_fields = fields(
        model_id="stable-diffusion-v1-5",
        controlnet_model=name,
        controlnet_type=None,
        auto_hint="no",
        mask_image="AAAA",
    )
    if name in SHIPPED.controlnets or name == "pose":
        sent_fields.validate_names(SHIPPED)
        return
    assert name in ("face_detector", "blur", "gray", "low_quality", "aesthetic-controlnet")
    with pytest.raises(FieldError) as caught:
        sent_fields.validate_names(SHIPPED)
    assert str(caught.value).startswith(f"controlnet_model: {name} is not on this server")
    assert "what is: canny, openpose, depth, softedge" in str(caught.value)


def test_what_fits_another_kind_of_checkpoint_is_named():
    sent_fields = fields(model_id="sdxl", controlnet_model="canny")
    text = "canny was made for another kind of checkpoint; what fits this one: zoe-depth-sdxl"
    with pytest.raises(FieldError, match=f"^controlnet_model: {text}$"):
        sent_fields.validate_names(SHIPPED)


def test_pose_is_another_name_of_openpose():
    sent_fields = fields(
        model_id="stable-diffusion-v1-5", controlnet_model="pose", controlnet_type="pose", auto_hint="yes"
    )
    (control,) = sent_fields.controls(SHIPPED, CONTROL_IMAGE)
    assert (control.name, control.preprocessor) == ("openpose", "openpose")


@pytest.mark.parametrize("controlnet_type", [None, "segmentation"])
def test_a_guide_that_cannot_be_made_is_refused_and_may_be_sent(controlnet_type: str | None):
    sd15 = {"model_id": "stable-diffusion-v1-5", "controlnet_model": "segmentation"}
    with pytest.raises(FieldError, match=r"segmentation cannot be made of a picture here"):
        fields(**sd15, controlnet_type=controlnet_type, auto_hint="yes").validate_names(SHIPPED)
    fields(**sd15, controlnet_type=controlnet_type, auto_hint="no").validate_names(SHIPPED)


@pytest.mark.parametrize(
    ("changes", "warnings"),
    [
        ({}, ["strength had no effect without a picture that is redrawn"]),
        ({"strength": None}, []),
        ({"strength": 7}, ["strength had no effect without a picture that is redrawn"]),
        ({"strength": None, "controlnet_type": None, "auto_hint": "no"}, []),
        ({"strength": None, "auto_hint": "no"}, ["controlnet_type had no effect while auto_hint is no"]),
        ({"strength": None, "auto_hint": None}, ["controlnet_type had no effect while auto_hint is no"]),
        ({"strength": 0.5, "control_image": "AAAA"}, []),
    ],
)
def test_options_without_effect_are_named(changes: dict[str, object], warnings: list[str]):
    named = fields(**changes).without_effect_but_sent()
    assert [f"{name} had no effect {reason}" for name, reason in named.items()] == warnings


def test_a_panorama_may_be_steered_and_as_wide_as_any():
    drawn = request(panorama="yes", width=2048)
    assert (drawn.panorama, drawn.width, len(drawn.controls)) == (True, 2048, 1)


def test_guess_mode_needs_no_prompt():
    drawn = request(guess_mode="yes", prompt=None)
    assert (drawn.guess_mode, drawn.prompt) == (True, "")
    with pytest.raises(MissingField, match="prompt"):
        request(prompt=None)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"controlnet_model": "unheard"}, "controlnet_model: unheard is not on this server"),
        ({"model_id": "xl"}, "controlnet_model: canny was made for another kind of checkpoint"),
        ({"controlnet_model": "canny,canny"}, "controlnet_model: names a ControlNet twice"),
        (
            {"controlnet_type": "tea leaves"},
            f"controlnet_type: tea leaves is not one of {', '.join(PREPROCESSORS)}; or set auto_hint to no",
        ),
        *(
            (
                {"controlnet_type": name},
                f"controlnet_type: {name} cannot be made of a picture here: {reason}. What can is"
                f" {', '.join(PREPROCESSORS)}; or set auto_hint to no",
            )
            for name, reason in WITHOUT_PREPROCESSOR.items()
        ),
        (
            {"controlnet_type": "hed,mlsd"},
            "controlnet_type: must be one, or one for each controlnet_model",
        ),
        (
            {"controlnet_conditioning_scale": 20.1},
            "controlnet_conditioning_scale: must be between 0 and 20",
        ),
        (
            {"controlnet_conditioning_scale": "-0.1"},
            "controlnet_conditioning_scale: must be between 0 and 20",
        ),
        (
            {"controlnet_conditioning_scale": "strong"},
            "controlnet_conditioning_scale: must be numbers, separated by commas",
        ),
        (
            {"controlnet_conditioning_scale": "1,1"},
            "controlnet_conditioning_scale: must be one number, or one for each controlnet_model",
        ),
        (
            {"control_image": "AAAA", "strength": 0.01},
            "strength: leaves none of 30 steps to draw; raise either",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_its_field(changes: dict[str, object], problem: str):
    with pytest.raises(FieldError) as caught:
        request(**changes)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    "changes", [{"init_image": None}, {"init_image": None, "mask_image": "AAAA", "control_image": "AAAA"}]
)
def test_a_guide_is_required_and_something_to_repaint(changes: dict[str, object]):
    with pytest.raises(MissingField) as caught:
        request(**changes)
    assert caught.value.field == "init_image"


def test_limits_and_required_fields_are_told_at_once():
    with pytest.raises(ValidationError) as caught:
        fields(controlnet_model=None, strength=1.1, width=100, guess_mode="perhaps", auto_hint=7)
    assert by_field(field_errors(ControlNetFields, caught.value)) == {
        "controlnet_model": ["The controlnet_model field is required."],
        "strength": ["strength must be between 0 and 1"],
        "width": ["width must be between 256 and 1024"],
        "guess_mode": ["guess_mode must be true or false"],
        "auto_hint": ["auto_hint must be true or false"],
    }
