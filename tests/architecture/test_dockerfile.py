"""The Dockerfile: what it builds can be installed, and each image is what it says that it is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from server.commands.configuration import read_settings
from tests.core_only import NEVER_IN_THE_CORE, resolve
from tests.dockerfile import ROOT, TEXT, command, is_ignored, mounts, pairs, rests, stages

STAGES = stages()
TARGETS = ("api", "cpu", "gpu")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

INSTRUCTIONS = {
    "ARG",
    "CMD",
    "COPY",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "RUN",
    "USER",
    "WORKDIR",
}

every_target = pytest.mark.parametrize("target", TARGETS)


def test_the_stages_are_these_and_the_last_one_is_built_by_default() -> None:
    assert list(STAGES) == ["python", "requirements", "wheel", "core", *TARGETS]
    for target in TARGETS:
        assert f"--target {target} ." in TEXT or target == "gpu"


def test_all_stands_on_pythons_own_image_of_a_python_that_is_promised() -> None:
    (image,) = {rest for stage in STAGES.values() for rest in rests(stage, "FROM")}
    version = re.fullmatch(r"python:(3\.\d+)-slim", image)
    assert version
    assert f"Programming Language :: Python :: {version[1]}" in PROJECT["classifiers"]


def test_nothing_comes_from_an_archive_of_a_third_party() -> None:
    assert not re.search(r"add-apt-repository|ppa:|apt-key|curl|wget|git clone|ADD ", TEXT)
    assert re.findall(r"https?://[^/'\s]+", TEXT) == ["http://127.0.0.1:"]
    assert not re.search(r"find-links|trusted-host|extra-index-url", TEXT)


@every_target
def test_an_image_consists_of_known_instructions_and_has_no_volume(target: str) -> None:
    assert {word for word, _ in STAGES[target]} <= INSTRUCTIONS


@every_target
def test_an_image_runs_as_a_numeric_ordinary_user(target: str) -> None:
    users = rests(STAGES[target], "USER")
    assert len(users) == 1
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", users[0])
    words = [word for word, _ in STAGES[target]]
    assert "RUN" not in words[words.index("USER") :], "nothing is installed by the ordinary user"
    (made,) = (rest for rest in rests(STAGES[target], "RUN") if "useradd" in rest)
    user = users[0].partition(":")[0]
    assert f"--uid {user}" in made
    assert f"--owner {user} --group {user} /data /weights" in made


@every_target
def test_everything_is_installed_whole_and_compiled(target: str) -> None:
    installs = [
        each
        for rest in rests(STAGES[target], "RUN")
        for each in re.findall(r"pip install[^&]*", command(rest))
    ]
    assert len(installs) >= 2
    for install in installs:
        assert "--compile" in install
        assert not re.search(r"(^|\s)(-e|--editable)\b", install)
    assert installs[-1].split()[-1] == "/wheel/*.whl"
    assert "--no-deps" in installs[-1]


def test_no_stage_is_copied_into_an_image_and_every_mount_is_of_an_earlier_one() -> None:
    for number, (name, stage) in enumerate(STAGES.items()):
        earlier = list(STAGES)[:number]
        for mount in (each for rest in rests(stage, "RUN") for each in mounts(rest)):
            if mount["type"] == "cache":
                assert mount["target"] == "/root/.cache/pip"
                continue
            assert mount["type"] == "bind"
            assert mount["from"] in earlier, name
            words = STAGES[mount["from"]]
            made = [
                *rests(words, "WORKDIR"),
                *re.findall(r"--wheel-dir (\S+)", " ".join(rests(words, "RUN"))),
            ]
            assert mount["source"] in made
    assert "--from=" not in "".join(rest for stage in STAGES.values() for rest in rests(stage, "COPY"))


def test_what_is_copied_exists_and_is_let_in_and_nothing_else_is() -> None:
    copied = {
        source for stage in STAGES.values() for rest in rests(stage, "COPY") for source in rest.split()[:-1]
    }
    for source in copied:
        assert (ROOT / source).exists(), source
        assert not is_ignored(source), source
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    for kept_out in (".env", "secrets", "tests", "pipelines/demo/training/train.py", "server/x/__pycache__"):
        assert is_ignored(kept_out), kept_out


def test_the_wheel_is_built_of_all_that_the_package_needs() -> None:
    for path in (ROOT / "pipelines" / "demo").rglob("*.safetensors"):
        assert not is_ignored(path.relative_to(ROOT).as_posix())
    copied = [rest.split()[:-1] for rest in rests(STAGES["wheel"], "COPY")]
    assert {name for names in copied for name in names} == {
        "pyproject.toml",
        PROJECT["readme"],
        *PROJECT["license-files"],
        "server",
        "pipelines",
    }


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The lists of requirements that the build writes."""
    folder = tmp_path_factory.mktemp("requirements")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (program,) = rests(STAGES["requirements"], "RUN")
    subprocess.run(["sh", "-c", program.replace("python", sys.executable, 1)], cwd=folder, check=True)
    return {path.stem: path.read_text().splitlines() for path in folder.glob("*.txt")}


