"""The documented text2img page of the enterprise dialect: its own sample, every default, limit and text."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipelines.request import Lora, SchedulerChoice, TextToImage
from pipelines.schedulers.names import NAMES
from pipelines.weights.manifest import Manifest, Source, UpscalerEntry
from server.endpoints.enterprise.drawing.meta import request_meta, request_warning
from server.endpoints.enterprise.drawing.phrases import (
    NEGATIVE_PHRASES,
    PROMPT_PHRASES,
    enhanced_negative_prompt,
    enhanced_prompt,
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


def test_the_enhancement_repeats_nothing_that_is_there():
    prompt = enhanced_prompt("a cat, cinematic lighting, (raw)")
    assert prompt.lower().count("cinematic lighting") == 1
    assert prompt.lower().count("raw") == 1
    assert enhanced_prompt(prompt) == prompt


@pytest.mark.parametrize(
    "prompt",
    ["a cat, 8K, RAW, in-frame", "8k, ((RAW)) , in-frame,", "sharp focus,Redshift, f/1.4, a cat, 8K  "],
)
def test_a_prompt_with_three_phrases_stays_as_it_is_to_the_byte(prompt: str):
    assert enhanced_prompt(prompt) == prompt


@pytest.mark.parametrize(
    "prompt", ["a cat, 8K, RAW", "a cat, 8K, 8K, 8K", "8K RAW in-frame", "a cat, 8Kx, unedited film, (raw"]
)
def test_a_prompt_with_fewer_gets_those_that_it_lacks(prompt: str):
    lacking = [phrase for phrase in PROMPT_PHRASES if phrase not in ("8K", "RAW")]
    assert enhanced_prompt(prompt).startswith(f"{prompt}, DSLR photography, sharp focus")
    assert [phrase for phrase in lacking if phrase not in enhanced_prompt(prompt)] == []


@pytest.mark.parametrize("negative", ["blurry", "ugly, (((mutation))),", ", ".join(NEGATIVE_PHRASES), " a "])
def test_the_whole_negative_list_is_appended_after_a_blank_whatever_is_there(negative: str):
    assert enhanced_negative_prompt(negative) == f"{negative} {', '.join(NEGATIVE_PHRASES)}"


def test_an_empty_negative_prompt_becomes_the_vendors_list():
    assert enhanced_negative_prompt("") == ", ".join(NEGATIVE_PHRASES)


@pytest.mark.parametrize("by", ["black", "blur", "pixelate", "sensitive_content_text"])
def test_what_replaces_flagged_pictures_reaches_the_request(by: str):
    assert request(safety_checker_type=by).replacement == by


def test_highres_fix_reaches_the_request_and_the_answer():
    fields = Text2Img.model_validate({**PLAIN, "highres_fix": "yes", "width": 1024})
    drawn = fields.to_request(MANIFEST, {})
    assert drawn.highres_fix
    meta = request_meta(fields, drawn, MANIFEST.pipelines["sd"])
    assert (meta["highres_fix"], meta["W"]) == ("yes", 1024)


def said(**changes: object) -> tuple[dict[str, object], object]:
    """What `meta` says of the scheduler's options, and the warning."""
    fields = Text2Img.model_validate({**PLAIN, "model_id": "checked", **changes})
    drawn = fields.to_request(MANIFEST, {})
    meta = request_meta(fields, drawn, MANIFEST.pipelines["checked"])
    names = ("use_karras_sigmas", "algorithm_type", "scheduler_note")
    return {name: meta[name] for name in names}, request_warning(fields, drawn)


