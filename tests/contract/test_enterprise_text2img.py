"""The documented text2img page of the enterprise dialect: its own sample, every default, limit and text."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipelines.request import Lora, SchedulerChoice, TextToImage
from pipelines.schedulers.names import NAMES
from pipelines.weights.entries import Source, UpscalerEntry
from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.drawing.meta import request_meta, request_warning
from server.endpoints.enterprise.drawing.phrases import (
    NEGATIVE_PHRASES,
    PROMPT_PHRASES,
)
from server.endpoints.enterprise.text2img import Text2Img
from server.endpoints.enterprise.wire import by_field
from server.endpoints.fields import field_errors
from server.errors import FieldError, NotFound
from tests.documented_bodies import TEXT2IMG, TEXT2IMG_ANSWER

MANIFEST = Manifest.model_validate(
    {
        "pipelines": {
            "sd": {"family": "sd15", "parts": {"pipeline": {"folder": "sd"}}},
            "checked": {
                "family": "sd15",
                "parts": {"pipeline": {"folder": "sd"}, "safety_checker": {"folder": "checker"}},
            },
            "kolors": {"family": "kolors", "parts": {"pipeline": {"folder": "kolors"}}},
        },
        "loras": {
            "more_details": {"source": {"file": "a.safetensors"}, "family": "sd15"},
            "animie": {"source": {"file": "b.safetensors"}, "family": "sd15"},
            "for-xl": {"source": {"file": "c.safetensors"}, "family": "sdxl"},
        },
        "embeddings": {"bad-hands": {"source": {"file": "d.safetensors"}, "family": "sd15"}},
        "vaes": {"soft": {"source": {"folder": "vae"}, "family": "sd15"}},
    }
)

PLAIN = {"model_id": "sd", "prompt": "a cat", "enhance_prompt": "no"}

SAMPLE = {**TEXT2IMG, "model_id": "sd"}
"""The page's own request body, with a checkpoint of the manifest."""


def request(**changes: object) -> TextToImage:
    fields = Text2Img.model_validate({**PLAIN, **changes})
    fields.validate_names(MANIFEST)
    return fields.to_request(MANIFEST, {})


def texts(body: dict[str, object]) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        Text2Img.model_validate(body)
    return by_field(field_errors(Text2Img, caught.value))


def test_the_pages_own_sample_becomes_exactly_this_request():
    fields = Text2Img.model_validate(SAMPLE)
    drawn = fields.to_request(MANIFEST, {})
    assert drawn == TextToImage(
        pipeline="sd",
        prompt=TEXT2IMG_ANSWER["meta"]["prompt"],
        negative_prompt=TEXT2IMG_ANSWER["meta"]["negative_prompt"],
        width=512,
        height=512,
        num_inference_steps=20,
        guidance_scale=7.5,
        seeds=drawn.seeds,
        scheduler=SchedulerChoice(name="UniPCMultistepScheduler", use_karras_sigmas=True),
        prompt_weighting=True,
        clip_skip=1,
        token_merging_ratio=0.5,
        safety_checker=False,
    )
    assert len(drawn.seeds) == 1