def test_the_lists_are_the_projects_own(lists: dict[str, list[str]]) -> None:
    engine = PROJECT["optional-dependencies"]["engine"]
    assert lists["core"] == PROJECT["dependencies"]
    assert lists["engine"] == engine
    assert {line.split("~=")[0] for line in lists["torch"]} >= {"torch", "torchvision"}
    assert set(lists["torch"]) <= set(engine)


def installed_from(target: str) -> list[str]:
    """The lists that an image installs, in order."""
    return re.findall(r"--requirement /requirements/(\w+)\.txt", " ".join(rests(STAGES[target], "RUN")))


def test_the_images_install_what_they_are_for() -> None:
    assert {target: installed_from(target) for target in TARGETS} == {
        "api": ["core"],
        "cpu": ["core", "torch", "engine"],
        "gpu": ["core", "engine"],
    }


@pytest.mark.parametrize("index", ["", "https://wheels.example/cpu"])
def test_only_torch_comes_from_the_index_that_is_given(index: str) -> None:
    (install,) = (rest for rest in rests(STAGES["cpu"], "RUN") if "torch.txt" in rest)
    assert "TORCH_INDEX=" in rests(STAGES["cpu"], "ARG"), "the registry's ordinary builds unless one is given"
    spelled = f"pip() {{ echo \"$@\"; }}; TORCH_INDEX='{index}'; {command(install)}"
    told = subprocess.run(["sh", "-c", spelled], capture_output=True, text=True, check=True).stdout
    torch, engine = told.splitlines()
    assert torch.endswith("/torch.txt")
    assert (f"--index-url {index}" in torch) == bool(index)
    assert "index-url" not in engine


@pytest.mark.slow
@every_target
def test_the_requirements_of_each_image_resolve(
    target: str, lists: dict[str, list[str]], tmp_path: Path
) -> None:
    (image,) = rests(STAGES[target], "FROM")
    version = image.removeprefix("python:").removesuffix("-slim")
    wanted = list(dict.fromkeys(line for name in installed_from(target) for line in lists[name]))
    resolved = resolve(wanted, version, tmp_path)
    assert {"fastapi", "obstore", "alembic"} <= resolved.keys()
    if target == "api":
        assert resolved.keys() & NEVER_IN_THE_CORE == set()
    else:
        assert {"torch", "diffusers", "controlnet-aux"} <= resolved.keys()


@every_target
def test_its_environment_is_made_of_settings(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = pairs(STAGES[target], "ENV")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = read_settings()
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)
    assert (settings.data, settings.weights) == (Path("/data"), Path("/weights"))
    assert settings.devices == ("cpu" if target == "cpu" else "auto")
    (work,) = rests(STAGES[target], "WORKDIR")
    assert PurePosixPath(environment["UNDERSTUDY_MANIFEST"]) == PurePosixPath(work) / "weights.yaml"
    assert ("NVIDIA_VISIBLE_DEVICES" in environment) == (target == "gpu")
    assert environment["HOME"] == "/data", "nothing else is writable where the rest is read-only"


@every_target
def test_it_says_what_it_is(target: str) -> None:
    labels = pairs(STAGES[target], "LABEL")
    prefix = "org.opencontainers.image."
    assert labels == {
        f"{prefix}title": PROJECT["name"],
        f"{prefix}description": PROJECT["description"],
        f"{prefix}licenses": PROJECT["license"],
        f"{prefix}version": PROJECT["version"],
    }


@every_target
def test_the_health_check_asks_livez_and_fails_when_nobody_answers(target: str) -> None:
    (check,) = rests(STAGES[target], "HEALTHCHECK")
    program = json.loads(check[check.index("[") :])
    assert program[:2] == ["python", "-c"]
    assert "/livez" in program[2]
    told = subprocess.run(
        [sys.executable, "-c", program[2]], env={"UNDERSTUDY_PORT": "9"}, capture_output=True
    )
    assert told.returncode == 1
    assert b"refused" in told.stderr
