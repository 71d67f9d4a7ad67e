"""Options that have no effect in a call: the answer names them, and none of their values ends the call."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.drawing.meta import request_meta, request_warning
from server.endpoints.enterprise.text2img import Text2Img
from server.endpoints.enterprise.wire import by_field
from server.endpoints.fields import field_errors
from server.errors import FieldError

CHECKED = {"pipeline": {"folder": "sd"}, "safety_checker": {"folder": "checker"}}
MANIFEST = Manifest.model_validate({"pipelines": {"checked": {"family": "sd15", "parts": CHECKED}}})

PLAIN = {"model_id": "checked", "prompt": "a cat", "enhance_prompt": "no"}


def texts(body: dict[str, object]) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        Text2Img.model_validate(body)
    return by_field(field_errors(Text2Img, caught.value))


def said(**changes: object) -> tuple[dict[str, object], object]:
    """What `meta` says of the scheduler's options, and the warning."""
    fields = Text2Img.model_validate({**PLAIN, **changes})
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
    fields = Text2Img.model_validate({**PLAIN, **changes})
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
    ((field, (problem,)),) = texts({**PLAIN, **changes}).items()
    assert field in changes
    assert problem.startswith(text)


@pytest.mark.parametrize("value", ["yes", True, 1, "perhaps", ["10.0.0.1"]])
def test_a_load_balancer_is_answered_by_how_several_machines_are_run(value: object):
    fields = Text2Img.model_validate({**PLAIN, "loadbalancer": value})
    warning = request_warning(fields, fields.to_request(MANIFEST, {}))
    assert str(warning).startswith("loadbalancer had no effect: one server draws on all GPUs of its machine")
    for nothing in ("no", False, None, "", "0"):
        fields = Text2Img.model_validate({**PLAIN, "loadbalancer": nothing})
        assert request_warning(fields, fields.to_request(MANIFEST, {})) is None


@pytest.mark.parametrize("name", ["DDIMInverseScheduler", "KarrasVeScheduler", "ScoreSdeVeScheduler"])
def test_the_answer_says_what_a_schedulers_name_means_here(name: str):
    assert said(scheduler=name)[0]["scheduler_note"]


def test_an_algorithm_that_the_scheduler_does_not_know_is_refused_before_anything_is_drawn():
    changes = {"scheduler": "DPMSolverSinglestepScheduler", "algorithm_type": "sde-dpmsolver"}
    with pytest.raises(FieldError, match=r"one of dpmsolver, dpmsolver\+\+, sde-dpmsolver\+\+ with"):
        Text2Img.model_validate({**PLAIN, **changes}).validate_names(MANIFEST)