def test_defaults_are_the_documented_ones():
    drawn = Text2Img.model_validate({"model_id": "sd", "prompt": "a cat"}).to_request(MANIFEST, {})
    assert drawn == TextToImage(
        pipeline="sd",
        prompt="a cat, " + ", ".join(PROMPT_PHRASES),
        negative_prompt=", ".join(NEGATIVE_PHRASES),
        width=512,
        height=512,
        num_inference_steps=20,
        guidance_scale=7.5,
        seeds=drawn.seeds,
        scheduler=SchedulerChoice(name="UniPCMultistepScheduler", use_karras_sigmas=True),
        prompt_weighting=True,
        clip_skip=None,
        token_merging_ratio=0.5,
        safety_checker=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_scheduler_is_passed_on_by_its_name(name: str):
    assert request(scheduler=name, use_karras_sigmas="no").scheduler == SchedulerChoice(
        name=name, use_karras_sigmas=False
    )


def test_all_eighteen_documented_schedulers_are_known():
    assert len(set(NAMES)) == 18


@pytest.mark.parametrize(
    ("field", "inside", "outside", "text"),
    [
        ("width", ["256", 1024, 264], [248, 1032], "width must be between 256 and 1024"),
        ("height", ["256", 1024], ["248", 1032], "height must be between 256 and 1024"),
        ("height", [520], [513], "height must be divisible by 8"),
        ("samples", [1, "4"], [0, 5], "samples must be between 1 and 4"),
        ("num_inference_steps", [1, 50], [0, 51], "num_inference_steps must be between 1 and 50"),
        ("guidance_scale", [1, "20"], [0.9, 20.1], "guidance_scale must be between 1 and 20"),
        ("clip_skip", [1, 8], [0, 9], "clip_skip must be between 1 and 8"),
        ("seed", [-1, 2**64 - 1, "98877465625"], [-2, 2**64], f"seed must be between -1 and {2**64 - 1}"),
        ("enhance_prompt", ["yes", False, "True", 1], ["perhaps"], "enhance_prompt must be true or false"),
    ],
)
def test_limits_hold_on_both_sides(field: str, inside: list[object], outside: list[object], text: str):
    for value in inside:
        request(**{field: value})
    for value in outside:
        assert texts({**PLAIN, field: value}) == {field: [text]}


def test_a_panorama_may_be_twice_as_wide_and_no_higher():
    assert request(panorama="yes", width=2048, height=1024).width == 2048
    for width in (248, 2056):
        body = {**PLAIN, "panorama": "yes", "width": width, "height": 1032}
        assert texts(body) == {
            "width": ["width must be between 256 and 2048"],
            "height": ["height must be between 256 and 1024"],
        }
    assert texts({**PLAIN, "panorama": True, "width": 2044}) == {"width": ["width must be divisible by 8"]}
    assert texts({**PLAIN, "panorama": "no", "width": 2048}) == {
        "width": ["width must be between 256 and 1024"]
    }
    assert set(texts({**PLAIN, "panorama": "perhaps", "width": 2048})) == {"panorama", "width"}


@pytest.mark.parametrize("name", ["panorama", "self_attention"])
def test_layers_around_the_guidance_reach_the_request_and_meta(name: str):
    assert not getattr(request(), name)
    fields = Text2Img.model_validate({**PLAIN, name: "yes"})
    drawn = fields.to_request(MANIFEST, {})
    assert getattr(drawn, name) is True
    assert request_meta(fields, drawn, MANIFEST.pipelines["sd"])[name] == "yes"


def test_everything_that_is_wrong_is_said_at_once():
    assert texts({"width": 100, "samples": 9}) == {
        "model_id": ["The model_id field is required."],
        "prompt": ["The prompt field is required."],
        "width": ["width must be between 256 and 1024"],
        "samples": ["samples must be between 1 and 4"],
    }


def test_steps_is_another_name_for_num_inference_steps():
    assert request(steps=7).num_inference_steps == 7


@pytest.mark.parametrize(
    ("strength", "scales"),
    [(None, (1.0, 1.0)), ("0.5", (0.5, 0.5)), (0.5, (0.5, 0.5)), ("0.2, 0.9", (0.2, 0.9))],
)
def test_lora_strengths_are_one_for_all_or_one_each(strength: object, scales: tuple[float, float]):
    drawn = request(lora_model="more_details,animie", lora_strength=strength)
    assert drawn.loras == (
        Lora(name="more_details", scale=scales[0]),
        Lora(name="animie", scale=scales[1]),
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"lora_model": "unheard"}, "lora_model: unheard is not on this server"),
        ({"lora_model": "for-xl"}, "lora_model: for-xl was made for another kind of checkpoint"),
        ({"embeddings_model": "unheard"}, "embeddings_model: unheard is not on this server"),
        ({"vae": "unheard"}, "vae: unheard is not on this server"),
        ({"vae": "soft,soft"}, "vae: soft,soft is not on this server"),
        (
            {"lora_model": "animie", "lora_strength": "1,1"},
            "lora_strength: must be one number, or one for each lora_model",
        ),
        (
            {"lora_model": "animie", "lora_strength": "strong"},
            "lora_strength: must be numbers, separated by commas",
        ),
        ({"lora_model": "animie", "lora_strength": 1.1}, "lora_strength: must be between 0.1 and 1"),
        ({"lora_model": "animie", "lora_strength": "nan"}, "lora_strength: must be between 0.1 and 1"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_by_name(changes: dict[str, object], problem: str):
    with pytest.raises(FieldError) as caught:
        request(**changes)
    assert str(caught.value) == problem


def test_white_space_around_a_name_is_nothing():
    drawn = request(vae=" soft ", lora_model=" animie ,", embeddings_model=" bad-hands")
    names = (drawn.vae, drawn.loras[0].name, drawn.embeddings[0])
    assert names == ("soft", "animie", "bad-hands")


@pytest.mark.parametrize("word", ["no", "none", "null", "None", " no "])
def test_a_word_for_nothing_names_no_adapter(word: str):
    drawn = request(embeddings_model=word, lora_model=word, vae=word)
    assert (drawn.embeddings, drawn.loras, drawn.vae) == ((), (), None)


def test_adapters_reach_the_request():
    drawn = request(embeddings_model="bad-hands", vae="soft", tomesd="no")
    assert (drawn.embeddings, drawn.vae, drawn.token_merging_ratio) == (("bad-hands",), "soft", 0.0)


@pytest.mark.parametrize("model_id", ["unheard", "kolors"])
def test_only_checkpoints_of_this_dialect_can_be_named(model_id: str):
    with pytest.raises(NotFound, match="Model id not found"):
        request(model_id=model_id)


def test_a_checkpoint_without_a_safety_checker_says_so():
    fields = Text2Img.model_validate(PLAIN)
    drawn = fields.to_request(MANIFEST, {})
    assert "no safety checker" in str(request_warning(fields, drawn))
    assert request_meta(fields, drawn, MANIFEST.pipelines["sd"])["safetychecker"] == "no"


def test_a_checkpoint_with_a_safety_checker_uses_it():
    fields = Text2Img.model_validate({**PLAIN, "model_id": "checked"})
    drawn = fields.to_request(MANIFEST, {})
    assert drawn.safety_checker
    assert request_warning(fields, drawn) is None


def test_seeds_of_several_samples_count_up():
    assert request(seed=2**64 - 1, samples=3).seeds == (2**64 - 1, 0, 1)


@pytest.mark.parametrize("by", ["black", "blur", "pixelate", "sensitive_content_text"])
def test_what_replaces_flagged_pictures_reaches_the_request(by: str):
    assert request(safety_checker_type=by).replacement == by


def test_highres_fix_reaches_the_request_and_the_answer():
    fields = Text2Img.model_validate({**PLAIN, "highres_fix": "yes", "width": 1024})
    drawn = fields.to_request(MANIFEST, {})
    assert drawn.highres_fix
    meta = request_meta(fields, drawn, MANIFEST.pipelines["sd"])
    assert (meta["highres_fix"], meta["W"]) == ("yes", 1024)


def test_upscale_takes_the_first_upscaler_and_says_so_when_there_is_none():
    with pytest.raises(FieldError, match=r"^upscale: needs an upscaler, and this server has none"):
        request(upscale="yes")
    upscalers = {
        "first": UpscalerEntry(source=Source(file="a")),
        "second": UpscalerEntry(source=Source(file="b")),
    }
    manifest = MANIFEST.model_copy(update={"upscalers": upscalers})
    fields = Text2Img.model_validate({**PLAIN, "upscale": "yes"})
    fields.validate_names(manifest)
    drawn = fields.to_request(manifest, {})
    assert (drawn.upscaler, drawn.width) == ("first", 512)
    assert request_meta(fields, drawn, manifest.pipelines["sd"])["upscale"] == "yes"
