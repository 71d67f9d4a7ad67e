"""The container files name only what exists: settings, paths, build targets, services, packages."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path, PurePosixPath
from typing import Any

import httpx
import pytest
import yaml

from server.__main__ import main
from server.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()

INSTRUCTIONS = {"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"}
INSTRUCTIONS |= {"ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}


def stages() -> dict[str, list[tuple[str, str]]]:
    """Stage -> its instructions in order, as (word, rest), those of the stage that it builds on first."""
    text = "\n".join(line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#"))
    found: dict[str, list[tuple[str, str]]] = {}
    arguments: dict[str, str] = {}
    target = ""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "ARG":
            name, _, arguments[f"${{{name}}}"] = rest.partition("=")
        if word == "FROM":
            ground, target = rest.split(" AS ")
            ground = arguments.get(ground, ground)
            assert ground in found or ":" in ground, (
                f"{target} builds on {ground}, which is no stage before it"
            )
            found[target] = [*found.get(ground, [])]
        if word and target:
            found[target].append((word, rest))
    return found


STAGES = stages()


def rests(target: str, word: str) -> list[str]:
    return [rest for found, rest in STAGES[target] if found == word]


def environment(target: str) -> dict[str, str]:
    pairs = [pair.partition("=") for rest in rests(target, "ENV") for pair in shlex.split(rest)]
    return {name: value for name, _, value in pairs}


def is_ignored(name: str) -> bool:
    """Whether Docker keeps a path out of its images; the last line that matches counts."""
    ignored = False
    path = PurePosixPath(name)
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        nested = line.startswith("**/")
        for part in (path, *path.parents):
            if fnmatchcase(part.name if nested else part.as_posix(), pattern):
                ignored = not line.startswith("!")
    return ignored


def files_of(target: str) -> dict[str, Path]:
    """The files that an image copies: path below its working folder -> path in the repository."""
    found: dict[str, Path] = {}
    for rest in rests(target, "COPY"):
        *sources, goal = rest.split()
        for path in (path for source in sources for path in ROOT.glob(source)):
            ground = path if path.is_dir() else path.parent
            for file in path.rglob("*") if path.is_dir() else [path]:
                if file.is_file() and not is_ignored(file.relative_to(ROOT).as_posix()):
                    found[(PurePosixPath(goal) / file.relative_to(ground)).as_posix()] = file
    return found


def is_setting(variable: str) -> bool:
    return variable.removeprefix("UNDERSTUDY_").lower() in Settings.model_fields


@pytest.mark.parametrize("file", ["docker-compose.yml", "Dockerfile"])
def test_every_variable_of_ours_is_a_setting(file: str) -> None:
    named = set(re.findall(r"UNDERSTUDY_[A-Z0-9_]+", (ROOT / file).read_text()))
    assert {"UNDERSTUDY_DATA", "UNDERSTUDY_STORAGE_URL"} & named
    assert [variable for variable in sorted(named) if not is_setting(variable)] == []


def test_the_settings_of_each_image_and_service_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for target in STAGES:
        for service in (name for name in SERVICES if SERVICES[name].get("build", {}).get("target") == target):
            given = {**environment(target), **(SERVICES[service]["environment"] or {})}
            with monkeypatch.context() as patch:
                for name, value in given.items():
                    if name.startswith("UNDERSTUDY_") and value is not None:
                        patch.setenv(name, re.sub(r"\$\{\w+:-(\w*)\}", r"\1", value))
                settings = Settings()
            assert settings.host == "0.0.0.0", service
            assert settings.data == Path("/data"), service
            assert settings.weights == Path("/weights"), service
            if service == "server":
                assert (
                    settings.database_url
                    == "postgresql+asyncpg://understudy:localonly@database:5432/understudy"
                )
                assert settings.storage_endpoint == "http://store:8333"


def test_every_service_builds_a_target_that_exists_or_pulls_a_pinned_image() -> None:
    assert list(STAGES) == ["cuda", "slim", "base", "api", "gpu"], "the last one is built by default"
    for name, service in SERVICES.items():
        if "build" in service:
            assert service["build"]["target"] in ("api", "gpu"), name
            assert (ROOT / service["build"]["context"] / "Dockerfile").is_file(), name
        else:
            tag = service["image"].rpartition(":")[2]
            assert re.fullmatch(r"\d[\w.]*", tag), f"{name} is not pinned"


def test_every_local_path_exists() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith((".", "/")):
                assert (ROOT / source).exists(), f"{name} mounts {source}"
            else:
                assert source in COMPOSE["volumes"], f"{name} uses the volume {source}"
    for target in STAGES:
        for rest in rests(target, "COPY"):
            for source in rest.split()[:-1]:
                assert list(ROOT.glob(source)), f"{target} copies {source}"


def test_every_volume_is_used() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) == {name for name in used if not name.startswith(".")}


def test_what_both_images_have_in_common_is_said_once() -> None:
    assert [environment(target) for target in ("api", "gpu")] == [environment("base")] * 2
    said = [line.strip() for line in DOCKERFILE.splitlines() if "UNDERSTUDY_" in line and "=" in line]
    assert len(set(said)) == len(said)


def test_what_the_images_copy_is_not_ignored() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {source for target in STAGES for rest in rests(target, "COPY") for source in rest.split()[:-1]}
    assert {PurePosixPath(source).parts[0] for source in copied} == let_in


def test_no_image_has_what_trains_judges_or_shows_the_networks_of_the_demo() -> None:
    unneeded = ("pipelines/demo/training/", "pipelines/demo/judging/", "pipelines/demo/pictures/")
    for target in ("api", "gpu"):
        assert not [name for name in files_of(target) if name.startswith(unneeded)], target
        assert not [name for name in files_of(target) if name.endswith((".jpg", ".png", ".webp"))], target


def test_the_image_that_draws_has_all_that_the_demo_is_built_from() -> None:
    demo = ROOT / "pipelines" / "demo"
    modules = [*demo.glob("*.py"), *demo.glob("checkpoints/*.py"), *demo.glob("world/*.py")]
    needed = [*modules, demo / "weights.yaml", *demo.glob("weights/*.safetensors")]
    assert len(needed) > 40
    assert {path.relative_to(ROOT).as_posix() for path in needed} <= files_of("gpu").keys()


def test_the_image_that_does_not_draw_has_only_the_torch_free_part_of_pipelines() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = next(
        each
        for each in pyproject["tool"]["importlinter"]["contracts"]
        if each["name"] == "The vocabulary and weights are torch-free"
    )
    fenced = tuple(module.replace(".", "/") for module in contract["source_modules"])
    copied = [name for name in files_of("api") if name.startswith("pipelines/")]
    assert len(copied) > 15
    for name in copied:
        assert name.endswith(".py")
        assert name.startswith(fenced) or name.endswith("/__init__.py"), name


def test_depends_on_names_services_and_conditions_that_they_can_meet() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES, f"{name} depends on {other}"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{name} waits for the health of {other}"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert SERVICES[other]["restart"] == "no", f"{name} waits for the end of {other}"


def test_the_server_reaches_the_database_and_the_store_that_it_waits_for() -> None:
    server = SERVICES["server"]["environment"]
    assert "@database:5432/" in server["UNDERSTUDY_DATABASE_URL"]
    assert server["UNDERSTUDY_STORAGE_ENDPOINT"] == "http://store:8333"
    password = SERVICES["database"]["environment"]["POSTGRES_PASSWORD"]
    assert f"understudy:{password}@" in server["UNDERSTUDY_DATABASE_URL"]
    store = SERVICES["store"]["environment"]
    assert store["AWS_ACCESS_KEY_ID"] == server["UNDERSTUDY_STORAGE_ACCESS_KEY"]
    assert store["AWS_SECRET_ACCESS_KEY"] == server["UNDERSTUDY_STORAGE_SECRET_KEY"]
    bucket = server["UNDERSTUDY_STORAGE_URL"].removeprefix("s3://")
    assert f"s3.bucket.create -name {bucket}" in SERVICES["bucket"]["command"][0]


def test_only_the_demo_has_a_profile_and_it_needs_neither_gpu_nor_other_services() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"demo"}
    demo = SERVICES["demo"]
    assert demo["profiles"] == ["demo"]
    assert not {"deploy", "depends_on"} & set(demo)
    devices = SERVICES["server"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]


@pytest.mark.parametrize("command", [SERVICES["demo"]["command"], ["understudy", "serve"]])
def test_the_commands_of_the_containers_exist(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command[1:], "--help"]) == 0
    assert f"understudy {command[1]}" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["api", "gpu"])
def test_an_image_consists_of_instructions_and_runs_as_an_ordinary_user(target: str) -> None:
    words = [word for word, _ in STAGES[target]]
    assert set(words) <= INSTRUCTIONS
    assert rests(target, "USER") == ["understudy"]
    assert "root" not in STAGES[target][-1][1]
    assert "RUN" not in words[words.index("USER") :], "nothing is installed by the ordinary user"
    assert any("useradd --uid 10001" in rest for rest in rests(target, "RUN"))
    assert json.loads(rests(target, "VOLUME")[0]) == ["/data", "/weights"]
    assert json.loads(rests(target, "CMD")[0]) == ["understudy", "serve"]


@pytest.mark.parametrize("target", ["api", "gpu"])
def test_the_health_check_asks_livez_and_fails_when_nobody_answers(target: str) -> None:
    check = rests(target, "HEALTHCHECK")[0]
    program = json.loads(check[check.index("[") :])
    assert program[:2] == ["python", "-c"]
    assert "/livez" in program[2]
    with_port = {"UNDERSTUDY_PORT": "9"}
    assert (
        subprocess.run([sys.executable, "-c", program[2]], env=with_port, capture_output=True).returncode == 1
    )


def test_the_images_install_with_the_same_commands_as_a_checkout() -> None:
    installs = [rest for rest in rests("gpu", "RUN") if "pip" in rest]
    assert installs == ["pip install -e ."]
    assert f"{installs[0]} && understudy demo" in (ROOT / "README.md").read_text()
    for text in (DOCKERFILE, (ROOT / "docker-compose.yml").read_text()):
        assert not re.search(r"index-url|find-links|trusted-host", text)


def test_the_api_image_installs_everything_but_what_an_engine_imports() -> None:
    line = next(rest for rest in rests("api", "RUN") if "tomllib" in rest)
    program = shlex.split(line.rpartition(" > ")[0])
    answer = subprocess.run(
        [sys.executable, *program[1:]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    kept = answer.stdout.splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"]
    assert set(kept) < set(wanted)

    names = {distribution(need) for need in kept}
    assert {"fastapi", "uvicorn", "sqlalchemy", "obstore", "httpx", "pillow"} <= names
    assert {"huggingface-hub", "rich"} <= names, "the command line is in both images"
    assert {distribution(need) for need in wanted} - names >= ENGINE_DISTRIBUTIONS
    assert required_by(names).isdisjoint(ENGINE_DISTRIBUTIONS | {"numpy"})


def test_what_the_api_process_must_not_load_is_not_in_its_image() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = next(
        each
        for each in pyproject["tool"]["importlinter"]["contracts"]
        if each["name"].startswith("The API process never loads what draws")
    )
    assert set(contract["forbidden_modules"]) <= ENGINE_PACKAGES
    brought = packages_distributions()
    for package in contract["forbidden_modules"]:
        assert {distribution(name) for name in brought[package]} & ENGINE_DISTRIBUTIONS, package


def distribution(requirement: str) -> str:
    """The name of a distribution, from a requirement or as its author spells it."""
    return re.split(r"[^\w.-]", requirement)[0].replace("_", "-").lower()


def required_by(names: set[str]) -> set[str]:
    """All that comes with distributions, themselves included."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        with suppress(PackageNotFoundError):  # of another platform
            waiting += [distribution(need) for need in requires(name) or [] if "extra ==" not in need]
    return found


