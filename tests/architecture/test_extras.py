"""What is installed with which extra: the core draws nothing, brings no torch, and says so where asked."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import httpx
import pytest
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from pipelines.weights.installed import HOW_TO_INSTALL, engine_missing
from tests.core_only import NEVER_IN_THE_CORE, core_only_python, declared, required_by, resolve
from tests.integration.hub_server import HubServer, Repo
from tests.running_server import eventually

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PYTHONS = ("3.11", "3.12", "3.13")


def names(extra: str = "") -> set[str]:
    return {each.name.lower() for each in declared(extra)}


def test_the_core_brings_nothing_that_draws() -> None:
    brought = required_by(declared())
    assert {"fastapi", "uvicorn", "sqlalchemy", "obstore", "huggingface-hub", "uvloop"} <= brought
    assert brought & NEVER_IN_THE_CORE == set()
    assert [name for name in brought if name.startswith(("nvidia-", "cuda-"))] == []


def test_the_probe_would_notice() -> None:
    assert required_by(declared("engine")) >= NEVER_IN_THE_CORE - {"onnxruntime"}


def test_the_extras_are_these_and_dev_has_what_draws() -> None:
    assert list(EXTRAS) == ["engine", "quantize", "otel", "ray", "dev"]
    assert {f"{PROJECT['name']}[engine]", f"{PROJECT['name']}[quantize]"} <= {*EXTRAS["dev"]}
    assert "controlnet-aux" in names("engine")
    assert names("engine").isdisjoint(names()), "said once"
    assert names("engine").isdisjoint(names("dev") - {PROJECT["name"]})


def test_the_sentence_names_the_package_and_the_extra() -> None:
    assert f"pip install '{PROJECT['name']}[engine]'" == HOW_TO_INSTALL
    assert engine_missing() is None


def test_every_python_that_is_promised_is_said_in_every_place() -> None:
    range_ = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}" in range_] == list(PYTHONS)
    prefix = "Programming Language :: Python :: "
    listed = [line.removeprefix(prefix) for line in PROJECT["classifiers"] if line.startswith(prefix)]
    assert listed == ["3", *PYTHONS]
    for document in ("README.md", ".github/CONTRIBUTING.md"):
        assert f"Python {PYTHONS[0]} to {PYTHONS[-1]}" in (ROOT / document).read_text(), document


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return core_only_python(tmp_path_factory.mktemp("core"))


def environment(folder: Path, **more: str) -> dict[str, str]:
    given = {"PATH": os.environ["PATH"], "UNDERSTUDY_DATA": str(folder / "data"), "UNDERSTUDY_DEVICES": "cpu"}
    return given | {"UNDERSTUDY_WEIGHTS": str(folder / "weights")} | more


def run(bare: Path, folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [str(bare), "-m", "server", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(folder, **more), capture_output=True, text=True, timeout=60
    )


def test_what_the_core_may_not_import_is_nowhere_in_it(bare: Path) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (each for each in contracts if each["name"].startswith("The API process never loads"))
    forbidden = contract["forbidden_modules"]
    brought = packages_distributions()
    assert {canonicalize_name(brought[module][0]) for module in forbidden} == names("engine") - {
        "protobuf"  # read by sentencepiece, never by us
    } | {"numpy"}
    probe = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    told = subprocess.run([str(bare), "-c", probe, *forbidden], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_the_command_line_works_without_an_engine(bare: Path, tmp_path: Path) -> None:
    helped = run(bare, tmp_path, "--help")
    assert helped.returncode == 0
    assert "serve" in helped.stdout
    made = run(bare, tmp_path, "keys", "create", "--account", "me", "--credits", "5")
    assert made.returncode == 0, made.stderr
    listed = run(bare, tmp_path, "weights", "list", UNDERSTUDY_MANIFEST=str(ROOT / "weights.yaml"))
    assert "kolors" in listed.stdout, listed.stderr


def test_the_demo_says_in_one_line_what_to_install(bare: Path, tmp_path: Path) -> None:
    ended = run(bare, tmp_path, "demo", "--once")
    assert ended.returncode == 2
    (line,) = (ended.stdout + ended.stderr).strip().splitlines()
    assert HOW_TO_INSTALL in line


def test_a_server_without_an_engine_runs_and_says_what_to_install(bare: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = environment(tmp_path, UNDERSTUDY_PORT=str(port), UNDERSTUDY_MANIFEST=str(ROOT / "weights.yaml"))
    log = tmp_path / "log"
    with (
        log.open("wb") as sink,
        subprocess.Popen(
            [str(bare), "-m", "server", "serve"], cwd=tmp_path, env=given, stderr=sink
        ) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client,
    ):

        def answer(path: str) -> httpx.Response | None:
            assert server.poll() is None, log.read_text()
            try:
                return client.get(path)
            except httpx.ConnectError:
                return None

        try:
            assert eventually(lambda: answer("/livez")).json() == {"status": "ok"}
            ready = client.get("/readyz")
            assert ready.status_code == 503
            assert HOW_TO_INSTALL in ready.json()["reason"]
            models = client.post("/api/v1/enterprise/system_details", json={"key": "nobody"})
            assert models.status_code == 200, "accounts are asked, although nothing can be drawn"
        finally:
            server.terminate()
            server.wait(30)
    assert log.read_text().count(HOW_TO_INSTALL) == 1, "no engine is started again and again"


@pytest.mark.parametrize("name", ["body_pose_model.pth", "pytorch_model.bin"])
def test_a_pickle_is_not_fetched_where_nothing_can_look_into_it(
    bare: Path, tmp_path: Path, name: str
) -> None:
    source = {"hub": "somebody/pickles", "files": [name]}
    manifest = {"pipelines": {}, "vaes": {"pickled": {"source": source, "family": "sd15"}}}
    (tmp_path / "weights.yaml").write_text(json.dumps(manifest))
    with HubServer({"somebody/pickles": Repo({name: b"pickle"})}) as hub:
        ended = run(bare, tmp_path, "weights", "pull", "--accept-licenses", HF_ENDPOINT=hub.url)
        assert hub.fetched() == []
    assert ended.returncode == 1
    assert f"{name} is a pickle" in ended.stderr
    assert HOW_TO_INSTALL in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_every_extra_can_be_installed_beside_every_other(version: str, tmp_path: Path) -> None:
    wanted = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
    resolved = resolve([line for line in wanted if not line.startswith(PROJECT["name"])], version, tmp_path)
    assert {"torch", "ray", "opentelemetry-sdk", "pytest"} <= resolved.keys()


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_the_core_alone_resolves_without_torch(version: str, tmp_path: Path) -> None:
    resolved = resolve(PROJECT["dependencies"], version, tmp_path)
    assert {"fastapi", "sqlalchemy"} <= resolved.keys()
    assert resolved.keys() & NEVER_IN_THE_CORE == set()
