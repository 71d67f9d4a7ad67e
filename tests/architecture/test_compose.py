"""The compose files: they name only what exists, and run every container as narrowly as it can be run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.__main__ import main
from server.commands.configuration import read_settings
from server.settings import SECRETS, Settings
from tests.dockerfile import ROOT, pairs, rests, stages

TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
SECRET_TEXT = (ROOT / "docker-compose.secrets.yml").read_text()
SECRET_FILES: dict[str, Any] = yaml.safe_load(SECRET_TEXT)
STAGES = stages()

SERVICE_WORDS = {"build", "cap_add", "cap_drop", "command", "depends_on", "deploy", "entrypoint", "env_file"}
SERVICE_WORDS |= {"environment", "healthcheck", "image", "init", "logging", "ports", "profiles", "read_only"}
SERVICE_WORDS |= {"restart", "secrets", "security_opt", "stop_grace_period", "tmpfs", "volumes"}
"""The words of the compose specification that these files use."""

every_service = pytest.mark.parametrize("name", SERVICES)


def with_defaults(text: str) -> str:
    """A value in which each ``${NAME:-default}`` is its default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def environment(name: str) -> dict[str, str]:
    """The environment of a container when nothing is said: its image's, and the service's over it."""
    service = SERVICES[name]
    image = pairs(STAGES[service["build"]["target"]], "ENV") if "build" in service else {}
    return image | {key: with_defaults(value) for key, value in service.get("environment", {}).items()}


def test_the_words_are_compose_s_own() -> None:
    for file in (COMPOSE, SECRET_FILES):
        top = {word for word in file if not word.startswith("x-")}
        assert top <= {"name", "services", "volumes", "secrets"}
        for name, service in file["services"].items():
            assert set(service) <= SERVICE_WORDS, name


@pytest.mark.parametrize("text", [TEXT, SECRET_TEXT])
def test_every_variable_of_ours_is_a_setting(text: str) -> None:
    known = {f"UNDERSTUDY_{name.upper()}" for name in Settings.model_fields}
    known |= {f"UNDERSTUDY_{name.upper()}_FILE" for name in SECRETS}
    named = set(re.findall(r"UNDERSTUDY_[A-Z0-9_]+", text))
    assert len(named) > 3
    assert named <= known


def test_every_variable_that_is_read_has_a_default_and_is_explained_at_the_top() -> None:
    used = set(re.findall(r"\$\{(\w+)", TEXT))
    assert used == set(re.findall(r"\$\{(\w+):-", TEXT)), "without a default compose warns, or stops"
    head = TEXT[: TEXT.index("name: understudy")]
    assert {name for name in used if not re.search(rf"\b{name}\b", head)} == set()
    for text in (SECRET_TEXT, TEXT.replace("${", "")):
        assert not re.search(r"(?<!\$)\$\{?[A-Z]", "\n".join(ln for ln in text.splitlines() if ln[:1] != "#"))


@pytest.mark.parametrize("name", ["server", "demo"])
def test_what_a_container_is_told_is_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in environment(name).items():
        monkeypatch.setenv(variable, value)
    settings = read_settings()
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)
    assert (settings.data, settings.weights) == (Path("/data"), Path("/weights"))
    if name == "server":
        assert settings.database_url == "postgresql+asyncpg://understudy:localonly@database:5432/understudy"
        assert settings.storage_endpoint == "http://store:8333"
        assert settings.storage_url == "s3://understudy"
    else:
        assert settings.devices == "cpu"
        assert settings.database_url is None


def test_every_setting_reaches_the_server_but_the_container_s_own() -> None:
    server = SERVICES["server"]
    assert server["env_file"] == [{"path": ".env", "required": False}]
    fixed = {name for name in server["environment"] if name.startswith("UNDERSTUDY_")}
    assert fixed == {
        *(f"UNDERSTUDY_{name}" for name in ("HOST", "PORT", "DATA", "WEIGHTS", "MANIFEST", "DATABASE_URL")),
        *(f"UNDERSTUDY_STORAGE_{name}" for name in ("URL", "ENDPOINT", "ACCESS_KEY", "SECRET_KEY")),
    }
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


