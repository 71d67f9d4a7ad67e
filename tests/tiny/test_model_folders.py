"""Folders of AUTOMATIC1111 and ComfyUI: every file is named, recognised and recorded where it lies."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from pipelines.weights.kinds import LocalKind
from pipelines.weights.loaded import load_full_manifest, read_loaded
from pipelines.weights.manifest import Manifest
from server.loading import scan as scanning
from server.loading.additions import NotAdded, Wanted, add_local, add_remote, remove
from server.loading.local_files import Look, preprocessor_of
from server.loading.scan import NothingThere, Scan, look_through, record
from server.settings import Settings
from tests.integration.hub_server import HubServer, Repo
from tests.integration.loading import FileServer, Offered
from tests.tiny.original_layout import write_single_file


@pytest.fixture(scope="session")
def single_file(random_manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the original layout."""
    path = tmp_path_factory.mktemp("single") / "single.safetensors"
    write_single_file(StableDiffusionPipeline.from_pretrained(random_manifest.path.parent / "sd15"), path)
    return path


class Tried:
    """A folder of files, and scans of it into a weights folder."""

    def __init__(self, root: Path, weights: Path, manifest: Manifest) -> None:
        self.root, self.weights, self.manifest = root, weights, manifest
        self.small = manifest.path.parent

    def put(self, source: Path, *names: str) -> None:
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, path)

    def pickle(self, value: object, name: str, *, old: bool = False) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(value, path, _use_new_zipfile_serialization=not old)

    def scan(self, root: Path | None = None, **how: bool) -> Scan:
        result = look_through(root or self.root, Look(self.manifest, on_cpu=True), self.weights)
        record(result, self.manifest, self.weights, **how)
        return result

    def kinds(self, result: Scan) -> dict[str, str]:
        return {each.name: each.model.kind for each in result.found if each.model}

    def settings(self) -> Settings:
        return Settings(manifest=self.manifest.path, weights=self.weights, devices="cpu")

    @property
    def lora(self) -> Path:
        return self.small / "sd15_adapters/more_details.safetensors"


@pytest.fixture
def tried(tmp_path: Path, random_manifest: Manifest) -> Tried:
    (tmp_path / "ui").mkdir()
    return Tried(tmp_path / "ui", tmp_path / "weights", random_manifest)


A1111 = {
    "checkpoint": "models/Stable-diffusion/realistic.safetensors",
    "lora": "models/Lora/style.safetensors",
    "embedding": "embeddings/easynegative.safetensors",
    "vae": "models/VAE/vae-ft-mse.safetensors",
    "controlnet": "extensions/sd-webui-controlnet/models/control_v11p_sd15_canny.safetensors",
    "upscaler": "models/ESRGAN/4x-Sharp.safetensors",
    "face_restorer": "models/GFPGAN/faces.safetensors",
}
COMFYUI = {
    "checkpoint": "models/checkpoints/sub/realistic.safetensors",
    "lora": "models/loras/style.safetensors",
    "embedding": "models/embeddings/easynegative.safetensors",
    "vae": "models/vae/vae-ft-mse.safetensors",
    "controlnet": "models/controlnet/control_v11p_sd15_canny.safetensors",
    "upscaler": "models/upscale_models/4x-Sharp.safetensors",
    "face_restorer": "models/facerestore_models/faces.safetensors",
}
NAMES = {
    "realistic": "checkpoint",
    "style": "lora",
    "easynegative": "embedding",
    "vae-ft-mse": "vae",
    "control_v11p_sd15_canny": "controlnet",
    "4x-Sharp": "upscaler",
    "faces": "face_restorer",
}


def fill(tried: Tried, layout: dict[str, str], single_file: Path) -> None:
    small = tried.small
    tried.put(single_file, layout["checkpoint"])
    tried.put(tried.lora, layout["lora"])
    tried.put(small / "sd15_adapters/night_scene.safetensors", layout["embedding"])
    tried.put(small / "sd15/vae/diffusion_pytorch_model.safetensors", layout["vae"])
    tried.put(small / "controlnets/sd15_canny/diffusion_pytorch_model.safetensors", layout["controlnet"])
    tried.put(small / "upscaler.safetensors", layout["upscaler"])
    tried.put(small / "face_restorer.safetensors", layout["face_restorer"])


