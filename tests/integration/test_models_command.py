"""`understudy models` beside a running server: the real weights.yaml, nothing pulled, files used in place."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.integration.loading import SMALL, FileServer, Offered, drawn, post
from tests.running_server import RunningServer, eventually, start_server
from tests.tiny.original_layout import write_single_file

ROOT = Path(__file__).parents[2]
MODEL = "realistic"


class Models:
    """The command line beside a server, and the folder of another program's files."""

    def __init__(self, server: RunningServer, small: Path, ui: Path, environment: dict[str, str]) -> None:
        self.server, self.small, self.ui = server, small, ui
        self.environment = environment

    def run(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "server", "models", *arguments]
        ended = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert ended.returncode == status, ended.stdout + ended.stderr
        return ended

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def knows(self, name: str) -> bool:
        """Whether the running server draws with something of that name."""
        return "exists on server" in post(self.server, "verify_model", model_id=name)["message"]

    def picture(self, **fields: Any) -> bytes:
        eventually(lambda: self.knows(MODEL))
        return drawn(self.server, MODEL, **fields)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, random_manifest_path: Path) -> Iterator[Models]:
    folder, small = tmp_path_factory.mktemp("box"), random_manifest_path.parent
    # The real one; beside it, preferred to the one that ships, a small configuration of the same name.
    manifest = Path(shutil.copy(ROOT / "weights.yaml", folder))
    (folder / "stable-diffusion-v1-5").symlink_to(small / "sd15")
    weights = folder / "weights"
    server = start_server(folder, manifest, weights=str(weights), sync_wait_s="110")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("UNDERSTUDY_")},
        "UNDERSTUDY_MANIFEST": str(manifest),
        "UNDERSTUDY_WEIGHTS": str(weights),
        "UNDERSTUDY_DATA": str(folder / "data"),
    }
    ui = folder / "ui"
    (ui / "models/Stable-diffusion").mkdir(parents=True)
    write_single_file(
        StableDiffusionPipeline.from_pretrained(small / "sd15"),
        ui / f"models/Stable-diffusion/{MODEL}.safetensors",
    )
    yield Models(server, small, ui, environment)
    server.stop()


def put(models: Models, source: Path, name: str) -> None:
    path = models.ui / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, path)


def test_one_checkpoint_that_is_added_is_drawn_where_nothing_was_pulled(models: Models) -> None:
    assert not models.knows(MODEL)
    missing = post(models.server, "text2img", model_id="stable-diffusion-v1-5", **SMALL)
    assert missing["status"] == "error"
    said = models.run("add", str(models.ui / f"models/Stable-diffusion/{MODEL}.safetensors"))
    assert f"{MODEL}: a checkpoint for sd15" in said.stdout
    assert "running server" in said.stderr
    assert len(set(models.picture())) > 1
    listed = {each["name"]: each for each in models.json("list")}
    assert listed["stable-diffusion-v1-5"]["state"] == "not pulled"

    def used() -> bool:
        now = {each["name"]: each for each in models.json("list", "--kind", "checkpoint")}[MODEL]
        return now["loaded"] and now["last_used"] is not None

    eventually(used)


@pytest.mark.slow
def test_everything_that_a_scan_finds_is_drawn_with(models: Models) -> None:
    small = models.small
    put(models, small / "sd15_adapters/more_details.safetensors", "models/Lora/style.safetensors")
    put(models, small / "sd15_adapters/night_scene.safetensors", "embeddings/nightly.safetensors")
    control = "controlnets/sd15_canny/diffusion_pytorch_model.safetensors"
    put(models, small / control, "models/ControlNet/control_v11p_sd15_canny.safetensors")
    put(models, small / "upscaler.safetensors", "models/ESRGAN/2x-small.safetensors")
    vae = load_file(small / "sd15/vae/diffusion_pytorch_model.safetensors")
    (models.ui / "models/VAE").mkdir()
    vae["decoder.conv_out.bias"] += 0.2
    save_file(vae, models.ui / "models/VAE/warm.safetensors")
    found = {each["name"]: each["kind"] for each in models.json("scan", str(models.ui))["found"]}
    assert found == {
        MODEL: "checkpoint",
        "style": "lora",
        "nightly": "embedding",
        "control_v11p_sd15_canny": "controlnet",
        "2x-small": "upscaler",
        "warm": "vae",
    }
    eventually(lambda: models.knows("style"))
    plain = models.picture()
    assert models.picture(lora_model="style") != plain
    assert models.picture(prompt="a <lora:style:1> cat") != plain
    assert models.picture(vae="warm") != plain
    assert models.picture(embeddings_model="nightly", prompt="nightly a cat") != plain
    picture = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((256, 256)).save(picture, "PNG")
    sent = base64.b64encode(picture.getvalue()).decode()
    steered = drawn(
        models.server,
        MODEL,
        operation="controlnet",
        controlnet_model="control_v11p_sd15_canny",
        auto_hint="yes",
        init_image=sent,
    )
    assert steered != plain
    enlarged = post(models.server, "super_resolution", init_image=sent, model_id="2x-small", scale=2)
    assert enlarged["status"] == "success", enlarged


