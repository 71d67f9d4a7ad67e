"""Two Python packages that send everything in the URL, and the vendor's command line, which is in Go."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from PIL import Image

from tests.clients.test_enterprise_python import MODEL, SMALL, Published
from tests.running_server import RunningServer, eventually

# Two packages of one name that send everything in the URL and the key in a header


@pytest.mark.slow
@pytest.mark.client("stablediffusionapi", "Python", happy="text2img and dreambooth (v3)")
@pytest.mark.parametrize("page", ["text2img", "dreambooth"])
def test_a_client_that_sends_its_fields_in_the_url_draws(
    server: RunningServer, published: Published, tmp_path: Path, page: str
):
    published("stablediffusionapi")
    from StableDiffusionAPI import Community, Key, Text2Img

    Key(server.key)
    file = tmp_path / "picture.png"
    if page == "text2img":
        Text2Img("a cat & a dog", 256, 256, str(file))
    else:
        Community.Text2Img(MODEL, "a cat & a dog", str(file))
    eventually(lambda: file.exists() and file.stat().st_size > 0)
    assert Image.open(file).size == (512, 512)


@pytest.mark.client("stablediffusionapi", "Python", error="bad key, unknown model")
def test_a_client_that_sends_its_fields_in_the_url_reads_what_is_wrong(
    server: RunningServer, published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    published("stablediffusionapi")
    from StableDiffusionAPI import Community, Key

    for key, model in (("wrong", MODEL), (server.key, "nothing")):
        Key(key)
        Community.Text2Img_Threader(model, "a cat", 512, 512, str(tmp_path / "picture.png"))
        assert "Status: error" in capsys.readouterr().out


def sdapi(key: str) -> Callable[..., None]:
    """The package's one function; its key is written into it, as its users do."""
    from StableDiffusionAPI.StableDiffusionAPI import StableDiffusionAPI

    code = StableDiffusionAPI.__code__
    constants = tuple(key if constant == "XXXXXXXXXX" else constant for constant in code.co_consts)
    assert key in constants
    return FunctionType(code.replace(co_consts=constants), StableDiffusionAPI.__globals__)


@pytest.mark.slow
@pytest.mark.client("sdapi", "Python", happy="text2img (v3)")
def test_a_client_with_a_key_written_into_it_draws(
    server: RunningServer, published: Published, tmp_path: Path
):
    published("sdapi")
    file = tmp_path / "picture.png"
    sdapi(server.key)("a cat", 512, 512, 1, str(file))
    assert Image.open(file).size == (512, 512)


@pytest.mark.client("sdapi", "Python", error="bad key, printed before it stumbles")
def test_a_client_with_a_key_written_into_it_shows_what_is_wrong(
    server: RunningServer, published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    published("sdapi")
    with pytest.raises(KeyError):
        sdapi("wrong")("a cat", 512, 512, 1, str(tmp_path / "picture.png"))
    assert "Invalid Api Key" in capsys.readouterr().out


# modelslab-cli, a command in Go


def command_line(published: Published, server: RunningServer, key: str, *arguments: str) -> Any:
    binary = published("modelslab-cli") / "modelslab_cli" / "bin" / "modelslab"
    binary.chmod(0o755)
    options = ["--base-url", server.url, "--api-key", key, "--no-update-check", "-o", "json"]
    return subprocess.run([str(binary), *arguments, *options], capture_output=True, text=True, timeout=60)


@pytest.mark.client("modelslab-cli", "Go", happy="generate image, generate fetch")
def test_the_vendors_command_draws(server: RunningServer, published: Published, tmp_path: Path):
    given = ["--model", MODEL, "--prompt", "a cat", "--width", "256", "--height", "256", "--steps", "2"]
    drawn = command_line(
        published, server, server.key, "generate", "image", *given, "--output-dir", str(tmp_path)
    )
    assert drawn.returncode == 0, drawn.stderr + drawn.stdout
    [file] = tmp_path.iterdir()
    assert Image.open(file).size == (256, 256)
    file.unlink()
    job = str(server.answer("text2img", prompt="a cat", model_id=MODEL, **SMALL)["id"])
    fetched = command_line(
        published, server, server.key, "generate", "fetch", "--id", job, "--output-dir", str(tmp_path)
    )
    assert fetched.returncode == 0, fetched.stderr + fetched.stdout
    [file] = tmp_path.iterdir()
    assert Image.open(file).size == (256, 256)


@pytest.mark.client("modelslab-cli", "Go", error="bad key, unknown model")
def test_the_vendors_command_says_what_is_wrong(server: RunningServer, published: Published):
    given = ["generate", "image", "--prompt", "a cat", "--model"]
    bad_key = command_line(published, server, "wrong", *given, MODEL)
    assert "Invalid Api Key" in bad_key.stdout + bad_key.stderr
    unknown = command_line(published, server, server.key, *given, "nothing")
    assert "Model id not found" in unknown.stdout + unknown.stderr