@pytest.mark.parametrize(
    "layout",
    [pytest.param(A1111, id="a1111"), pytest.param(COMFYUI, id="comfyui", marks=pytest.mark.slow)],
)
def test_all_kinds_are_found_in_the_folders_of_both_programs_and_used_in_place(
    layout: dict[str, str], tried: Tried, single_file: Path
) -> None:
    fill(tried, layout, single_file)
    result = tried.scan()
    assert tried.kinds(result) == NAMES
    manifest = load_full_manifest(tried.manifest.path, tried.weights)
    pipeline = manifest.pipelines["realistic"].parts["pipeline"]
    assert (pipeline.file, pipeline.config) == (tried.root / layout["checkpoint"], "sd15")
    assert manifest.loras["style"].source.file == tried.root / layout["lora"]
    assert manifest.controlnets["control_v11p_sd15_canny"].preprocessor == "canny"
    assert {"4x-Sharp", "faces"} < {*manifest.upscalers, *manifest.face_restorers}
    assert {path.name for path in tried.weights.iterdir()} == {"loaded.yaml", ".loaded"}


def test_what_cannot_be_drawn_with_is_named_with_its_reason(tried: Tried, single_file: Path) -> None:
    models = tried.root / "models/Stable-diffusion"
    models.mkdir(parents=True)
    (models / "cut.safetensors").write_bytes(single_file.read_bytes()[:-100])
    (models / "page.safetensors").write_text("<!doctype html><html>")
    (models / "empty.safetensors").write_bytes(b"")
    (models / "quantised.gguf").write_bytes(b"GGUF1234")
    tried.pickle({"state_dict": {"x.weight": torch.ones(3)}}, "models/Stable-diffusion/old.ckpt")
    (models / "gone.safetensors").symlink_to(tried.root / "nowhere")
    (models / "preview.png").write_bytes(b"")
    result = tried.scan()
    assert tried.kinds(result) == {}
    said = {each.candidate.path.name: each.problem for each in result.found}
    assert "cut off" in said["cut.safetensors"]
    assert "HTML" in said["page.safetensors"]
    assert "not a .safetensors" in said["empty.safetensors"]
    assert ".gguf" in said["quantised.gguf"]
    assert "pickle" in said["old.ckpt"]
    assert [path.name for path, _ in result.walked.problems] == ["gone.safetensors"]
    assert result.walked.others == 1
    assert read_loaded(tried.weights).entries == {}


