"""load_model, load_model_v2, load_vae: every documented word is understood, however it is written."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from server.endpoints.enterprise.load_words import read_revision
from server.endpoints.enterprise.loads import LoadModel, LoadVae

ASKED = {"url": "me/it", "model_id": "it"}


@pytest.mark.parametrize(
    "model_type",
    [
        "stable_diffusion", "stable_diffusion_xl", "checkpoint", "model", "sd", "sd15", "sdxl", "huggingface",
        "custom_ckpt", "api_trained", "dreambooth", "lora", "lycoris", "embeddings", "embedding",
        "textual_inversion", "vae", "controlnet",
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["model_type", "model_category"])
def test_every_kind_has_a_word_in_both_fields(field: str, model_type: str):
    for written in (model_type, model_type.upper(), f" {model_type.replace('_', '-')} "):
        assert LoadModel.model_validate({**ASKED, field: written}).model_type == model_type


@pytest.mark.parametrize("model_format", ["diffusers", "safetensors", "ckpt", "bin", "pt", "pth", "pickle"])
def test_every_format_is_known_so_that_a_pickle_can_be_refused_by_its_name(model_format: str):
    assert LoadModel.model_validate({**ASKED, "model_format": model_format}).model_format == model_format


@pytest.mark.parametrize(
    "vae_type",
    [
        "sd", "sd15", "sd1_5", "sdxl", "stable_diffusion", "stable_diffusion_xl", "vae", "diffusers",
        "safetensors", "pt",
    ],
)  # fmt: skip
def test_every_kind_of_vae_has_a_word(vae_type: str):
    written: dict[str, Any] = {"vae_id": "it", "vae_url": "me/it", "vae_type": vae_type.replace("_", ".")}
    assert LoadVae.model_validate(written).vae_type == vae_type


@pytest.mark.parametrize(("field", "word"), [("model_type", "motion"), ("model_format", "gguf")])
def test_another_word_is_refused(field: str, word: str):
    with pytest.raises(ValidationError, match=field):
        LoadModel.model_validate({**ASKED, field: word})


@pytest.mark.parametrize(
    ("revision", "expected"),
    [
        ("fp32", ("fp32", "main")), ("FP16", ("fp16", "main")), (" bf16 ", ("bf16", "main")),
        ("main", (None, "main")), ("v1.0", (None, "v1.0")), ("refs/pr/1", (None, "refs/pr/1")),
        ("fp16-pruned", (None, "fp16-pruned")),
    ],
)  # fmt: skip
def test_a_revision_is_a_precision_or_else_a_branch(revision: str, expected: tuple[str | None, str]):
    assert read_revision(LoadModel.model_validate({**ASKED, "revision": revision}).revision) == expected


def test_the_pages_default_is_full_precision_of_the_main_branch():
    assert read_revision(LoadModel.model_validate(ASKED).revision) == ("fp32", "main")


def test_a_pickle_is_the_default_of_from_safetensors_as_on_the_page():
    for written in ("no", "yes", False, True, None):
        assert LoadModel.model_validate({**ASKED, "from_safetensors": written}).url == "me/it"
    assert LoadModel.model_validate(ASKED).from_safetensors is False
