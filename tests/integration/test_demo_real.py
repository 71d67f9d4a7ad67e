"""`understudy demo --real` against a hub that has the checkpoint's files, with few channels."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image

from pipelines.weights.hub import NoNetwork
from pipelines.weights.manifest import load_manifest
from pipelines.weights.repositories import Repository, repositories
from server.commands import demo_real
from tests import documented_bodies
from tests.distilled_sd15 import COMMIT, HUB, repository_files
from tests.integration.hub_server import HubServer, Repo
from tests.integration.test_demo import FOREIGN, free_port

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return repository_files(tmp_path_factory.mktemp("published"))


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[HubServer]:
    others = ("safety_checker/pytorch_model.bin", "feature_extractor/config.json", "tiny-sd.ckpt")
    not_needed = dict.fromkeys(others, b"x" * 1000)
    with HubServer({HUB: Repo({**files, **not_needed}, commit=COMMIT)}) as hub:
        yield hub


def real_demo(data: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    others = {
        name: value for name, value in os.environ.items() if not name.startswith(("UNDERSTUDY_", "HF_"))
    }
    own = {"UNDERSTUDY_DATA": str(data), "UNDERSTUDY_TORCH_THREADS": "1", "HF_ENDPOINT": endpoint}
    return subprocess.run(
        [sys.executable, "-m", "server", "demo", "--real", "--once", "--port", str(free_port()), *arguments],
        env={**others, **FOREIGN, **own},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def the_repository() -> Repository:
    (repository,) = repositories(load_manifest(demo_real.MANIFEST))
    return repository


def test_licence_and_size_of_what_is_pulled_are_shown(
    tmp_path: Path, hub: HubServer, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    text = demo_real.terms([the_repository()], tmp_path)
    # The index is fetched to know what is needed.
    others = {"README.md", ".gitattributes", "model_index.json"}
    size = sum(len(data) for name, data in files.items() if name not in others)
    assert text.startswith(
        f"segmind/tiny-sd, {size / 1e6:.1f} MB to download. Licence: CreativeML OpenRAIL-M."
    )
    assert f"{hub.url}/segmind/tiny-sd" in text


def test_without_a_network_the_sizes_are_not_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    with pytest.raises(NoNetwork):
        demo_real.terms([the_repository()], tmp_path)


CHANGED = {
    "text2img": {"num_inference_steps", "seed"},
    "img2img": {"num_inference_steps", "image"},
}


@pytest.mark.parametrize(
    ("page", "sent", "documented"),
    [
        ("text2img", demo_real.TEXT2IMG, documented_bodies.TEXT2IMG),
        ("img2img", demo_real.IMG2IMG, documented_bodies.SD15_IMG2IMG),
    ],
)
def test_the_samples_are_the_documentations_but_for_what_is_said(
    page: str, sent: Mapping[str, object], documented: Mapping[str, object]
) -> None:
    given = {name: value for name, value in documented.items() if value is not None and name != "key"}
    # What the page prints as its default anyway.
    for name in ("multi_lingual", "panorama", "self_attention", "upscale"):
        given.pop(name, None)
    same = {name: value for name, value in sent.items() if name not in CHANGED[page]}
    assert same == {name: value for name, value in given.items() if name not in CHANGED[page]}
    said = next(
        line for line in demo_real.CHANGED if line.startswith(("text2img", "sd1.5-img2img")) and page in line
    )
    assert f"{sent['num_inference_steps']} steps" in said


def test_the_sketch_is_a_picture_of_the_pages_size() -> None:
    with Image.open(io.BytesIO(demo_real.sketch())) as picture:
        assert picture.size == (512, 512)
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 50


def test_offline_is_one_line_of_words(tmp_path: Path) -> None:
    ended = real_demo(tmp_path, NOWHERE, "--yes")
    assert (ended.returncode, ended.stdout) == (3, "")
    (line,) = ended.stderr.splitlines()
    assert "does not answer" in line


def test_without_yes_and_without_anybody_to_ask_nothing_is_fetched(tmp_path: Path, hub: HubServer) -> None:
    ended = real_demo(tmp_path, hub.url)
    assert ended.returncode == 2
    assert "CreativeML OpenRAIL-M" in ended.stdout
    assert "--yes" in ended.stdout
    assert not [name for name in hub.fetched() if name != "model_index.json"]


@pytest.mark.slow
def test_it_is_pulled_once_and_draws_both_pages(tmp_path: Path, hub: HubServer) -> None:
    first = real_demo(tmp_path, hub.url, "--yes")
    assert first.returncode == 0, first.stdout + first.stderr
    pictures = tmp_path / "demo" / "pictures"
    sizes = {path.name: Image.open(path).size for path in pictures.iterdir()}
    assert sizes == {"real-text2img.png": (512, 512), "real-sd1.5-img2img.jpg": (512, 512)}
    assert all(line in first.stdout for line in demo_real.CHANGED)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert not [name for name in hub.fetched() if name.startswith(("safety_checker", "tiny-sd.ckpt"))]
    # What is here needs neither network nor agreement.
    second = real_demo(tmp_path, NOWHERE)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "to download" not in second.stdout
