"""LoRAs, textual inversions, VAEs, token merging and the safety checker: seen while on, gone when off."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from pipelines.errors import CheckpointUnavailable, InvalidInput, UnknownAdapter
from pipelines.request import Lora, SchedulerChoice
from pipelines.weights.entries import AdapterEntry, Source
from pipelines.weights.manifest import Manifest
from tests.drawing import (
    advance_to_the_end,
    array,
    draw,
    draw_moving_group,
    finish,
    largest_difference,
    open_family,
    reference,
    seeded,
    small_request,
)

PIPELINE = "stable-diffusion-v1-5"
REQUEST = small_request(
    num_inference_steps=4, scheduler=SchedulerChoice(name="EulerAncestralDiscreteScheduler")
)
MORE_DETAILS = Lora(name="more_details", scale=0.6)
ANIMIE = Lora(name="animie", scale=0.9)
SWITCHED_ON = {
    "peft lora": {"loras": (MORE_DETAILS,)},
    "kohya lora": {"loras": (ANIMIE,)},
    "two loras": {"loras": (ANIMIE, MORE_DETAILS)},
    "embedding": {"embeddings": ("night_scene",), "prompt": "a red fox night_scene"},
    "vae": {"vae": "sd-vae-ft-mse"},
    "token merging": {"token_merging_ratio": 0.5},
    "clip skip": {"clip_skip": 2},
}


@pytest.fixture(scope="module")
def family(manifest: Manifest) -> Any:
    return open_family(manifest, PIPELINE)


@pytest.fixture
def plain(manifest: Manifest) -> Any:
    from diffusers import EulerAncestralDiscreteScheduler

    pipeline = reference(StableDiffusionPipeline, manifest, "sd15")
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    return pipeline


def adapters_folder(manifest: Manifest) -> Path:
    return manifest.path.parent / "sd15_adapters"


def one(family: Any, **changes: Any) -> np.ndarray:
    return array(draw(family, replace(REQUEST, **changes))[0].image)


def drawn_plainly(plain: Any, prompt: str = REQUEST.prompt) -> np.ndarray:
    return np.asarray(
        plain(
            prompt,
            width=64,
            height=64,
            num_inference_steps=4,
            guidance_scale=7.5,
            generator=seeded(1024),
        ).images[0]
    )


@pytest.mark.parametrize("change", SWITCHED_ON.values(), ids=SWITCHED_ON.keys())
def test_a_switch_changes_the_picture_and_leaves_nothing_behind(
    change: dict[str, Any], family: Any, manifest: Manifest
) -> None:
    before = one(family)
    changed = one(family, **change)
    assert np.abs(before.astype(int) - changed.astype(int)).mean() > 1
    assert np.array_equal(one(family), before)
    assert np.array_equal(before, one(open_family(manifest, PIPELINE)))


def test_the_text_encoder_is_free_of_loras_for_a_prompt_that_is_new(family: Any, manifest: Manifest) -> None:
    one(family, loras=(MORE_DETAILS,))
    prompt = "only encoded after the LoRA"
    assert np.array_equal(one(family, prompt=prompt), one(open_family(manifest, PIPELINE), prompt=prompt))


@pytest.mark.parametrize("loras", [(MORE_DETAILS,), (ANIMIE,), (ANIMIE, MORE_DETAILS)])
def test_loras_draw_what_the_plain_pipeline_draws_with_them(
    loras: tuple[Lora, ...], family: Any, plain: Any, manifest: Manifest
) -> None:
    for lora in loras:
        plain.load_lora_weights(
            adapters_folder(manifest), weight_name=f"{lora.name}.safetensors", adapter_name=lora.name
        )
    plain.set_adapters([lora.name for lora in loras], [lora.scale for lora in loras])
    assert np.array_equal(one(family, loras=loras), drawn_plainly(plain))


def test_a_lora_reaches_the_text_encoder_too(family: Any) -> None:
    with_lora = family.encode(replace(REQUEST, loras=(MORE_DETAILS,)))[0].conditioning.positive
    without = family.encode(REQUEST)[0].conditioning.positive
    assert not torch.equal(with_lora["encoder_hidden_states"], without["encoder_hidden_states"])


@pytest.mark.parametrize("network", ["unet", "text_encoder"])
def test_a_second_lora_leaves_the_weights_of_the_first_alone(network: str, manifest: Manifest) -> None:
    family = open_family(manifest, PIPELINE)
    family.encode(replace(REQUEST, loras=(MORE_DETAILS,)))
    first = {name: tensor.clone() for name, tensor in family.modules[network].named_parameters()}
    family.encode(replace(REQUEST, loras=(MORE_DETAILS, ANIMIE)))
    both = dict(family.modules[network].named_parameters())
    assert len(both) > len(first)
    assert all(torch.equal(both[name], tensor) for name, tensor in first.items())


def test_groups_with_different_loras_can_take_turns(family: Any) -> None:
    """Each turn switches; the pictures are those of requests drawn one after the other."""
    choices = [(), (MORE_DETAILS,), (ANIMIE,), (replace(ANIMIE, scale=0.2),), (MORE_DETAILS, ANIMIE)]
    alone = [one(family, loras=loras) for loras in choices]
    samples = [family.encode(replace(REQUEST, loras=loras))[0] for loras in choices]
    from pipelines.denoising import step

    with torch.no_grad():
        while not samples[0].sampler.done:
            for sample in samples:
                family.attach(sample.key)
                step.advance([sample])
    together = [array(finish(sample).image) for sample in samples]
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert len({picture.tobytes() for picture in alone}) == len(choices)


def test_more_loras_than_may_stay_attached_come_and_go(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = adapters_folder(manifest) / "animie.safetensors"
    copies = {}
    for index in range(6):
        shutil.copy(file, file.with_name(f"copy{index}.safetensors"))
        source = Source(file=Path(f"sd15_adapters/copy{index}.safetensors"))
        copies[f"copy {index}.v2"] = AdapterEntry(source=source, family="sd15")
    size = sum(tensor.nbytes for tensor in load_file(file).values())
    monkeypatch.setattr("pipelines.adapters.loras.KEPT_BYTES", 4 * size)
    family = open_family(manifest.model_copy(update={"loras": copies}), PIPELINE)
    before = one(family)
    parameters = len(list(family.modules["unet"].parameters()))
    pictures = {one(family, loras=(Lora(name=name),)).tobytes() for name in copies}
    assert len(pictures) == 1
    assert np.array_equal(one(family), before)
    per_lora = 2 * (len(load_file(file)) // 3)
    assert len(list(family.modules["unet"].parameters())) <= parameters + 4 * per_lora


def test_a_request_that_fails_in_between_changes_nothing(family: Any) -> None:
    before, with_lora = one(family), one(family, loras=(ANIMIE,))
    for loras in [(ANIMIE, Lora(name="gone")), (Lora(name="gone"),), (ANIMIE, ANIMIE)]:
        with pytest.raises(InvalidInput, match="loras: "):
            family.encode(replace(REQUEST, prompt="failing", loras=loras))
    with pytest.raises(UnknownAdapter):
        family.encode(replace(REQUEST, prompt="failing", embeddings=("night_scene", "gone")))
    assert np.array_equal(one(family), before)
    assert np.array_equal(one(family, loras=(ANIMIE,)), with_lora)


def test_an_embedding_draws_what_the_plain_pipeline_draws_with_it(
    family: Any, plain: Any, manifest: Manifest
) -> None:
    vectors = load_file(adapters_folder(manifest) / "night_scene.safetensors")["emb_params"]
    plain.load_textual_inversion(vectors, token="night_scene")
    prompt = "night_scene, a red fox"
    picture = one(family, prompt=prompt, embeddings=("night_scene",))
    assert np.array_equal(picture, drawn_plainly(plain, prompt))
    assert not np.array_equal(picture, one(family, prompt=prompt))


def test_an_embedding_by_another_name_is_the_word_that_is_said(family: Any, manifest: Manifest) -> None:
    renamed = {"night_scene": manifest.embeddings["night_scene"].model_copy(update={"also": ("nightly",)})}
    other = open_family(manifest.model_copy(update={"embeddings": renamed}), PIPELINE)
    picture = one(other, prompt="nightly, a red fox", embeddings=("nightly",))
    assert np.array_equal(picture, one(family, prompt="night_scene, a red fox", embeddings=("night_scene",)))


def test_tokenizer_and_embedding_table_are_the_same_objects_after_an_embedding(family: Any) -> None:
    encoder = family.modules["text_encoder"]
    table = encoder.get_input_embeddings()
    prompt = "night_scene seen once"
    family.encode(replace(REQUEST, prompt=prompt, embeddings=("night_scene",)))
    assert encoder.get_input_embeddings() is table


def test_another_vae_decodes_as_in_the_plain_pipeline(family: Any, plain: Any, manifest: Manifest) -> None:
    plain.vae = AutoencoderKL.from_pretrained(adapters_folder(manifest) / "vae")
    assert np.array_equal(one(family, vae="sd-vae-ft-mse"), drawn_plainly(plain))
    assert "vae:sd-vae-ft-mse" in family.modules


def test_a_vae_that_is_a_single_file_borrows_the_checkpoints_configuration(manifest: Manifest) -> None:
    folder = adapters_folder(manifest)
    shutil.copy(folder / "vae" / "diffusion_pytorch_model.safetensors", folder / "vae.safetensors")
    entry = AdapterEntry(source=Source(file=Path("sd15_adapters/vae.safetensors")), family="sd15")
    family = open_family(manifest.model_copy(update={"vaes": {**manifest.vaes, "file": entry}}), PIPELINE)
    assert np.array_equal(one(family, vae="file"), one(family, vae="sd-vae-ft-mse"))


def test_a_vae_in_the_manifest_replaces_the_checkpoints_own(manifest: Manifest, family: Any) -> None:
    entry = manifest.pipeline(PIPELINE)
    parts = {**entry.parts, "vae": Source(folder=Path("sd15_adapters/vae"))}
    pipelines = {**manifest.pipelines, PIPELINE: entry.model_copy(update={"parts": parts})}
    other = open_family(manifest.model_copy(update={"pipelines": pipelines}), PIPELINE)
    assert np.array_equal(one(other), one(family, vae="sd-vae-ft-mse"))


def test_a_vae_of_other_pixels_per_latent_does_not_fit(manifest: Manifest) -> None:
    vae = AutoencoderKL(
        block_out_channels=(8,) * 5,
        down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5,
        norm_num_groups=1,
    )
    vae.save_pretrained(adapters_folder(manifest) / "coarse")
    entry = AdapterEntry(source=Source(folder=Path("sd15_adapters/coarse")), family="sd15")
    family = open_family(manifest.model_copy(update={"vaes": {"coarse": entry}}), PIPELINE)
    with pytest.raises(UnknownAdapter, match="vae: coarse has other latents than the checkpoint"):
        family.encode(replace(REQUEST, vae="coarse"))


@pytest.fixture
def broken(manifest: Manifest) -> Any:
    """A family whose manifest names files that do not fit."""
    folder = adapters_folder(manifest)
    (folder / "text.safetensors").write_text("not a tensor in here")
    wide = {
        name: torch.cat([tensor, tensor], -1) if name.endswith("lora_A.weight") else tensor
        for name, tensor in load_file(folder / "more_details.safetensors").items()
    }
    save_file(wide, folder / "wide.safetensors")
    save_file({"something.else": torch.zeros(2, 2)}, folder / "else.safetensors")
    text = {name: tensor for name, tensor in wide.items() if name.startswith("text_encoder.")}
    save_file(text, folder / "text_only.safetensors")
    save_file({"emb_params": torch.zeros(2, 33)}, folder / "narrow.safetensors")

    def entry(file: str, family: Any = "sd15") -> AdapterEntry:
        return AdapterEntry(source=Source(file=Path("sd15_adapters") / file), family=family)

    files = {
        "missing": entry("nowhere.safetensors"),
        "corrupt": entry("text.safetensors"),
        "wide": entry("wide.safetensors"),
        "wide text": entry("text_only.safetensors"),
        "else": entry("else.safetensors"),
        "narrow": entry("narrow.safetensors"),
        "for sdxl": entry("animie.safetensors", "sdxl"),
    }
    kinds = {"loras": {**files, **manifest.loras}, "embeddings": files, "vaes": files}
    return open_family(manifest.model_copy(update=kinds), PIPELINE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loras": (Lora(name="unheard of"),)}, "loras: unheard of is not on this server"),
        ({"loras": (Lora(name="missing"),)}, "missing is unavailable: its weights are missing"),
        ({"loras": (Lora(name="corrupt"),)}, "loras: corrupt cannot be read"),
        ({"loras": (Lora(name="wide"),)}, "loras: wide does not fit this checkpoint"),
        ({"loras": (Lora(name="wide text"),)}, "loras: wide text does not fit this checkpoint"),
        ({"loras": (ANIMIE, Lora(name="else"))}, "loras: else does not fit this checkpoint"),
        ({"loras": (Lora(name="for sdxl"),)}, "loras: for sdxl is made for sdxl checkpoints"),
        ({"embeddings": ("unheard of",)}, "embeddings: unheard of is not on this server"),
        ({"embeddings": ("corrupt",)}, "embeddings: corrupt cannot be read"),
        ({"embeddings": ("narrow",)}, "embeddings: narrow does not fit this checkpoint"),
        ({"vae": "unheard of"}, "vae: unheard of is not on this server"),
        ({"vae": "corrupt"}, "vae: corrupt cannot be read"),
        ({"vae": "else"}, "vae: else cannot be read"),
        ({"vae": "for sdxl"}, "vae: for sdxl is made for sdxl checkpoints"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_adapter_that_cannot_be_used_is_named_and_leaves_no_trace(
    change: dict[str, Any], message: str, broken: Any
) -> None:
    before = one(broken)
    with pytest.raises((UnknownAdapter, CheckpointUnavailable), match=message):
        broken.encode(replace(REQUEST, **change))
    assert np.array_equal(one(broken), before)
    assert np.array_equal(one(broken, prompt="fresh"), one(broken, prompt="fresh"))
    assert not any("lora" in name for name, _ in broken.modules["text_encoder"].named_parameters())


def test_merging_tokens_does_not_depend_on_who_is_drawn_beside(family: Any) -> None:
    requests = [
        replace(REQUEST, prompt=f"picture {index}", seeds=(index,), token_merging_ratio=0.5)
        for index in range(3)
    ]
    grouped = draw_moving_group(family, requests)
    for request, picture in zip(requests, grouped, strict=True):
        assert largest_difference(picture, array(draw(family, request)[0].image)) <= 1


@pytest.mark.parametrize("ratio", [-0.1, 0.8])
def test_a_ratio_that_cannot_be_merged_is_refused(ratio: float, family: Any) -> None:
    with pytest.raises(InvalidInput, match=r"token_merging_ratio: must be between 0 and 0\.75"):
        family.encode(replace(REQUEST, token_merging_ratio=ratio))


def test_an_unfinished_sample_does_not_hold_its_lora_on(family: Any) -> None:
    before = one(family)
    (sample,) = family.encode(replace(REQUEST, loras=(ANIMIE,), token_merging_ratio=0.3))
    family.attach(sample.key)
    assert np.array_equal(one(family), before)
    advance_to_the_end(family, sample)
