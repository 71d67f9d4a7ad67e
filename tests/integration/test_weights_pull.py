"""`understudy weights` against a small hub that speaks the real one's protocol, through the real client."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.numpy import save
from safetensors.torch import load_file

from pipelines.checkpoints.checkpoint import Checkpoint, local
from pipelines.errors import CheckpointUnavailable
from pipelines.weights.downloads import one_pull_at_a_time
from pipelines.weights.entries import Source
from pipelines.weights.lock import LOCK_NAME, Lock, read_lock
from pipelines.weights.manifest import Manifest
from server.__main__ import main
from tests.integration.hub_server import HubServer, Repo

Run = Callable[..., int]

FULL = save({"weight": np.arange(12, dtype=np.float32)})
HALF = save({"weight": np.arange(12, dtype=np.float16)})
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "image_encoder": [None, None],
}


def sd_files() -> dict[str, bytes]:
    """The files of a repository as they really are: several formats and precisions, and a single file."""
    return {
        "model_index.json": json.dumps(INDEX).encode(),
        "README.md": b"# A model",
        ".gitattributes": b"*.bin lfs",
        "v1-5-pruned.safetensors": FULL,
        "unet/config.json": b"{}",
        "unet/diffusion_pytorch_model.safetensors": FULL,
        "unet/diffusion_pytorch_model.fp16.safetensors": HALF,
        "unet/diffusion_pytorch_model.non_ema.safetensors": FULL,
        "unet/diffusion_pytorch_model.bin": b"pickle",
        "text_encoder/config.json": b"{}",
        "text_encoder/model.safetensors": FULL,
        "text_encoder/flax_model.msgpack": b"flax",
        "tokenizer/merges.txt": b"a b",
        "tokenizer/vocab.json": b"{}",
        "safety_checker/config.json": b"{}",
        "safety_checker/model.safetensors": FULL,
        "image_encoder/config.json": b"{}",
        "unused/config.json": b"{}",
    }


def pickled(value: object, folder: Path) -> bytes:
    path = folder / "pickled"
    torch.save(value, path)
    return path.read_bytes()


class Harmful:
    """What a pickle can do when it is opened carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line with a manifest of the given pipelines: run(url, pipelines, "pull") -> exit status."""
    monkeypatch.setenv("UNDERSTUDY_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("UNDERSTUDY_MANIFEST", str(tmp_path / "weights.yaml"))
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def run(url: str, pipelines: dict[str, object], *arguments: str) -> int:
        monkeypatch.setenv("HF_ENDPOINT", url)
        (tmp_path / "weights.yaml").write_text(yaml.safe_dump({"pipelines": pipelines}, sort_keys=False))
        return main(["weights", *arguments])

    return run


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return tmp_path / "weights"


def pipeline(hub: str = "maker/model", dtype: str = "float16", **source: object) -> dict[str, object]:
    return {"family": "sd15", "dtype": dtype, "parts": {"pipeline": {"hub": hub, **source}}}


def on_disk(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer({"maker/model": Repo(sd_files())}) as server:
        yield server


def test_only_the_needed_files_are_fetched_in_half_precision_where_there_is_one(
    hub: HubServer, run: Run, weights: Path
) -> None:
    assert run(hub.url, {"sd": pipeline(skip=["safety_checker"])}, "pull") == 0
    assert sorted(hub.fetched()) == [
        "model_index.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
    ]
    folder = weights / "maker/model"
    assert "unet/diffusion_pytorch_model.safetensors" in on_disk(folder)
    assert (folder / "unet/diffusion_pytorch_model.safetensors").read_bytes() == HALF
    locked = read_lock(weights).repositories["maker/model@main"]
    assert locked.commit == "1" * 40
    assert locked.files.keys() == on_disk(folder)
    assert (
        locked.files["unet/diffusion_pytorch_model.safetensors"].origin
        == "unet/diffusion_pytorch_model.fp16.safetensors"
    )


def test_full_precision_takes_the_plain_files(hub: HubServer, run: Run, weights: Path) -> None:
    assert run(hub.url, {"sd": pipeline(dtype="float32")}, "pull") == 0
    assert (weights / "maker/model/unet/diffusion_pytorch_model.safetensors").read_bytes() == FULL
    assert "safety_checker/model.safetensors" in on_disk(weights / "maker/model")


def test_a_second_pull_fetches_nothing(hub: HubServer, run: Run) -> None:
    run(hub.url, {"sd": pipeline()}, "pull")
    hub.requests.clear()
    assert run(hub.url, {"sd": pipeline()}, "pull") == 0
    assert hub.fetched() == []


def test_files_that_lie_there_without_a_lock_are_checked_and_kept(
    hub: HubServer, run: Run, weights: Path
) -> None:
    run(hub.url, {"sd": pipeline()}, "pull")
    (weights / LOCK_NAME).unlink()
    (weights / "maker/model/text_encoder/model.safetensors").write_bytes(FULL[:-1] + b"x")
    hub.requests.clear()
    assert run(hub.url, {"sd": pipeline()}, "pull") == 0
    assert hub.fetched() == ["text_encoder/model.safetensors"]


def test_a_damaged_file_is_fetched_again(hub: HubServer, run: Run, weights: Path) -> None:
    run(hub.url, {"sd": pipeline()}, "pull")
    damaged = weights / "maker/model/text_encoder/model.safetensors"
    damaged.write_bytes(b"nonsense")
    assert run(hub.url, {"sd": pipeline()}, "pull") == 0
    assert damaged.read_bytes() == FULL


def test_the_commit_of_the_first_pull_is_kept_until_an_upgrade(
    hub: HubServer, run: Run, weights: Path
) -> None:
    run(hub.url, {"sd": pipeline()}, "pull")
    repo = hub.repos["maker/model"]
    repo.commit = "2" * 40
    del repo.files["tokenizer/merges.txt"]
    assert run(hub.url, {"sd": pipeline()}, "pull") == 5, "the hub of this test has forgotten the old commit"
    assert run(hub.url, {"sd": pipeline()}, "pull", "--upgrade") == 0
    assert read_lock(weights).repositories["maker/model@main"].commit == "2" * 40
    assert not (weights / "maker/model/tokenizer/merges.txt").exists()


def test_sharded_weights_come_with_the_index_of_their_precision(run: Run, weights: Path) -> None:
    files = {
        "config.json": b"{}",
        "model.safetensors.index.json": b'{"weight_map": {"full": "x"}}',
        "model.safetensors.index.fp16.json": b'{"weight_map": {"half": "x"}}',
        "model-00001-of-00002.safetensors": FULL,
        "model-00002-of-00002.safetensors": FULL,
        "model.fp16-00001-of-00001.safetensors": HALF,
    }
    with HubServer({"maker/model": Repo(files)}) as hub:
        assert run(hub.url, {"sd": pipeline()}, "pull") == 0
    folder = weights / "maker/model"
    assert on_disk(folder) == {
        "config.json",
        "model.safetensors.index.json",
        "model.fp16-00001-of-00001.safetensors",
    }
    assert b"half" in (folder / "model.safetensors.index.json").read_bytes()


def test_a_bin_becomes_safetensors_once(run: Run, weights: Path, tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    data = pickled({"a": tied, "b": tied, "c": torch.ones(2)}, tmp_path)
    files = {"config.json": b"{}", "pytorch_model.bin": data}
    with HubServer({"maker/model": Repo(files)}) as hub:
        assert run(hub.url, {"sd": pipeline()}, "pull") == 0
        folder = weights / "maker/model"
        assert on_disk(folder) == {"config.json", "model.safetensors"}
        assert torch.equal(load_file(folder / "model.safetensors")["b"], tied)
        assert on_disk(weights / ".parts") == set()
        hub.requests.clear()
        assert run(hub.url, {"sd": pipeline()}, "pull") == 0
        assert hub.fetched() == []
    assert run(hub.url, {"sd": pipeline()}, "verify") == 0


def test_the_index_of_converted_shards_names_the_converted_files(
    run: Run, weights: Path, tmp_path: Path
) -> None:
    shard = "pytorch_model-00001-of-00001.bin"
    files = {
        "config.json": b"{}",
        "pytorch_model.bin.index.json": json.dumps({"weight_map": {"a": shard}}).encode(),
        shard: pickled({"a": torch.ones(2)}, tmp_path),
    }
    with HubServer({"maker/model": Repo(files)}) as hub:
        assert run(hub.url, {"sd": pipeline()}, "pull") == 0
    folder = weights / "maker/model"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {"a": "model-00001-of-00001.safetensors"}
    assert (folder / "model-00001-of-00001.safetensors").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "body_pose_model.pth", "scannet.pt"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    run: Run, weights: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trap = tmp_path / "ran"
    with HubServer({"maker/model": Repo({name: pickled({"a": Harmful(trap)}, tmp_path)})}) as hub:
        assert run(hub.url, {"sd": pipeline(files=[name])}, "pull") == 6
    assert not trap.exists()
    assert on_disk(weights) <= {".pull"}
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("name", ["body.pth", "body.pt"])
def test_a_pickle_of_tensors_is_kept_as_it_is(run: Run, weights: Path, tmp_path: Path, name: str) -> None:
    data = pickled({"a": torch.ones(2)}, tmp_path)
    with HubServer({"maker/model": Repo({name: data, f"other-{name}": b"unwanted"})}) as hub:
        assert run(hub.url, {"sd": pipeline(files=[name])}, "pull") == 0
    assert (weights / "maker/model" / name).read_bytes() == data


def test_a_copy_that_is_not_the_original_is_not_fetched(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = pickled({"a": torch.ones(2_000)}, tmp_path)
    hashes = {"face.pth": hashlib.sha256(original).hexdigest()}
    wanted = {"sd": pipeline(files=["face.pth"], sha256=hashes)}
    with HubServer({"maker/model": Repo({"face.pth": pickled({"a": torch.zeros(2_000)}, tmp_path)})}) as hub:
        assert run(hub.url, wanted, "pull") == 1
        assert hub.fetched() == []
    assert "face.pth is not the file that weights.yaml names" in capsys.readouterr().err
    with HubServer({"maker/model": Repo({"face.pth": original})}) as hub:
        assert run(hub.url, wanted, "pull") == 0


def test_other_pickles_are_never_fetched(run: Run, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with HubServer({"maker/model": Repo({"model.ckpt": b"x"})}) as hub:
        assert run(hub.url, {"sd": pipeline(files=["*.ckpt"])}, "pull") == 1
        assert hub.fetched() == []
    assert "pickle" in capsys.readouterr().err


def test_a_broken_connection_is_taken_up_where_it_broke(run: Run, weights: Path) -> None:
    data = save({"weight": np.zeros(8_000_000, dtype=np.float32)})
    repo = Repo({"config.json": b"{}", "model.safetensors": data}, cut={"model.safetensors": 1})
    with HubServer({"maker/model": repo}) as hub:
        assert run(hub.url, {"sd": pipeline()}, "pull") == 0
        first, second = hub.ranges()
    assert first is None
    # The client writes in pieces of 10 MB; of the 16 MB that arrived it keeps the first piece.
    assert second == f"bytes={10 * 1024**2}-"
    assert (weights / "maker/model/model.safetensors").read_bytes() == data


def test_a_signed_address_that_expires_in_the_middle_is_asked_for_anew(run: Run, weights: Path) -> None:
    data = save({"weight": np.zeros(8_000_000, dtype=np.float32)})
    name = "model.safetensors"
    repo = Repo({"config.json": b"{}", name: data}, cut={name: 1}, expired={name: 1})
    with HubServer({"maker/model": repo}) as hub:
        assert run(hub.url, {"sd": pipeline()}, "pull") == 0
        assert len(set(hub.ranges())) == 2
        asked = [path for method, path, _, _ in hub.requests if method == "HEAD" and path.endswith(name)]
    assert len([path for path in asked if "/resolve/" in path]) == 2
    assert (weights / "maker/model" / name).read_bytes() == data


def killed_pull(hub: HubServer, repo: Repo, tmp_path: Path, weights: Path) -> int:
    """Pull in a process that is killed when most of the file was sent; how many bytes are left of it."""
    manifest = tmp_path / "weights.yaml"
    manifest.write_text(yaml.safe_dump({"pipelines": {"sd": pipeline()}}))
    code = "from pathlib import Path\n"
    code += "from pipelines.weights.downloads import *; from pipelines.weights.hub import *\n"
    code += (
        "from pipelines.weights.manifest import load_manifest; from pipelines.weights.repositories import *\n"
    )
    code += f"wanted = repositories(load_manifest(Path({str(manifest)!r})))\n"
    code += f"pull(Hub({hub.url!r}), wanted[0], Path({str(weights)!r}))"
    weights.mkdir()
    started: list[subprocess.Popen[bytes]] = []

    def kill() -> None:
        deadline = time.monotonic() + 30
        while not any(part.stat().st_size for part in (weights / ".parts").iterdir()):
            assert time.monotonic() < deadline, "nothing of what was sent reached the disk"
        started[0].kill()
        started[0].wait()

    repo.midway["model.safetensors"] = kill
    started.append(subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL))
    assert started[0].wait(60) == -signal.SIGKILL
    (partial,) = (weights / ".parts").iterdir()
    return partial.stat().st_size


def test_a_killed_pull_goes_on_where_it_was(run: Run, weights: Path, tmp_path: Path) -> None:
    data = save({"weight": np.zeros(8_000_000, dtype=np.float32)})
    repo = Repo({"model.safetensors": data})
    with HubServer({"maker/model": repo}) as hub:
        left = killed_pull(hub, repo, tmp_path, weights)
        assert 0 < left < len(data)
        hub.requests.clear()
        assert run(hub.url, {"sd": pipeline()}, "pull") == 0
        assert hub.ranges() == [f"bytes={left}-"]
    assert (weights / "maker/model/model.safetensors").read_bytes() == data
    assert on_disk(weights / ".parts") == set()


def test_a_server_that_cannot_resume_sends_everything_again(run: Run, weights: Path, tmp_path: Path) -> None:
    data = save({"weight": np.zeros(8_000_000, dtype=np.float32)})
    repo = Repo({"model.safetensors": data}, not_resumable={"model.safetensors"})
    with HubServer({"maker/model": repo}) as hub:
        killed_pull(hub, repo, tmp_path, weights)
        assert run(hub.url, {"sd": pipeline()}, "pull") == 0
    assert (weights / "maker/model/model.safetensors").read_bytes() == data


@pytest.mark.parametrize("name", ["text_encoder/model.safetensors", "unet/config.json"])
def test_wrong_bytes_are_thrown_away_and_named(
    hub: HubServer, run: Run, weights: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repos["maker/model"].altered = {name}
    assert run(hub.url, {"sd": pipeline()}, "pull") == 6
    assert name in capsys.readouterr().err
    assert not (weights / "maker/model" / name).exists()
    assert read_lock(weights) == Lock()
    hub.repos["maker/model"].altered = set()
    assert run(hub.url, {"sd": pipeline()}, "pull") == 0


def test_a_token_that_the_hub_does_not_know_is_named(
    hub: HubServer, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert run(hub.url, {"sd": pipeline()}, "pull") == 4
    assert "HF_TOKEN" in capsys.readouterr().err


@pytest.mark.parametrize("token", [None, "hf_stranger"])
def test_a_gated_repository_says_which_page_to_open_and_where_the_token_goes(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str | None
) -> None:
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    repo = Repo(sd_files(), gated=True, allowed={"hf_member"})
    with HubServer({"maker/model": repo}, tokens={"hf_member", "hf_stranger"}) as hub:
        assert run(hub.url, {"sd": pipeline()}, "pull") == 4
        refusal = capsys.readouterr().err
        assert f"Open {hub.url}/maker/model " in refusal
        assert "HF_TOKEN=<token>" in refusal
        assert hub.fetched() == []


def test_a_gated_repository_comes_with_the_token_of_a_member(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_member")
    repo = Repo(sd_files(), gated=True, allowed={"hf_member"})
    with HubServer({"maker/model": repo}, tokens={"hf_member"}) as hub:
        assert run(hub.url, {"sd": pipeline()}, "pull") == 0
        tokens = {path.split("/")[1]: token for _, path, _, token in hub.requests}
    assert tokens["api"] == tokens["maker"] == "Bearer hf_member"
    assert tokens["blobs"] is None, "the storage behind the hub is another host, which must not see the token"


@pytest.mark.parametrize(
    "source", [{"hub": "maker/nothing"}, {"revision": "v9"}, {"files": ["no.safetensors"]}]
)
def test_what_is_not_on_the_hub_is_named(
    hub: HubServer, run: Run, capsys: pytest.CaptureFixture[str], source: dict[str, object]
) -> None:
    assert run(hub.url, {"sd": pipeline(**source)}, "pull") == 5
    assert str(source.get("hub", "maker/model")) in capsys.readouterr().err


def test_no_network_is_said_in_words(run: Run, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    assert run(url, {"sd": pipeline()}, "pull") == 3
    said = capsys.readouterr().err
    assert "does not answer" in said
    assert "Traceback" not in said


def test_too_small_a_disk_is_said_before_anything_large_is_fetched(
    hub: HubServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repos["maker/model"].announced = {"text_encoder/model.safetensors": 10**18}
    assert run(hub.url, {"sd": pipeline()}, "pull") == 7
    assert "GB are free" in capsys.readouterr().err
    assert hub.fetched() == ["model_index.json"]


def test_licences_are_shown_and_must_be_accepted_once(
    hub: HubServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    pipelines: dict[str, object] = {"sd": {**pipeline(), "license": "Open RAIL"}}
    assert run(hub.url, pipelines, "pull") == 2
    shown = capsys.readouterr()
    assert "maker/model: Open RAIL" in shown.out
    assert "--accept-licenses" in shown.err
    assert hub.requests == []
    assert run(hub.url, pipelines, "pull", "--accept-licenses") == 0
    assert run(hub.url, pipelines, "pull") == 0


def test_one_repository_that_fails_does_not_keep_the_others_away(
    hub: HubServer, run: Run, weights: Path
) -> None:
    assert run(hub.url, {"a": pipeline("maker/nothing"), "b": pipeline()}, "pull") == 5
    assert "maker/model@main" in read_lock(weights).repositories


def test_only_the_named_pipelines_are_pulled(hub: HubServer, run: Run) -> None:
    pipelines: dict[str, object] = {"a": pipeline("maker/nothing"), "b": pipeline()}
    assert run(hub.url, pipelines, "pull", "b") == 0
    assert run(hub.url, pipelines, "pull", "c") == 2


def test_two_pulls_do_not_write_into_one_folder(
    hub: HubServer, run: Run, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with one_pull_at_a_time(weights):
        assert run(hub.url, {"sd": pipeline()}, "pull") == 1
    assert "another pull" in capsys.readouterr().err


def test_a_weights_folder_that_cannot_be_written_is_said_in_words(
    hub: HubServer, run: Run, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights.write_text("a file where the folder should be")
    assert run(hub.url, {"sd": pipeline()}, "pull") == 1
    assert "cannot be written" in capsys.readouterr().err


def test_verify_names_every_file_that_is_not_as_it_was_pulled(
    hub: HubServer, run: Run, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(hub.url, {"sd": pipeline()}, "pull")
    assert run(hub.url, {"sd": pipeline()}, "verify") == 0
    folder = weights / "maker/model"
    changed = folder / "text_encoder/model.safetensors"
    times = changed.stat()
    changed.write_bytes(FULL[:-1] + b"x")
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    (folder / "unet/config.json").unlink()
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"pickle")
    capsys.readouterr()
    assert run(hub.url, {"sd": pipeline()}, "verify") == 1
    said = capsys.readouterr().err
    assert "maker/model/text_encoder/model.safetensors: differs" in said
    assert "maker/model/unet/config.json: missing" in said
    assert "maker/model/unet/diffusion_pytorch_model.bin: not among" in said
    assert "merges.txt" not in said


def test_verify_says_what_was_never_pulled(
    hub: HubServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(hub.url, {"sd": pipeline()}, "verify") == 1
    assert "maker/model: not pulled" in capsys.readouterr().err


def test_list_shows_what_is_here(hub: HubServer, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    pipelines: dict[str, object] = {"sd": pipeline(), "other": pipeline("maker/nothing", gated=True)}
    run(hub.url, pipelines, "pull")
    capsys.readouterr()
    assert run(hub.url, pipelines, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2:4] for line in lines[1:3]] == [["pulled", "2.1"], ["0", "of"]]
    assert "(gated)" in lines[2]


def test_a_manifest_that_is_not_there_or_not_valid_is_said_in_words(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("http://127.0.0.1", {}, "list", "--manifest", str(tmp_path / "none.yaml")) == 2
    assert run("http://127.0.0.1", {"sd": {"family": "x"}}, "list") == 2
    assert "family" in capsys.readouterr().err


@pytest.fixture
def pulled(hub: HubServer, run: Run, weights: Path) -> Checkpoint:
    """A pipeline whose repository was pulled."""
    assert run(hub.url, {"sd": pipeline()}, "pull") == 0
    described = Manifest.model_validate({"pipelines": {"sd": pipeline()}})
    return Checkpoint("sd", described, described.pipelines["sd"], weights, torch.device("cpu"))


def damage(folder: Path, how: str) -> None:
    """Change a pulled folder; ``same size`` is the change that only a hash can see."""
    weights = folder / "text_encoder/model.safetensors"
    match how:
        case "missing":
            weights.unlink()
        case "same size":
            weights.write_bytes(FULL[:-1] + b"x")
        case "other size":
            weights.write_bytes(FULL + b"x")
        case "added":
            (folder / "text_encoder/pytorch_model.bin").write_bytes(b"pickle")


@pytest.mark.parametrize("how", ["missing", "same size", "other size", "added"])
def test_files_that_are_not_as_they_were_pulled_are_not_opened(
    pulled: Checkpoint, weights: Path, how: str
) -> None:
    assert pulled.path("pipeline") == weights / "maker/model"
    damage(weights / "maker/model", how)
    with pytest.raises(CheckpointUnavailable, match="weights of sd") as caught:
        pulled.path("pipeline")
    assert str(weights) not in str(caught.value)
    assert "maker/model/text_encoder" in str(caught.value.__cause__)


def test_a_copied_folder_with_new_times_is_opened_after_a_look_at_its_bytes(
    pulled: Checkpoint, weights: Path, run: Run
) -> None:
    for path in (weights / "maker/model").rglob("*.*"):
        os.utime(path, (1, 1))
    assert pulled.path("pipeline") == weights / "maker/model"
    assert run("http://127.0.0.1", {"sd": pipeline()}, "verify") == 0
    locked = read_lock(weights).repositories["maker/model@main"]
    assert {file.mtime_ns for file in locked.files.values()} == {10**9}


def test_what_was_never_pulled_is_not_opened(weights: Path) -> None:
    described = Manifest.model_validate({"pipelines": {"sd": pipeline()}})
    never = Checkpoint("sd", described, described.pipelines["sd"], weights, torch.device("cpu"))
    with pytest.raises(CheckpointUnavailable):
        never.path("pipeline")


def test_a_damaged_lock_is_said_in_words(
    pulled: Checkpoint, weights: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (weights / LOCK_NAME).write_text("{")
    with pytest.raises(CheckpointUnavailable):
        pulled.path("pipeline")
    for action in ("list", "pull", "verify"):
        assert run("http://127.0.0.1", {"sd": pipeline()}, action) == 1
        assert f"{LOCK_NAME} is damaged" in capsys.readouterr().err


def test_a_repository_of_which_one_file_is_named_is_that_file(run: Run, weights: Path) -> None:
    name = "pytorch_lora_weights.safetensors"
    with HubServer({"maker/model": Repo({name: FULL, "README.md": b""})}) as hub:
        assert run(hub.url, {"sd": pipeline(files=[name])}, "pull") == 0
    source = Source(hub="maker/model", files=(name,))
    assert local(Manifest(pipelines={}), source, weights) == weights / "maker/model" / name


def test_a_converted_file_is_found_under_the_name_it_has_now(run: Run, weights: Path, tmp_path: Path) -> None:
    data = pickled({"<cat>": torch.ones(8)}, tmp_path)
    with HubServer({"maker/model": Repo({"learned_embeds.bin": data})}) as hub:
        assert run(hub.url, {"sd": pipeline(files=["learned_embeds.bin"])}, "pull") == 0
    source = Source(hub="maker/model", files=("learned_embeds.bin",))
    found = local(Manifest(pipelines={}), source, weights)
    assert found.name == "learned_embeds.safetensors"


def test_a_pulled_pipeline_opens_with_the_weights_that_were_published(
    run: Run, weights: Path, demo_manifest: Manifest
) -> None:
    published = demo_manifest.path.parent / "sd15"
    files = {name: (published / name).read_bytes() for name in on_disk(published)}
    source = pipeline(dtype="float32")
    with HubServer({"maker/model": Repo(files)}) as hub:
        assert run(hub.url, {"sd": source}, "pull") == 0
    described = Manifest.model_validate({"pipelines": {"sd": source}})
    checkpoint = Checkpoint("sd", described, described.pipelines["sd"], weights, torch.device("cpu"))
    opened = checkpoint.pipeline(
        "pipeline",
        StableDiffusionPipeline,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    original = AutoencoderKL.from_pretrained(published, subfolder="vae")
    assert torch.equal(opened.vae.decoder.conv_in.weight, original.decoder.conv_in.weight)
    assert opened.tokenizer("a cat").input_ids[0] == opened.tokenizer.bos_token_id


def test_the_command_line_loads_neither_torch_nor_the_hub_client_until_it_needs_them() -> None:
    code = "import sys, server.commands.weights\n"
    code += "print([name for name in ('torch', 'huggingface_hub') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