ENGINE_DISTRIBUTIONS = {
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "safetensors",
}
ENGINE_DISTRIBUTIONS |= {"sentencepiece", "controlnet-aux", "tomesd", "scipy", "opencv-python-headless"}
ENGINE_DISTRIBUTIONS |= {"scikit-image", "spandrel", "py3langid"}

ENGINE_PACKAGES = {"torch", "torchvision", "diffusers", "transformers", "accelerate", "peft", "safetensors"}
ENGINE_PACKAGES |= {"sentencepiece", "controlnet_aux", "tomesd", "numpy", "scipy", "cv2", "skimage"}
ENGINE_PACKAGES |= {"spandrel", "py3langid"}

HIDE_THEM = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ENGINE_PACKAGES!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def test_without_the_packages_of_an_engine_the_server_starts_and_says_that_it_cannot_draw(
    tmp_path: Path,
) -> None:
    image = tmp_path / "image"
    for name, path in files_of("api").items():
        (image / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, image / name)
    # Read by every Python process at its start, so also by the engine's.
    (tmp_path / "sitecustomize.py").write_text(HIDE_THEM)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = {"PYTHONPATH": f"{tmp_path}:{image}", "UNDERSTUDY_DATA": str(tmp_path / "data")}
    given |= {"UNDERSTUDY_DEVICES": "cpu", "UNDERSTUDY_PORT": str(port), "PATH": os.environ["PATH"]}
    given |= {"UNDERSTUDY_WEIGHTS": str(tmp_path / "weights")}
    command = [sys.executable, "-m", "server", "serve"]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, cwd=image, env=given, stderr=log) as server,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            assert answer_of(f"{url}/livez", server) == (200, {"status": "ok"})
            status, body = answer_of(f"{url}/readyz", server)
            assert status == 503
            assert body["reason"]
        finally:
            server.terminate()
            server.wait(30)


def answer_of(url: str, server: subprocess.Popen[bytes]) -> tuple[int, dict[str, str]]:
    """The answer, as soon as the server listens."""
    while server.poll() is None:
        try:
            answer = httpx.get(url, trust_env=False, timeout=30)
        except httpx.ConnectError:
            time.sleep(0.05)
            continue
        return answer.status_code, answer.json()
    raise AssertionError(f"the server ended with status {server.returncode}")