class Runs:
    """What a pickle can do when it is opened carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_is_read_without_being_run(tried: Tried, old: bool) -> None:
    trap = tried.root / "trap"
    tried.pickle({"x": Runs(trap)}, "embeddings/evil.pt", old=old)
    result = tried.scan()
    assert "more than tensors" in result.found[0].problem
    assert not trap.exists()


@pytest.mark.parametrize("old", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_embeddings_and_upscalers_that_are_pickled_are_found(tried: Tried, old: bool) -> None:
    vectors = next(iter(load_file(tried.small / "sd15_adapters/night_scene.safetensors").values()))
    embedding = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": torch.atleast_2d(vectors)},
        "step": 1,
    }
    tried.pickle(embedding, "embeddings/bad-hands.pt", old=old)
    tried.pickle(
        {"params_ema": load_file(tried.small / "upscaler.safetensors")}, "models/ESRGAN/x2.pth", old=old
    )
    assert tried.kinds(tried.scan()) == {"bad-hands": "embedding", "x2": "upscaler"}


def test_namesakes_are_told_apart_by_their_folders_in_the_same_way_each_time(tried: Tried) -> None:
    tried.put(
        tried.lora,
        "Lora/detail.safetensors",
        "Lora/anime/detail.safetensors",
        "Lora/b/anime/detail.safetensors",
    )
    first = tried.scan(dry_run=True)
    second = tried.scan()
    names = {each.candidate.within: each.name for each in second.found}
    assert names == {
        "Lora/detail.safetensors": "detail",
        "Lora/anime/detail.safetensors": "anime-detail",
        "Lora/b/anime/detail.safetensors": "detail-2",
    }
    assert {each.candidate.within: each.name for each in first.found} == names


def test_a_name_of_weights_yaml_stays_its_own(tried: Tried) -> None:
    tried.put(tried.lora, "Lora/sdxl.safetensors", "Lora/more_details.safetensors")
    result = tried.scan()
    assert {each.name: each.taken for each in result.found} == {
        "Lora-more_details": "more_details",
        "Lora-sdxl": "sdxl",
    }


def test_callers_may_name_a_thing_as_its_file_is_called(tried: Tried) -> None:
    tried.put(tried.lora, "Lora/styles/Add Detail, v2.safetensors")
    tried.scan()
    manifest = load_full_manifest(tried.manifest.path, tried.weights)
    assert "Add Detail v2" in manifest.loras
    for name in ("Add Detail v2.safetensors", "add-detail-v2", "Lora/styles/Add Detail v2.safetensors"):
        assert manifest.id_of(name) == "Add Detail v2"


def test_another_scan_adds_what_came_forgets_what_is_gone_and_keeps_names(tried: Tried) -> None:
    tried.put(tried.lora, "Lora/a/one.safetensors", "Lora/b/one.safetensors", "Lora/two.safetensors")
    tried.scan()
    (tried.root / "Lora/a/one.safetensors").unlink()
    (tried.root / "Lora/two.safetensors").unlink()
    tried.put(tried.lora, "Lora/three.safetensors")
    result = tried.scan()
    assert set(result.gone) == {"one", "two"}
    assert {each.name: each.is_new for each in result.found} == {"b-one": False, "three": True}
    assert set(read_loaded(tried.weights).entries) == {"b-one", "three"}


def test_a_folder_whose_disk_is_not_mounted_is_not_forgotten_unasked(tried: Tried) -> None:
    tried.put(tried.lora, "Lora/one.safetensors")
    tried.scan()
    shutil.rmtree(tried.root / "Lora")
    with pytest.raises(NothingThere, match="mounted"):
        tried.scan()
    assert set(read_loaded(tried.weights).entries) == {"one"}
    tried.scan(forget_all=True)
    assert read_loaded(tried.weights).entries == {}


def test_links_are_followed_and_nothing_is_found_twice(tried: Tried, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    shutil.copy(tried.lora, disk / "far.safetensors")
    (tried.root / "Lora").symlink_to(disk)
    (disk / "loop").symlink_to(tried.root)
    (tried.root / "again.safetensors").symlink_to(disk / "far.safetensors")
    result = tried.scan()
    assert len(result.found) == 1
    assert len(result.walked.links) == 1
    found = result.found[0]
    assert (
        load_full_manifest(tried.manifest.path, tried.weights).loras[found.name].source.file
        == found.candidate.path
    )


@pytest.mark.parametrize("given", ["the file", "its folder"])
def test_the_folders_that_comfyui_is_told_of_are_scanned(tried: Tried, tmp_path: Path, given: str) -> None:
    other = tmp_path / "stable diffusion webui"
    (other / "models/Lora").mkdir(parents=True)
    (other / "models/LyCORIS").mkdir()
    shutil.copy(tried.lora, other / "models/Lora/one.safetensors")
    shutil.copy(tried.lora, other / "models/LyCORIS/two.safetensors")
    (other / "models/Lora/one.safetensors").rename(other / "models/Lora/uno.safetensors")
    settings = tried.root / "extra_model_paths.yaml"
    settings.write_text(
        f"a111:\n  base_path: {other}\n  is_default: true\n  loras: |\n    models/Lora\n    models/LyCORIS\n"
        "  vae: models/VAE\n"
    )
    result = tried.scan(settings if given == "the file" else None)
    assert set(tried.kinds(result)) == {"uno", "two"}
    assert [path.name for path, _ in result.walked.problems] == ["VAE"]


def test_folders_in_diffusers_layout_are_one_thing_each(tried: Tried) -> None:
    (tried.root / "diffusers").mkdir()
    (tried.root / "diffusers/mine").symlink_to(tried.small / "sd15")
    snapshot = tried.root / "hub/models--someone--nice-model/snapshots/0123456789abcdef"
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(tried.small / "sd15", snapshot)
    (tried.root / "control").symlink_to(tried.small / "controlnets/sd15_canny")
    result = tried.scan()
    assert tried.kinds(result) == {"mine": "checkpoint", "nice-model": "checkpoint", "control": "controlnet"}


def test_a_folder_that_is_no_checkpoint_of_ours_says_why(tried: Tried) -> None:
    flux = tried.root / "flux"
    flux.mkdir()
    (flux / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    assert "FluxPipeline" in tried.scan().found[0].problem


@pytest.mark.slow
def test_a_scan_of_a_thousand_files_is_quick(tried: Tried) -> None:
    for at in range(1000):
        tried.put(tried.lora, f"Lora/{at % 10}/lora-{at}.safetensors")
    began = time.process_time()
    result = tried.scan()
    took = time.process_time() - began
    assert len(result.usable) == 1000
    assert took < 60
    assert len(load_full_manifest(tried.manifest.path, tried.weights).loras) == 1000 + len(
        tried.manifest.loras
    )


@pytest.mark.parametrize(
    ("name", "preprocessor"),
    [
        ("control_v11p_sd15_canny.pth", "canny"),
        ("control_v11p_sd15s2_lineart_anime", "lineart_anime"),
        ("control_v11p_sd15_softedge", "hed"),
        ("control_v11p_sd15_normalbae", "normal"),
        ("control_v11f1p_sd15_depth", "depth"),
        ("controlnet-zoe-depth-sdxl-1.0", "zoe"),
        ("control_v11f1e_sd15_tile", None),
        ("diffusers_xl_canny_mid", "canny"),
        ("control_v11p_sd15_openpose", "openpose"),
        ("control_v1p_sd15_qrcode_monster", None),
    ],
)
def test_published_controlnets_bring_their_preprocessor(name: str, preprocessor: str | None) -> None:
    assert preprocessor_of(name) == preprocessor


def add(tried: Tried, file: str, **wanted: str) -> str:
    path = tried.root / file
    return add_local(Wanted(str(path), **wanted), path, tried.settings()).name  # pyright: ignore[reportArgumentType]


def test_one_file_is_added_where_it_lies_by_the_name_that_is_wanted(tried: Tried) -> None:
    tried.put(tried.lora, "one.safetensors")
    assert add(tried, "one.safetensors") == "one"
    assert add(tried, "one.safetensors", name="mine") == "mine", "the same file has one name"
    assert set(read_loaded(tried.weights).entries) == {"mine"}
    remove(["mine"], tried.settings())
    assert read_loaded(tried.weights).entries == {}
    assert (tried.root / "one.safetensors").exists()


@pytest.mark.parametrize("kind", ["checkpoint", "vae", "upscaler"])
def test_what_is_of_another_kind_than_said_is_not_added(tried: Tried, kind: LocalKind) -> None:
    tried.put(tried.lora, "one.safetensors")
    with pytest.raises(NotAdded, match=f"it is a lora, not a {kind}"):
        add(tried, "one.safetensors", kind=kind)
    assert read_loaded(tried.weights).entries == {}


@pytest.mark.parametrize("name", ["sdxl", "a,b", "a/b", " a", "<x>", ""])
def test_a_name_that_is_taken_or_none_is_refused(tried: Tried, name: str) -> None:
    tried.put(tried.lora, "one.safetensors")
    with pytest.raises(NotAdded, match=r"taken|cannot be a name"):
        add(tried, "one.safetensors", name=name)


def test_the_family_that_is_said_is_taken_where_nothing_tells_it(tried: Tried) -> None:
    tried.put(tried.small / "sd15/vae/diffusion_pytorch_model.safetensors", "some-vae.safetensors")
    add(tried, "some-vae.safetensors", family="sdxl")
    assert read_loaded(tried.weights).entries["some-vae"].entry["family"] == "sdxl"


def test_a_whole_scan_is_forgotten_by_its_folder(tried: Tried) -> None:
    tried.put(tried.lora, "Lora/one.safetensors", "Lora/two.safetensors")
    tried.scan()
    assert {each.name for each in remove([str(tried.root)], tried.settings())} == {"one", "two"}
    assert (tried.root / "Lora/one.safetensors").exists()


def test_names_that_are_not_there_or_stand_in_weights_yaml_are_not_removed(tried: Tried) -> None:
    for name, words in {"nothing": "not among", "sdxl": "remove it there"}.items():
        with pytest.raises(NotAdded, match=words):
            remove([name], tried.settings())


def test_without_what_draws_an_upscaler_is_left_out_with_words(
    tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "_image_networks", lambda paths: {})
    tried.put(tried.small / "upscaler.safetensors", "ESRGAN/x2.safetensors")
    assert "spandrel" in tried.scan().found[0].problem


def remote(tried: Tried, text: str, **wanted: str) -> str:
    wish = Wanted(text, **wanted)  # pyright: ignore[reportArgumentType]
    return asyncio.run(add_remote(wish, tried.settings(), lambda done, total: None)).name


@pytest.fixture
def hub(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    repo = Repo({"style.safetensors": tried.lora.read_bytes()}, gated=True, allowed={"hf_member"})
    with HubServer({"maker/style-lora": repo}, tokens={"hf_member"}) as serving:
        monkeypatch.setenv("HF_ENDPOINT", serving.url)
        monkeypatch.setenv("HF_TOKEN", "hf_member")
        yield serving


@pytest.mark.parametrize(
    ("text", "name", "source"),
    [
        ("maker/style-lora", "style-lora", {"hub": "maker/style-lora"}),
        pytest.param(
            "maker/style-lora@main", "style-lora", {"hub": "maker/style-lora"}, marks=pytest.mark.slow
        ),
        ("maker/style-lora/style.safetensors", "style", {"file": "loaded/style.safetensors"}),
    ],
)
def test_a_gated_repository_or_its_file_is_added_with_the_operators_token(
    text: str, name: str, source: dict[str, str], tried: Tried, hub: HubServer
) -> None:
    assert remote(tried, text) == name
    item = read_loaded(tried.weights).entries[name]
    assert source.items() <= item.entry["source"].items()
    assert not item.in_place
    remove([name], tried.settings())
    assert not list(tried.weights.rglob("style.safetensors"))


def test_what_is_fetched_and_is_of_another_kind_than_said_leaves_nothing(
    tried: Tried, hub: HubServer
) -> None:
    with pytest.raises(NotAdded, match="it is a lora, not a vae"):
        remote(tried, "maker/style-lora/style.safetensors", kind="vae")
    assert read_loaded(tried.weights).entries == {}
    assert not list(tried.weights.rglob("*.safetensors"))


def test_a_download_by_number_is_called_by_its_site_and_number(tried: Tried) -> None:
    with FileServer({"api/download/models/128713": Offered(tried.lora.read_bytes())}) as files:
        assert remote(tried, f"{files.url}/api/download/models/128713") == "127-128713"


@pytest.mark.parametrize(
    "text", ["https://civitai.com/models/4384", "nonsense", "a/b/c", "https://huggingface.co/docs"]
)
def test_an_address_from_which_no_file_follows_is_refused_in_words(tried: Tried, text: str) -> None:
    with pytest.raises(NotAdded, match=r"page|no file here|documentation"):
        remote(tried, text)
