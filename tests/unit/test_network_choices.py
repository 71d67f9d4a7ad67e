"""Choices for single networks in weights.yaml: what they change, and how wrong ones are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.weights.entries import PipelineEntry
from pipelines.weights.manifest import Manifest
from pipelines.weights.memory import Fit, activation_bytes, fits, part_bytes, stages
from pipelines.weights.networks import GIGABYTE
from pipelines.weights.repositories import repositories, select

PARTS: dict[str, Any] = {
    "kandinsky22": {"prior": {"hub": "a/prior"}, "decoder": {"hub": "a/decoder"}},
    "sd3_pose": {"pipeline": {"hub": "a/sd3"}, "controlnet": {"hub": "a/pose"}},
}
SD3_FILES = [
    "model_index.json",
    *(f"text_encoder{n}/model.safetensors" for n in ("", "_2")),
    *(f"text_encoder_3/model-0000{n}-of-00002.safetensors" for n in (1, 2)),
    "text_encoder_3/model.safetensors.index.json",
    *(f"tokenizer{n}/vocab.json" for n in ("", "_2", "_3")),
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json",
]


def entry(family: str, networks: object = None, dtype: str = "float16") -> PipelineEntry:
    parts = PARTS.get(family, {"pipeline": {"hub": "a/b"}})
    chosen = {} if networks is None else {"networks": networks}
    return PipelineEntry.model_validate({"family": family, "parts": parts, "dtype": dtype, **chosen})


def test_nothing_is_quantized_or_left_out_unless_it_is_chosen() -> None:
    plain = entry("sd3_pose")
    assert not any(plain.skips(name) or plain.quantization_of(name) for name in part_bytes(plain))


def test_a_network_may_have_a_dtype_of_its_own() -> None:
    chosen = entry("sdxl", {"vae": {"dtype": "float32"}, "text_encoder_2": {"dtype": "bfloat16"}})
    plain = part_bytes(entry("sdxl"))
    assert chosen.dtype_of("vae") == "float32"
    assert chosen.dtype_of("text_encoder_2") == "bfloat16"
    assert chosen.dtype_of("unet") == "float16"
    assert part_bytes(chosen) == {**plain, "vae": 2 * plain["vae"]}
    assert activation_bytes(chosen, "finish") == pytest.approx(2 * activation_bytes(entry("sdxl"), "finish"))
    assert activation_bytes(chosen, "denoise") == activation_bytes(entry("sdxl"), "denoise")


def test_t5_keeps_nothing_in_full_precision_where_it_runs_in_bfloat16() -> None:
    in_bfloat16 = part_bytes(entry("sd3_pose", {"text_encoder_3": {"dtype": "bfloat16"}}))["text_encoder_3"]
    assert part_bytes(entry("sd3_pose"))["text_encoder_3"] == pytest.approx(11.54e9, rel=0.001)
    assert in_bfloat16 == pytest.approx(9.52e9, rel=0.001)


@pytest.mark.parametrize(("quantize", "gigabytes"), [("int8", 6.5), ("int4", 3.6)])
def test_quantized_text_encoders_take_less(quantize: str, gigabytes: float) -> None:
    chosen = entry("kolors", {"text_encoder": {"quantize": quantize}})
    assert part_bytes(chosen)["text_encoder"] == pytest.approx(gigabytes * GIGABYTE, rel=0.02)
    assert part_bytes(chosen)["unet"] == part_bytes(entry("kolors"))["unet"]


def test_kolors_with_a_quantized_chatglm_is_drawn_by_a_12_gb_card() -> None:
    int8, int4 = ({"text_encoder": {"quantize": bits}} for bits in ("int8", "int4"))
    for networks, fit in ((None, Fit.never), (int8, Fit.on_demand), (int4, Fit.resident)):
        manifest = Manifest(pipelines={"kolors": entry("kolors", networks)})
        assert fits(manifest, 12 * GIGABYTE)["kolors"] is fit


def test_sd3_without_t5_is_drawn_by_a_12_gb_card() -> None:
    for networks, fit in ((None, Fit.never), ({"text_encoder_3": "skip"}, Fit.resident)):
        manifest = Manifest(pipelines={"sd3": entry("sd3_pose", networks)})
        assert fits(manifest, 12 * GIGABYTE)["sd3"] is fit


def test_a_skipped_network_has_no_bytes_and_is_needed_in_no_stage() -> None:
    chosen = entry("sd3_pose", {"text_encoder_3": "skip"})
    assert "text_encoder_3" not in part_bytes(chosen)
    assert stages(chosen)["encode"] == ("text_encoder", "text_encoder_2", "vae")


def pulled(**pipelines: PipelineEntry) -> set[str]:
    """The files of Stable Diffusion 3 that a pull fetches."""
    (needed,) = [each for each in repositories(Manifest(pipelines=pipelines)) if each.hub == "a/sd3"]
    folders = sorted({name.split("/")[0] for name in SD3_FILES if "/" in name})
    return set(select(SD3_FILES, needed, folders))


def test_a_pull_does_not_fetch_what_is_skipped() -> None:
    every = pulled(sd3=entry("sd3_pose"))
    left_out = {name for name in SD3_FILES if name.startswith(("text_encoder_3/", "tokenizer_3/"))}
    assert left_out <= every == set(SD3_FILES)
    assert pulled(sd3=entry("sd3_pose", {"text_encoder_3": "skip"})) == every - left_out


def test_a_pull_fetches_what_one_skips_and_another_needs() -> None:
    skipping = entry("sd3_pose", {"text_encoder_3": "skip"})
    assert pulled(sd3=entry("sd3_pose"), small=skipping) == set(SD3_FILES)


def test_full_precision_of_one_network_is_pulled() -> None:
    for networks, half in ((None, True), ({"vae": {"dtype": "float32"}}, False)):
        (needed,) = repositories(Manifest(pipelines={"xl": entry("sdxl", networks)}))
        assert needed.half is half


@pytest.mark.parametrize(
    ("family", "networks", "words"),
    [
        (
            "sd15",
            {"unet": {"quantize": "int8"}},
            "unet: only text encoders may be quantized; sd15 has",
        ),
        (
            "kolors",
            {"vae": {"quantize": "int4"}},
            "text encoders may be quantized; kolors has text_encoder",
        ),
        ("kandinsky22", {"prior.prior": {"quantize": "int8"}}, "kandinsky22 has prior.text_encoder"),
        ("sd3_pose", {"transformer": {"quantize": "int8"}}, "text_encoder, text_encoder_2, text_encoder_3"),
        ("kandinsky22", {"text_encoder": {"quantize": "int8"}}, "it has prior.text_encoder, prior.image_enc"),
        (
            "kolors",
            {"text_encoder_2": {"dtype": "float32"}},
            "has no network text_encoder_2; it has text",
        ),
        ("kolors", {"text_encoder": "skip"}, "text_encoder: kolors cannot draw without it"),
        ("sd3_pose", {"text_encoder": "skip"}, "cannot draw without it; it does without text_encoder_3"),
        (
            "sd3_pose",
            {"text_encoder_3": "int8"},
            "'int8' is no choice; it is skip, or has dtype",
        ),
        ("sd3_pose", {"text_encoder_3": False}, "text_encoder_3: False is no choice"),
        ("sd3_pose", {"text_encoder_3": None}, "text_encoder_3: None is no choice"),
        (
            "sd15",
            {"text_encoder": {"quantize": "int2"}},
            "quantize may be int8, int4, not 'int2'",
        ),
        ("sd15", {"text_encoder": {"dtype": "fp16"}}, "dtype may be float32, float16, bfloat16, not 'fp16'"),
        (
            "sd15",
            {"text_encoder": {"quantise": "int8"}},
            "'quantise' cannot be chosen; dtype and",
        ),
        ("sd15", "int8", "is a list of networks, such as {text_encoder: {quantize: int8}}"),
        ("upscaler", {"upscaler": {"quantize": "int8"}}, "upscaler has none"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused_in_words(family: str, networks: Any, words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        entry(family, networks)
    assert words in str(refused.value)
