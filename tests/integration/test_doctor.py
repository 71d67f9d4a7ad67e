"""`understudy doctor` against a hub, a store and a whole process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from server.__main__ import main
from server.commands.checks.services import storage_finding
from server.settings import Settings
from tests.integration.hub_server import HubServer, Repo

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
}


def repository(**given: object) -> Repo:
    files = {
        "model_index.json": json.dumps(INDEX).encode(),
        "unet/config.json": b"{}",
        "unet/diffusion_pytorch_model.safetensors": b"f" * 4_000_000,
        "unet/diffusion_pytorch_model.fp16.safetensors": b"h" * 2_000_000,
        "safety_checker/model.safetensors": b"s" * 1_000_000,
        "vae_onnx/model.safetensors": b"o" * 3_000_000,
    }
    return Repo(files, **given)  # type: ignore[arg-type]


def doctor(
    hub: HubServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    token: str = "",
) -> tuple[int, dict[str, object], list[dict[str, str]]]:
    """The exit status, the first pipeline and the findings, of a manifest with a gated and an open one."""
    entry = {
        "family": "sd15",
        "parts": {"pipeline": {"hub": "maker/model", "skip": ["safety_checker"]}},
        "license": "Maker's licence",
    }
    gated = {"family": "sd15", "parts": {"pipeline": {"hub": "maker/gated", "gated": True}}}
    manifest = {"pipelines": {"open": entry, "closed": gated}}
    (folder / "weights.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("UNDERSTUDY_DEVICES", "cpu")
    status = main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    return status, told["pipelines"][0], told["findings"]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    repos = {"maker/model": repository(), "maker/gated": repository(gated=True, allowed={"hf_accepted"})}
    with HubServer(repos, tokens={"hf_accepted", "hf_other"}) as server:
        yield server


def states(findings: list[dict[str, str]], name: str) -> list[tuple[str, str]]:
    return [(found["state"], found["words"]) for found in findings if found["name"].startswith(name)]


def test_what_is_missing_is_told_with_its_size_and_its_terms(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, pipeline, findings = doctor(hub, tmp_path, monkeypatch, capsys)
    assert status == 1, "nothing can be drawn"
    assert pipeline["download"] == 2_000_000 + len(json.dumps(INDEX)) + 2
    assert pipeline["licenses"] == ["Maker's licence"]
    assert states(findings, "hub") == [("ok", f"{hub.url} answers")]
    assert states(findings, "licences") == [("warning", "not accepted yet: Maker's licence")]
    assert states(findings, "token for maker/gated") == [("warning", "gated, and HF_TOKEN is not set")]
    assert states(findings, "clock")[0][0] == "ok"
    assert not (tmp_path / "weights").exists()
    assert not hub.fetched() or set(hub.fetched()) == {"model_index.json"}


@pytest.mark.parametrize(
    ("token", "state", "words"),
    [
        ("hf_accepted", "ok", "HF_TOKEN opens what is gated: maker/gated"),
        ("hf_other", "warning", "has not accepted the terms"),
        ("hf_forged", "warning", "the hub does not accept HF_TOKEN"),
    ],
)
def test_a_token_is_tried_on_what_is_gated(
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    token: str,
    state: str,
    words: str,
) -> None:
    _, _, findings = doctor(hub, tmp_path, monkeypatch, capsys, token)
    ((found, said),) = states(findings, "token")
    assert (found, words in said) == (state, True)
    assert token not in json.dumps(findings)


def test_what_was_pulled_is_here_and_what_was_changed_is_damaged(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor(hub, tmp_path, monkeypatch, capsys)
    assert main(["weights", "pull", "open", "--accept-licenses"]) == 0
    capsys.readouterr()
    status, pipeline, findings = doctor(hub, tmp_path, monkeypatch, capsys)
    assert (status, pipeline["state"], pipeline["download"]) == (0, "here", None)
    assert states(findings, "licences") == []
    (tmp_path / "weights/maker/model/unet/diffusion_pytorch_model.safetensors").write_bytes(b"cut")
    status, pipeline, findings = doctor(hub, tmp_path, monkeypatch, capsys)
    assert (status, pipeline["state"]) == (1, "damaged")
    assert "differs from the file that was pulled" in states(findings, "weights")[1][1]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def in_bucket(endpoint: str, bucket: str) -> Settings:
    return Settings(
        storage_url=f"s3://{bucket}/outputs",
        storage_endpoint=endpoint,
        storage_access_key=SecretStr("someone"),
        storage_secret_key=SecretStr("secret"),
    )


def test_an_object_goes_to_the_bucket_and_back_and_leaves_nothing(s3: str) -> None:
    keys = {"aws_access_key_id": "someone", "aws_secret_access_key": "secret"}
    client = boto3.client("s3", endpoint_url=s3, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="pictures")
    found = storage_finding(in_bucket(s3, "pictures"))
    assert (found.state, "written, read and removed" in found.words) == ("ok", True), found
    assert client.list_objects_v2(Bucket="pictures")["KeyCount"] == 0
    missing = storage_finding(in_bucket(s3, "others"))
    assert (missing.state, "no such bucket" in missing.words) == ("problem", True), missing


def test_a_store_that_cannot_be_used_is_a_problem_in_words(tmp_path: Path) -> None:
    nobody = storage_finding(in_bucket("http://127.0.0.1:9", "pictures"))
    assert (nobody.state, "does not answer" in nobody.words) == ("problem", True), nobody
    unknown = storage_finding(in_bucket("http://nowhere.invalid", "pictures"))
    assert "nowhere.invalid has no address" in unknown.words
    (tmp_path / "outputs").write_text("")
    blocked = storage_finding(Settings(data=tmp_path))
    assert blocked.state == "problem"
    (tmp_path / "outputs").unlink()
    assert storage_finding(Settings(data=tmp_path)).state == "ok"


def test_a_silent_network_is_not_waited_for_longer_than_people_wait(tmp_path: Path) -> None:
    """Everything that is asked over the network accepts connections and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        (tmp_path / "weights.yaml").write_text(
            yaml.safe_dump({"pipelines": {"sd": {"family": "sd15", "parts": {"pipeline": {"hub": "o/n"}}}}})
        )
        given = {
            "HF_ENDPOINT": f"http://{address}",
            "UNDERSTUDY_DEVICES": "cpu",
            "UNDERSTUDY_DATABASE_URL": f"postgresql://u:hidden@{address}/x",
            "UNDERSTUDY_STORAGE_URL": "s3://pictures",
            "UNDERSTUDY_STORAGE_ENDPOINT": f"http://{address}",
            "UNDERSTUDY_STORAGE_ACCESS_KEY": "someone",
            "UNDERSTUDY_STORAGE_SECRET_KEY": "hidden",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        begun = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", "server", "doctor", "--json"],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if not name.startswith("UNDERSTUDY_")}
            | given,
            capture_output=True,
            text=True,
            timeout=60,
        )
        took = time.monotonic() - begun
    assert (ended.returncode, ended.stderr) == (1, "")
    states = {found["name"]: found["state"] for found in json.loads(ended.stdout)["findings"]}
    assert (states["database"], states["store"], states["hub"]) == ("problem", "problem", "warning")
    assert "hidden" not in ended.stdout
    assert took < 15
