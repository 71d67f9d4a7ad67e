"""The bytes of each part of a pipeline, and what of a manifest fits which card."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.weights.entries import PipelineEntry
from pipelines.weights.kinds import Dtype
from pipelines.weights.manifest import Manifest, load_manifest
from pipelines.weights.memory import (
    CONTEXT_BYTES,
    Fit,
    activation_bytes,
    budget_bytes,
    fits,
    needed_bytes,
    part_bytes,
    stage_bytes,
    stages,
    steady,
    weights_at_once,
)
from pipelines.weights.networks import GIGABYTE, NETWORKS

SHIPPED = load_manifest(Path(__file__).parents[2] / "weights.yaml")
PAGES = ("kandinsky-2-2", "kolors", "sd3-medium-pose", "stable-diffusion-v1-5", "sdxl")


def fit_on(gigabytes: float, manifest: Manifest = SHIPPED) -> dict[str, Fit]:
    return fits(manifest, int(gigabytes * GIGABYTE))


def entry(family: str, dtype: Dtype = "float16", **others: object) -> PipelineEntry:
    parts = {"kandinsky22": {"prior": {"hub": "a/b"}, "decoder": {"hub": "a/c"}}}
    values = {"family": family, "parts": parts.get(family, {"pipeline": {"hub": "a/b"}}), "dtype": dtype}
    return PipelineEntry.model_validate({**values, **others})


def test_a_12_gb_card_draws_sd15_sdxl_and_kandinsky() -> None:
    fit = fit_on(12)
    assert {name for name in PAGES if fit[name] is not Fit.never} == {
        "kandinsky-2-2",
        "sdxl",
        "stable-diffusion-v1-5",
    }


def test_a_24_gb_card_draws_all_five_pages() -> None:
    fit = fit_on(24)
    assert all(fit[name] is not Fit.never for name in PAGES)


@pytest.mark.parametrize("gigabytes", [48, 80, 141])
def test_all_are_resident_at_once_on_48_gb_and_more(gigabytes: float) -> None:
    assert set(fit_on(gigabytes).values()) == {Fit.resident}


def test_what_the_manifest_wants_resident_comes_first() -> None:
    assert fit_on(24)["stable-diffusion-v1-5"] is Fit.resident
    wished = SHIPPED.pipelines["sdxl"].model_copy(update={"resident": True})
    rest = SHIPPED.pipelines["stable-diffusion-v1-5"].model_copy(update={"resident": False})
    changed = {**SHIPPED.pipelines, "sdxl": wished, "stable-diffusion-v1-5": rest}
    alone = SHIPPED.model_copy(update={"pipelines": {name: changed[name] for name in PAGES}})
    assert fit_on(26.5, alone)["sdxl"] is Fit.resident


def test_a_wish_is_not_honoured_where_another_pipeline_could_not_be_drawn_any_more() -> None:
    wished = SHIPPED.pipelines["kolors"].model_copy(update={"resident": True})
    changed = SHIPPED.model_copy(update={"pipelines": {**SHIPPED.pipelines, "kolors": wished}})
    assert fit_on(20, changed)["kolors"] is Fit.on_demand


def test_more_memory_never_fits_less() -> None:
    order = [Fit.never, Fit.on_demand, Fit.resident]
    before = [0] * len(SHIPPED.openable())
    for gigabytes in range(1, 60):
        drawable = [int(fit is not Fit.never) for fit in fit_on(gigabytes).values()]
        assert all(now >= then for now, then in zip(drawable, before, strict=True))
        before = drawable
    assert all(fit in order for fit in fit_on(1).values())


@pytest.mark.parametrize("name", PAGES)
def test_a_card_that_holds_the_largest_stage_draws_and_one_of_a_byte_less_does_not(name: str) -> None:
    alone = SHIPPED.model_copy(update={"pipelines": {name: SHIPPED.pipelines[name]}})
    needed = needed_bytes(SHIPPED.pipelines[name])
    assert fits(alone, needed)[name] is not Fit.never
    assert fits(alone, needed - 1)[name] is Fit.never
    assert needed == CONTEXT_BYTES + max(stage_bytes(SHIPPED.pipelines[name]).values())


@pytest.mark.parametrize("gigabytes", [4, 8, 12, 16, 24, 48, 80])
def test_whatever_fits_a_card_fits_the_budget_of_its_weights(gigabytes: int) -> None:
    budget = budget_bytes(SHIPPED, gigabytes * GIGABYTE)
    assert 0 < budget < gigabytes * GIGABYTE - CONTEXT_BYTES
    for name, fit in fit_on(gigabytes).items():
        entry = SHIPPED.pipeline(name)
        assert fit is Fit.never or weights_at_once(entry) <= budget, name


def test_what_is_left_free_is_what_drawing_takes_and_no_share_of_the_card() -> None:
    free = {
        gigabytes: gigabytes * GIGABYTE - budget_bytes(SHIPPED, gigabytes * GIGABYTE)
        for gigabytes in (48, 80)
    }
    largest = activation_bytes(SHIPPED.pipelines["sd3-medium-pose"], "encode")
    assert free == {48: CONTEXT_BYTES + largest, 80: CONTEXT_BYTES + largest}


def test_every_stage_names_networks_of_its_family_and_each_network_is_needed_somewhere() -> None:
    for networks in NETWORKS.values():
        named = {name for needed in networks.stages.values() for name in needed}
        assert named == set(networks.numbers)
        assert networks.activations.keys() == networks.stages.keys()


def test_text_encoders_do_not_stay_and_all_that_takes_steps_does() -> None:
    assert steady(entry("kolors")) == ("unet", "vae")
    assert steady(entry("kandinsky22")) == ("prior.prior", "decoder.unet", "decoder.movq")
    assert steady(entry("mbart50", parts={"model": {"hub": "a/b"}})) == ("model",)


def test_full_precision_takes_twice_as_much_of_weights_and_activations() -> None:
    half, full = entry("sdxl"), entry("sdxl", "float32")
    assert part_bytes(full) == {name: 2 * size for name, size in part_bytes(half).items()}
    assert activation_bytes(full, "denoise") == pytest.approx(2 * activation_bytes(half, "denoise"), abs=2)


def test_activations_grow_with_pixels_and_samples() -> None:
    one = activation_bytes(entry("sd15"), "denoise")
    assert activation_bytes(entry("sd15"), "denoise", pixels=512 * 512) == one
    assert activation_bytes(entry("sd15"), "denoise", pixels=1024 * 1024) == pytest.approx(4 * one, abs=4)
    assert activation_bytes(entry("sd15"), "denoise", samples=3) == pytest.approx(3 * one, abs=3)


def test_optional_networks_are_counted_where_the_entry_has_them() -> None:
    plain = entry("sd15")
    checked = entry("sd15", parts={"pipeline": {"hub": "a/b"}, "safety_checker": {"hub": "a/c"}})
    assert part_bytes(checked).keys() - part_bytes(plain).keys() == {"safety_checker"}
    assert stages(plain)["finish"] == ("vae",)
    posed = SHIPPED.pipelines["sd3-medium-pose"]
    assert {name for name in part_bytes(posed) if name.startswith("annotator")} == {
        "annotator_body",
        "annotator_hand",
        "annotator_face",
    }


def test_what_the_manifest_says_of_a_network_counts() -> None:
    distilled = entry("sd15", memory={"unet": 0.65})
    assert part_bytes(distilled)["unet"] == pytest.approx(0.65e9)
    assert part_bytes(distilled)["vae"] == part_bytes(entry("sd15"))["vae"]
    assert part_bytes(entry("sd15", "float32", memory={"unet": 0.65}))["unet"] == pytest.approx(1.3e9)


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        ({"transformer": 1.0}, "sd15 has no network transformer; it has text_encoder, unet, vae"),
        ({"unet": 0.0}, "unet: 0.0 is no size in GB"),
        ({"unet": -1}, "unet: -1.0 is no size in GB"),
        ({"unet": float("nan")}, "unet: nan is no size in GB"),
    ],
)
def test_a_size_that_is_none_is_refused(memory: dict[str, float], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        entry("sd15", memory=memory)


def test_a_network_beside_the_manifest_has_the_size_of_its_files(tmp_path: Path) -> None:
    write_tensors(tmp_path / "small/unet/model.safetensors", {"a": (3, 5), "b": (7,)})
    (tmp_path / "weights.yaml").write_text(
        "pipelines: {small: {family: sd15, dtype: float32, parts: {pipeline: {folder: small}}}}"
    )
    sizes = part_bytes(load_manifest(tmp_path / "weights.yaml").pipelines["small"])
    assert sizes == {"text_encoder": 0, "unet": 4 * 22, "vae": 0}


def test_a_checkpoint_that_is_one_file_has_the_size_of_its_tensors(tmp_path: Path) -> None:
    tensors = {"model.diffusion_model.a": (10,), "first_stage_model.b": (20,), "cond_stage_model.c": (30,)}
    write_tensors(tmp_path / "own.safetensors", tensors)
    (tmp_path / "weights.yaml").write_text(
        "pipelines: {own: {family: sd15, parts: {pipeline: {file: own.safetensors, config: sd}}}}"
    )
    sizes = part_bytes(load_manifest(tmp_path / "weights.yaml").pipelines["own"])
    assert sizes == {"text_encoder": 60, "unet": 20, "vae": 40}


def write_tensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A file of zeros in float16."""
    header, end = dict[str, object](), 0
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def test_where_pipelines_come_as_a_whole_they_need_all_of_it_at_once() -> None:
    kandinsky = SHIPPED.pipelines["kandinsky-2-2"]
    whole = needed_bytes(kandinsky, by_part=False)
    assert whole - CONTEXT_BYTES > sum(part_bytes(kandinsky).values()) > needed_bytes(kandinsky)
    between = (needed_bytes(kandinsky) + whole) // 2
    assert fits(SHIPPED, between)["kandinsky-2-2"] is not Fit.never
    assert fits(SHIPPED, between, by_part=False)["kandinsky-2-2"] is Fit.never