@pytest.mark.slow
def test_a_file_that_vanishes_is_missing_alone_and_forgotten_by_the_next_scan(models: Models) -> None:
    put(models, models.small / "sd15_adapters/animie.safetensors", "models/Lora/fleeting.safetensors")
    models.run("scan", str(models.ui))
    eventually(lambda: models.knows("fleeting"))
    (models.ui / "models/Lora/fleeting.safetensors").unlink()
    refused = post(models.server, "text2img", model_id=MODEL, lora_model="fleeting", **SMALL)
    assert refused["status"] == "error"
    assert str(models.ui) not in json.dumps(refused)
    assert len(set(models.picture())) > 1
    assert {each["name"]: each for each in models.json("list")}["fleeting"]["state"] == "missing"
    assert "fleeting: gone" in models.run("scan", str(models.ui)).stdout
    eventually(lambda: not models.knows("fleeting"))


@pytest.mark.slow
def test_what_was_fetched_is_removed_with_its_file_and_what_lies_elsewhere_is_left(models: Models) -> None:
    data = (models.small / "sd15_adapters/animie.safetensors").read_bytes()
    with FileServer({"Some%20Style.safetensors": Offered(data)}) as files:
        said = models.run("add", f"{files.url}/Some%20Style.safetensors", "--kind", "lora")
    assert "Some Style: a lora for sd15" in said.stdout
    eventually(lambda: models.knows("Some Style"))
    stored = Path(models.environment["UNDERSTUDY_WEIGHTS"]) / "loaded/Some Style.safetensors"
    assert stored.read_bytes() == data
    assert models.picture(lora_model="Some Style") != models.picture()
    models.run("rm", "Some Style")
    eventually(lambda: not models.knows("Some Style") and not stored.exists())
    put(models, models.small / "sd15_adapters/animie.safetensors", "elsewhere/own.safetensors")
    models.run("add", str(models.ui / "elsewhere/own.safetensors"), "--id", "mine")
    eventually(lambda: models.knows("mine"))
    assert post(models.server, "delete_model", model_id="mine")["status"] == "success"
    assert (models.ui / "elsewhere/own.safetensors").exists()
    assert "mine" not in {each["name"] for each in models.json("list")}


@pytest.mark.slow
def test_paths_are_never_read_for_callers(models: Models) -> None:
    path = models.ui / f"models/Stable-diffusion/{MODEL}.safetensors"
    for text in (str(path), f"file://{path}"):
        answer = post(models.server, "load_model", url=text, model_id="stolen")
        assert answer["status"] == "error"
    assert not models.knows("stolen")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "/nowhere/model.safetensors"), "no such file"),
        (("add", "model.safetensors"), "no such file"),
        (("add", "nonsense"), "no URL"),
        (("rm", "sdxl"), "remove it there"),
        (("rm", "realistik"), "did you mean realistic?"),
        (("scan", "/nowhere"), "no such folder"),
    ],
)
def test_what_cannot_be_done_is_one_line_in_words(
    arguments: tuple[str, ...], words: str, models: Models
) -> None:
    status = 2 if arguments[0] == "scan" else 1
    ended = models.run(*arguments, status=status)
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.slow
def test_many_commands_at_once_lose_nothing_of_each_other(models: Models) -> None:
    names = [f"crowd{at}" for at in range(4)]
    for name in names:
        put(models, models.small / "sd15_adapters/animie.safetensors", f"elsewhere/{name}.safetensors")
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "server",
                "models",
                "add",
                str(models.ui / f"elsewhere/{name}.safetensors"),
            ],
            env=models.environment,
            stdout=subprocess.DEVNULL,
        )
        for name in names
    ]
    assert [process.wait(120) for process in started] == [0] * len(names)
    assert set(names) <= {each["name"] for each in models.json("list")}
    eventually(lambda: all(models.knows(name) for name in names))
