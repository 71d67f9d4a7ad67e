"""weights.yaml: what it may say, and which files of which repositories follow from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.errors import UnknownPipeline
from pipelines.weights.entries import AdapterEntry, PipelineEntry, Source
from pipelines.weights.manifest import Manifest, load_manifest
from pipelines.weights.repositories import Repository, folder, repositories, select

ROOT = Path(__file__).parents[2]


def manifest(**pipelines: PipelineEntry) -> Manifest:
    return Manifest(pipelines=pipelines)


def entry(dtype: str = "float16", **parts: Source) -> PipelineEntry:
    return PipelineEntry.model_validate({"family": "sd15", "dtype": dtype, "parts": parts, "license": "L"})


def repository(*, half: bool = True, files: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> Repository:
    return Repository(hub="a/b", revision="main", half=half, files=files, skip=frozenset(skip), users=("sd",))


def test_the_shipped_manifest_names_its_pipelines_and_their_repositories() -> None:
    shipped = load_manifest(ROOT / "weights.yaml")
    assert {name: item.family for name, item in shipped.pipelines.items()} == {
        "kandinsky-2-2": "kandinsky22",
        "kolors": "kolors",
        "mbart-50": "mbart50",
        "sd3-medium-pose": "sd3_pose",
        "stable-diffusion-v1-5": "sd15",
        "sdxl": "sdxl",
    }
    assert {each.hub for each in repositories(shipped)} == {
        "kandinsky-community/kandinsky-2-2-prior",
        "kandinsky-community/kandinsky-2-2-decoder",
        "Kwai-Kolors/Kolors-diffusers",
        "stabilityai/stable-diffusion-3-medium-diffusers",
        "InstantX/SD3-Controlnet-Pose",
        "lllyasviel/Annotators",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "CompVis/stable-diffusion-safety-checker",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "madebyollin/sdxl-vae-fp16-fix",
        "stabilityai/sd-vae-ft-mse",
        "latent-consistency/lcm-lora-sdv1-5",
        "Comfy-Org/Real-ESRGAN_repackaged",
        "gmk123/GFPGAN",
        "opencv/face_detection_yunet",
        "facebook/mbart-large-50-many-to-one-mmt",
        "lllyasviel/control_v11p_sd15_canny",
        "lllyasviel/control_v11p_sd15_openpose",
        "lllyasviel/control_v11f1p_sd15_depth",
        "lllyasviel/control_v11p_sd15_softedge",
        "lllyasviel/control_v11p_sd15_scribble",
        "lllyasviel/control_v11p_sd15_lineart",
        "lllyasviel/control_v11p_sd15s2_lineart_anime",
        "lllyasviel/control_v11p_sd15_mlsd",
        "lllyasviel/control_v11p_sd15_normalbae",
        "lllyasviel/control_v11e_sd15_shuffle",
        "lllyasviel/control_v11p_sd15_inpaint",
        "lllyasviel/control_v11f1e_sd15_tile",
        "lllyasviel/control_v11p_sd15_seg",
        "monster-labs/control_v1p_sd15_qrcode_monster",
        "diffusers/controlnet-zoe-depth-sdxl-1.0",
    }
    assert [each.hub for each in repositories(shipped) if each.gated] == [
        "stabilityai/stable-diffusion-3-medium-diffusers"
    ]
    assert all(each.licenses for each in repositories(shipped))


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"hub": "a/b", "folder": "c"},
        {"hub": "no-owner"},
        {"hub": "../../etc/passwd"},
        {"hub": "a/.."},
        {"hub": "a/b", "revision": "../x"},
        {"folder": "x", "files": ["y"]},
        {"dummy": "sdxl", "unknown": 1},
    ],
)
def test_a_source_that_says_nothing_or_too_much_is_refused(source: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Source.model_validate(source)


def test_an_unknown_pipeline_is_named() -> None:
    with pytest.raises(UnknownPipeline, match="nothing is not a pipeline"):
        manifest().pipeline("nothing")


def test_an_entry_more_is_in_a_copy_and_needs_nothing_but_what_weights_yaml_would_say() -> None:
    plain = manifest(own=entry(pipeline=Source(hub="a/b")))
    more = plain.with_entry("pipelines", "mine", entry(pipeline=Source(hub="c/d")))
    lora = AdapterEntry(family="sd15", source=Source(hub="e/f"))
    more = more.with_entry("loras", "ink", lora)
    assert set(more.pipelines) == {"own", "mine"}
    assert more.loras == {"ink": lora}
    assert set(plain.pipelines) == {"own"}
    assert [each.hub for each in repositories(more, ["mine", "ink"])] == ["c/d", "e/f"]


def test_relative_sources_start_at_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "weights.yaml"
    path.write_text("pipelines: {a: {family: sd15, parts: {pipeline: {folder: here}}}}")
    assert load_manifest(path).path == path


def test_a_repository_that_several_pipelines_use_is_pulled_once_for_all() -> None:
    one, two = Source(hub="a/b", files=("x",)), Source(hub="a/b", files=("y", "x"))
    (merged,) = repositories(manifest(first=entry(part=one), second=entry(part=two)))
    assert merged.files == ("x", "y")
    assert merged.users == ("first", "second")
    assert merged.licenses == ("L",)


def test_a_repository_wanted_whole_by_one_is_pulled_whole() -> None:
    one, two = Source(hub="a/b", files=("x",)), Source(hub="a/b", skip=("vae",))
    (merged,) = repositories(manifest(first=entry(part=one), second=entry(part=two)))
    assert merged.files == ()
    assert merged.skip == frozenset()


def test_half_precision_is_taken_only_when_no_user_draws_in_full() -> None:
    source = Source(hub="a/b")
    halves = manifest(first=entry(part=source), second=entry("bfloat16", part=source))
    assert [each.half for each in repositories(halves)] == [True]
    mixed = manifest(first=entry(part=source), second=entry("float32", part=source))
    assert [each.half for each in repositories(mixed)] == [False]


def test_adapters_are_pulled_too_and_do_not_decide_the_precision() -> None:
    vae = AdapterEntry(source=Source(hub="a/vae"), family="sd15", license="MIT")
    described = Manifest(pipelines={"sd": entry(vae=Source(hub="a/vae"))}, vaes={"fine": vae})
    (merged,) = repositories(described, ["fine"])
    assert merged.users == ("sd", "fine")
    assert merged.half
    assert merged.licenses == ("L", "MIT")


def test_revisions_have_folders_of_their_own() -> None:
    assert folder("a/b", "main") == "a/b"
    assert folder("a/b", "refs/pr/1") == "a/b@refs--pr--1"


def test_a_single_network_takes_its_configuration_and_one_set_of_weights() -> None:
    listing = [
        "config.json",
        "README.md",
        "sdxl_vae.safetensors",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.bin",
        "images/example.json",
    ]
    assert select(listing, repository(), None) == {
        "config.json": "config.json",
        "diffusion_pytorch_model.safetensors": "diffusion_pytorch_model.safetensors",
    }


def test_skipped_components_and_strangers_stay_away() -> None:
    listing = ["model_index.json", "unet/config.json", "vae/config.json", "other/config.json"]
    chosen = select(listing, repository(skip=("vae",)), ["unet", "vae"])
    assert chosen.keys() == {"model_index.json", "unet/config.json"}


@pytest.mark.parametrize(
    ("half", "offered", "taken"),
    [
        (
            True,
            ["model.fp16.safetensors", "model.safetensors"],
            {"model.fp16.safetensors": "model.safetensors"},
        ),
        (True, ["model.safetensors", "pytorch_model.fp16.bin"], {"model.safetensors": "model.safetensors"}),
        (
            True,
            ["pytorch_model.fp16.bin", "pytorch_model.bin"],
            {"pytorch_model.fp16.bin": "pytorch_model.bin"},
        ),
        (False, ["model.fp16.safetensors", "model.safetensors"], {"model.safetensors": "model.safetensors"}),
        (False, ["pytorch_model.bin", "model.fp16.safetensors"], {"pytorch_model.bin": "pytorch_model.bin"}),
        (
            False,
            ["model.safetensors", "model-00001-of-00002.safetensors"],
            {"model.safetensors": "model.safetensors"},
        ),
    ],
)
def test_one_set_of_weights_is_taken(half: bool, offered: list[str], taken: dict[str, str]) -> None:
    assert select(offered, repository(half=half), None) == taken


def test_old_shard_names_with_the_precision_at_the_end_are_understood() -> None:
    listing = ["model-00001-of-00001.fp16.safetensors", "model.safetensors.index.fp16.json"]
    assert select(listing, repository(), None) == {
        "model-00001-of-00001.fp16.safetensors": "model-00001-of-00001.fp16.safetensors",
        "model.safetensors.index.fp16.json": "model.safetensors.index.json",
    }


def test_named_files_and_patterns_are_taken_as_they_are() -> None:
    listing = ["body.pth", "hand.pth", "face.bin", "x/body.pth"]
    assert select(listing, repository(files=("body.pth", "face.*")), None).keys() == {"body.pth", "face.bin"}
