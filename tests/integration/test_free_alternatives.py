"""`understudy weights pull` offers a pose detector under a free licence in place of OpenPose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from pipelines.control.open_pose import FILES
from pipelines.weights.alternatives import open_poses
from pipelines.weights.loaded import load_full_manifest
from pipelines.weights.lock import read_lock
from pipelines.weights.manifest import load_manifest
from pipelines.weights.repositories import repositories
from server.__main__ import main
from tests.integration.hub_server import HubServer, Repo

ROOT = Path(__file__).parents[2]

OPENPOSE = "OpenPose (non-commercial)"
MANIFEST = {
    "pipelines": {},
    "pose_detector": {
        "people": {"hub": "maker/people"},
        "joints": {"hub": "maker/joints"},
        "license": "Apache-2.0",
    },
    "controlnets": {
        "openpose": {
            "source": {"hub": "maker/control", "files": ["control.safetensors"]},
            "family": "sd15",
            "preprocessor": "openpose",
            "annotator": {"hub": "maker/annotators", "files": [*FILES], "license": OPENPOSE},
        },
        "softedge": {
            "source": {"hub": "maker/control", "files": ["control.safetensors"]},
            "family": "sd15",
            "preprocessor": "hed",
            "annotator": {"hub": "maker/annotators", "files": ["hed.pth"], "license": "Apache-2.0"},
        },
    },
}

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    torch.save({"weight": torch.ones(1)}, tmp_path / "pickled")
    pickle = (tmp_path / "pickled").read_bytes()
    network = {"config.json": b"{}", "preprocessor_config.json": b"{}", "model.safetensors": b"network"}
    repos = {
        "maker/people": Repo(network),
        "maker/joints": Repo(network),
        "maker/control": Repo({"control.safetensors": b"control"}),
        "maker/annotators": Repo(dict.fromkeys([*FILES, "hed.pth"], pickle)),
    }
    with HubServer(repos) as server:
        yield server


@pytest.fixture
def run(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run `understudy weights ...`: its exit status, and all that it printed as one line."""
    (tmp_path / "weights.yaml").write_text(yaml.safe_dump(MANIFEST))
    monkeypatch.setenv("UNDERSTUDY_MANIFEST", str(tmp_path / "weights.yaml"))
    monkeypatch.setenv("UNDERSTUDY_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)

    def run(*arguments: str) -> tuple[int, str]:
        try:
            status = main(["weights", *arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
        printed = capsys.readouterr()
        return status, " ".join((printed.out + printed.err).split())

    return run


def test_whoever_does_not_accept_is_offered_the_free_one(run: Run, hub: HubServer) -> None:
    status, told = run("pull")
    assert status == 2
    assert hub.fetched() == []
    for words in (OPENPOSE, "--free-alternatives", "maker/people", "maker/joints", "Apache-2.0"):
        assert words in told


def test_the_free_one_is_fetched_in_the_place_of_openpose(run: Run, hub: HubServer, tmp_path: Path) -> None:
    status, told = run("pull", "--accept-licenses", "--free-alternatives")
    assert status == 0, told
    assert OPENPOSE not in told
    assert {"hed.pth", "model.safetensors", "control.safetensors"} <= set(hub.fetched())
    assert set(FILES).isdisjoint(hub.fetched())
    # The choice holds for what comes after it.
    status, told = run("pull", "--accept-licenses")
    assert status == 0, told
    assert set(FILES).isdisjoint(hub.fetched())
    assert run("verify")[0] == 0
    manifest = load_full_manifest(tmp_path / "weights.yaml", tmp_path / "weights")
    assert list(open_poses(manifest)) == [("openpose", None)]


def test_whoever_accepts_gets_openpose_alone(run: Run, hub: HubServer, tmp_path: Path) -> None:
    assert run("pull", "--accept-licenses")[0] == 0
    assert set(FILES) <= set(hub.fetched())
    assert "model.safetensors" not in hub.fetched()
    assert "maker/people@main" not in read_lock(tmp_path / "weights").repositories


def test_openpose_that_was_here_before_is_not_used_beside_the_free_one(run: Run, tmp_path: Path) -> None:
    run("pull", "--accept-licenses")
    assert run("pull", "--accept-licenses", "--free-alternatives")[0] == 0
    folder = tmp_path / "weights" / "maker" / "annotators"
    assert [path.name for path in folder.iterdir()] == ["hed.pth"]


def test_a_licence_is_asked_for_when_more_of_a_repository_is_wanted(run: Run, tmp_path: Path) -> None:
    run("pull", "--accept-licenses", "--free-alternatives")
    manifest = {name: value for name, value in MANIFEST.items() if name != "pose_detector"}
    (tmp_path / "weights.yaml").write_text(yaml.safe_dump(manifest))
    status, told = run("pull")
    assert status == 2
    assert OPENPOSE in told


def test_where_no_openpose_is_named_the_free_one_is_fetched_unasked() -> None:
    manifest = load_manifest(ROOT / "weights.yaml")
    pose = manifest.pipelines["sd3-medium-pose"]
    without = {part: source for part, source in pose.parts.items() if part != "annotator"}
    manifest = manifest.model_copy(
        update={"pipelines": {"sd3": pose.model_copy(update={"parts": without})}, "controlnets": {}}
    )
    hubs = [repository.hub for repository in repositories(manifest)]
    assert "PekingU/rtdetr_r18vd" in hubs
    assert "usyd-community/vitpose-base-simple" in hubs
    assert "lllyasviel/Annotators" not in hubs


def test_the_shipped_manifest_says_the_licence_of_code_and_weights_of_both() -> None:
    manifest = load_manifest(ROOT / "weights.yaml")
    assert manifest.pose_detector is not None
    assert manifest.pose_detector.license == "Apache-2.0 (code and weights)"
    licences = {source.license for _, source in open_poses(manifest) if source}
    assert licences == {"OpenPose (code and weights, non-commercial)"}
    hubs = [repository.hub for repository in repositories(manifest)]
    assert "PekingU/rtdetr_r18vd" not in hubs, "not fetched beside OpenPose"