@every_service
def test_a_service_builds_a_target_that_exists_or_pulls_a_pinned_image(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        target = service["build"]["target"]
        assert target in ("api", "cpu", "gpu")
        assert service["image"] == f"understudy-server:{target}"
        arguments = {rest.partition("=")[0] for rest in rests(STAGES[target], "ARG")}
        assert set(service["build"].get("args", {})) <= arguments
    else:
        assert re.fullmatch(r"\d[\w.]*", service["image"].rpartition(":")[2])


@every_service
def test_a_service_may_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["driver"] == "json-file"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    if "build" in service:
        assert "cap_add" not in service
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
    assert "privileged" not in service


@every_service
def test_only_this_machine_reaches_what_is_published(name: str) -> None:
    for published in SERVICES[name].get("ports", []):
        assert with_defaults(published) == "127.0.0.1:8000:8000"
    assert ("ports" in SERVICES[name]) == (name in ("server", "demo"))


def test_only_the_server_asks_for_a_gpu_and_only_the_demo_has_a_profile() -> None:
    assert [name for name, service in SERVICES.items() if "deploy" in service] == ["server"]
    devices = SERVICES["server"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert SERVICES["server"]["build"]["target"] == "gpu"
    assert {name: each["profiles"] for name, each in SERVICES.items() if "profiles" in each} == {
        "demo": ["demo"]
    }
    assert not {"depends_on", "env_file"} & set(SERVICES["demo"])


def test_every_local_path_and_every_volume_exists_and_is_used() -> None:
    mounted = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    sources = {volume.split(":")[0] for volume in mounted}
    assert set(COMPOSE["volumes"]) == {name for name in sources if not name.startswith(".")}
    for source in (name for name in sources if name.startswith(".")):
        assert (ROOT / source).exists(), source
    writable = {
        volume.split(":")[1] for volume in SERVICES["server"]["volumes"] if not volume.endswith(":ro")
    }
    assert writable == {"/data", "/weights"}


def test_depends_on_waits_for_the_health_of_services_that_tell_theirs() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}, name
            assert "healthcheck" in SERVICES[other], f"{name} waits for the health of {other}"
    assert set(SERVICES["server"]["depends_on"]) == {"database", "store"}


def test_the_server_is_healthy_when_it_can_draw() -> None:
    check = SERVICES["server"]["healthcheck"]["test"]
    assert check[:3] == ["CMD", "python", "-c"]
    assert "/readyz" in check[3]
    compile(check[3], "healthcheck", "exec")
    told = subprocess.run([sys.executable, *check[2:]], capture_output=True)
    assert told.returncode == 1, "nobody listens there, or nobody is ready"


def test_the_store_makes_the_bucket_and_tells_whether_it_is_there() -> None:
    bucket = environment("server")["UNDERSTUDY_STORAGE_URL"].removeprefix("s3://")
    store = SERVICES["store"]
    assert f"-bucket={bucket}" in store["command"]
    assert store["healthcheck"]["test"][0] == "CMD-SHELL"
    assert re.search(rf"s3\.bucket\.list .*grep -qw {bucket}$", store["healthcheck"]["test"][1])
    assert set(SERVICES) == {"server", "demo", "database", "store"}, "no container makes it from outside"
    keys = environment("store")
    assert keys["AWS_ACCESS_KEY_ID"] == environment("server")["UNDERSTUDY_STORAGE_ACCESS_KEY"]
    assert keys["AWS_SECRET_ACCESS_KEY"] == environment("server")["UNDERSTUDY_STORAGE_SECRET_KEY"]


def test_the_server_knows_the_password_of_the_database() -> None:
    password = SERVICES["database"]["environment"]["POSTGRES_PASSWORD"]
    assert f"understudy:{password}@" in SERVICES["server"]["environment"]["UNDERSTUDY_DATABASE_URL"]


@pytest.mark.parametrize(
    "command", [SERVICES["demo"]["command"], json.loads(rests(STAGES["gpu"], "CMD")[-1])]
)
def test_the_commands_of_the_containers_exist(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = command
    assert program == "understudy"
    assert main([words[0], "--help"]) == 0
    told = capsys.readouterr().out
    for option in (word for word in words if word.startswith("--")):
        assert option in told


# Secrets in files


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The folder that the commands at the top of the file make."""
    head = [line.removeprefix("#")[3:] for line in SECRET_TEXT.splitlines() if line.startswith("#   ")]
    script = "set -eu\n" + "\n".join(head)
    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True)
    return tmp_path / "secrets"


def test_the_commands_make_every_file_that_is_mounted(secrets: Path) -> None:
    named = {name: Path(each["file"]).name for name, each in SECRET_FILES["secrets"].items()}
    assert {path.name for path in secrets.iterdir()} == set(named.values()) == set(named)
    assert secrets.stat().st_mode & 0o77 == 0, "others are kept out"
    password = (secrets / "database_password").read_text()
    assert re.fullmatch(r"[A-Za-z0-9]{20,}", password), "it becomes part of a URL"
    assert f":{password}@database:5432/" in (secrets / "database_url").read_text()
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_with_files_no_secret_is_in_any_environment(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, override in SECRET_FILES["services"].items():
        for secret in override["secrets"]:
            assert secret in SECRET_FILES["secrets"]
        together = environment(name) | override["environment"]
        values = {value for key, value in together.items() if not key.endswith("_FILE")}
        assert not {value for value in values if "localonly" in value}, name
    for key, value in (environment("server") | SECRET_FILES["services"]["server"]["environment"]).items():
        monkeypatch.setenv(key, value.replace("/run/secrets", str(secrets)))
    settings = read_settings()
    assert settings.database_url == (secrets / "database_url").read_text().strip()
    assert settings.storage_access_key is not None
    assert settings.storage_access_key.get_secret_value() == (secrets / "storage_access_key").read_text()
    assert settings.storage_secret_key is not None
    assert settings.storage_secret_key.get_secret_value() == (secrets / "storage_secret_key").read_text()


def test_with_files_the_store_is_started_in_the_same_way(secrets: Path, tmp_path: Path) -> None:
    override = SECRET_FILES["services"]["store"]
    assert override["entrypoint"] == ["/bin/sh", "-c"]
    (tmp_path / "weed").write_text('#!/bin/sh\necho "$@"\necho "$AWS_ACCESS_KEY_ID $AWS_SECRET_ACCESS_KEY"\n')
    (tmp_path / "weed").chmod(0o755)
    script = override["command"][0].replace("$$", "$").replace("/run/secrets", str(secrets))
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    told = subprocess.run(["/bin/sh", "-c", script], env=path, capture_output=True, text=True, check=True)
    started, keys = told.stdout.splitlines()
    assert shlex.split(started) == SERVICES["store"]["command"]
    assert keys == " ".join((secrets / f"storage_{each}_key").read_text() for each in ("access", "secret"))