@pytest.mark.parametrize(
    ("changes", "karras", "algorithm_type", "warning"),
    [
        ({}, "yes", None, None),
        ({"use_karras_sigmas": "no"}, "no", None, None),
        ({"scheduler": "DDIMScheduler"}, "no effect", None, None),
        ({"scheduler": "DDIMScheduler", "use_karras_sigmas": ""}, "no effect", None, None),
        ({"scheduler": "DDIMScheduler", "use_karras_sigmas": "no"}, "no effect", None, None),
        (
            {"scheduler": "DDIMScheduler", "use_karras_sigmas": "yes"},
            "no effect",
            None,
            "use_karras_sigmas had no effect with DDIMScheduler",
        ),
        ({"algorithm_type": "none"}, "yes", None, None),
        ({"algorithm_type": None, "safety_checker_type": "blur"}, "yes", None, None),
        (
            {"scheduler": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver+++"},
            "yes",
            "dpmsolver++",
            None,
        ),
        (
            {"scheduler": "DPMSolverMultistepScheduler", "algorithm_type": "none"},
            "yes",
            None,
            None,
        ),
        (
            {"algorithm_type": "dpmsolver++"},
            "yes",
            "no effect",
            "algorithm_type had no effect with UniPCMultistepScheduler",
        ),
        (
            {"scheduler": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver"},
            "yes",
            "sde-dpmsolver",
            None,
        ),
    ],
)
def test_the_answer_says_which_of_the_schedulers_options_had_no_effect(
    changes: dict[str, object], karras: str, algorithm_type: str | None, warning: str | None
):
    assert said(**changes) == (
        {"use_karras_sigmas": karras, "algorithm_type": algorithm_type, "scheduler_note": None},
        warning,
    )


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        *(
            (
                {"safety_checker": no, "safety_checker_type": word},
                "safety_checker_type had no effect while safety_checker is no",
            )
            for no in ("no", False, "0")
            for word in ("no", "none", "blur", 5, "BLACK")
        ),
        ({"algorithm_type": "euler"}, "algorithm_type had no effect with UniPCMultistepScheduler"),
        ({"lora_strength": "strong"}, "lora_strength had no effect without lora_model"),
        ({"lora_strength": "7"}, "lora_strength had no effect without lora_model"),
        ({"lora_strength": "0.5,0.7"}, "lora_strength had no effect without lora_model"),
        ({"lora_strength": ["0.5"]}, "lora_strength had no effect without lora_model"),
        (
            {"scheduler": "DDIMScheduler", "use_karras_sigmas": "maybe"},
            "use_karras_sigmas had no effect with DDIMScheduler",
        ),
        (
            {"scheduler": "PNDMScheduler", "algorithm_type": "x", "lora_strength": None, "safety_checker": 0,
             "safety_checker_type": "x"},
            "safety_checker_type had no effect while safety_checker is no;"
            " algorithm_type had no effect with PNDMScheduler",
        ),
    ],
)  # fmt: skip
def test_an_option_without_effect_never_ends_a_call_and_is_named(changes: dict[str, object], warning: str):
    fields = Text2Img.model_validate({**PLAIN, "model_id": "checked", **changes})
    fields.validate_names(MANIFEST)
    assert request_warning(fields, fields.to_request(MANIFEST, {})) == warning


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"safety_checker_type": "no"}, "safety_checker_type must be one of black, blur, pixelate"),
        (
            {"scheduler": "DPMSolverMultistepScheduler", "algorithm_type": "x"},
            "algorithm_type must be one of",
        ),
        ({"use_karras_sigmas": "maybe"}, "use_karras_sigmas must be true or false"),
    ],
)
def test_an_option_with_effect_still_has_to_be_right(changes: dict[str, object], text: str):
    ((field, (problem,)),) = texts({**PLAIN, "model_id": "checked", **changes}).items()
    assert field in changes
    assert problem.startswith(text)


@pytest.mark.parametrize("value", ["yes", True, 1, "perhaps", ["10.0.0.1"]])
def test_a_load_balancer_is_answered_by_how_several_machines_are_run(value: object):
    fields = Text2Img.model_validate({**PLAIN, "model_id": "checked", "loadbalancer": value})
    warning = request_warning(fields, fields.to_request(MANIFEST, {}))
    assert str(warning).startswith("loadbalancer had no effect: one server draws on all GPUs of its machine")
    for nothing in ("no", False, None, "", "0"):
        fields = Text2Img.model_validate({**PLAIN, "model_id": "checked", "loadbalancer": nothing})
        assert request_warning(fields, fields.to_request(MANIFEST, {})) is None


@pytest.mark.parametrize("name", ["DDIMInverseScheduler", "KarrasVeScheduler", "ScoreSdeVeScheduler"])
def test_the_answer_says_what_a_schedulers_name_means_here(name: str):
    assert said(scheduler=name)[0]["scheduler_note"]


def test_an_algorithm_that_the_scheduler_does_not_know_is_refused_before_anything_is_drawn():
    with pytest.raises(FieldError, match=r"one of dpmsolver, dpmsolver\+\+, sde-dpmsolver\+\+ with"):
        request(scheduler="DPMSolverSinglestepScheduler", algorithm_type="sde-dpmsolver")


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
