"""Loading and deleting on a running server: beside drawings, across restarts, from a hub and from URLs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.integration.hub_server import HubServer, Repo
from tests.integration.loading import MODEL, SMALL, drawn, post, verified
from tests.running_server import HTTP, RunningServer, eventually, start_server


@dataclass
class Receiver:
    """Where webhooks go; ``told`` has their bodies."""

    url: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)

    def about(self, name: str) -> dict[str, Any]:
        return eventually(lambda: next((told for told in self.told if told["model_id"] == name), None))


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiving = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiving.told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Keep test output clean."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiving.url = f"http://127.0.0.1:{listening.server_address[1]}/"
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
    thread.start()
    yield receiving
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture(scope="module")
def hub(demo_manifest_path: Path) -> Iterator[HubServer]:
    demo = demo_manifest_path.parent
    checkpoint = {
        path.relative_to(demo / "sd15").as_posix(): path.read_bytes()
        for path in sorted((demo / "sd15").rglob("*"))
        if path.is_file()
    }
    lora = (demo / "sd15_adapters/striped.safetensors").read_bytes()
    inversion = (demo / "sd15_adapters/night_scene.safetensors").read_bytes()
    flux = json.loads(checkpoint["model_index.json"]) | {"_class_name": "FluxPipeline"}
    with HubServer(
        {
            "me/tiny-sd": Repo(checkpoint),
            "me/sketch": Repo({"sketch.safetensors": lora, "README.md": b"a LoRA"}),
            "me/words": Repo({"learned.safetensors": inversion}),
            "me/pickled": Repo({"pytorch_lora_weights.bin": b"PK\x03\x04"}),
            "me/flux": Repo({**checkpoint, "model_index.json": json.dumps(flux).encode()}),
            "me/several": Repo({"a.safetensors": lora, "b.safetensors": lora}),
            "me/files": Repo(
                {
                    "more.safetensors": lora,
                    "disguised.safetensors": b"PK\x03\x04" + bytes(100),
                    "page.safetensors": b"<html>nothing to see</html>" * 9,
                }
            ),
        }
    ) as serving:
        yield serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def start(folder: Path, manifest: Path, hub: HubServer, *, accounts: bool = True) -> RunningServer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        return start_server(
            folder,
            manifest,
            accounts=accounts,
            weights=str(folder / "weights"),
            preload="false",
            sync_wait_s="110",
        )


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, demo_manifest_path: Path, hub: HubServer
) -> Iterator[RunningServer]:
    running = start(tmp_path_factory.mktemp("loads"), demo_manifest_path, hub)
    yield running
    running.stop()


def killed_midway(server: RunningServer, hub: HubServer, parts: Path) -> threading.Event:
    """Set when the server was killed in the middle of fetching ``more.safetensors``."""
    killed = threading.Event()

    def kill() -> None:
        eventually(lambda: any(part.stat().st_size > 1000 for part in parts.iterdir()) or None)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        killed.set()

    hub.repos["me/files"].midway["more.safetensors"] = kill
    return killed


@pytest.mark.slow
def test_what_was_loaded_beside_drawings_draws_survives_a_kill_and_is_deleted(
    folder: Path, demo_manifest_path: Path, hub: HubServer, receiver: Receiver
) -> None:
    server = start(folder, demo_manifest_path, hub)
    try:
        plain = drawn(server, MODEL, lora_model="more_details")
        with ThreadPoolExecutor(3) as callers:
            beside = [callers.submit(drawn, server, MODEL, num_inference_steps=20) for _ in range(3)]
            for operation, fields in (
                ("load_model", {"url": "me/tiny-sd", "model_id": "mine", "webhook": receiver.url}),
                ("load_model_v2", {"url": "me/sketch", "model_id": "sketch", "model_category": "lora"}),
            ):
                answer = post(server, operation, **fields)
                assert answer["message"] == answer["messege"] == "model load started"
            assert verified(server, "mine") == verified(server, "sketch") == "Model exists on server"
            assert all(call.result() for call in beside)
        told = receiver.about("mine")
        assert (told["status"], told["message"], told["messege"]) == ("success", *["model loaded"] * 2)
        assert drawn(server, "mine", lora_model="sketch") == plain
        assert drawn(server, "mine") != plain
        models = {model["model_id"]: model for model in post(server, "get_all_models")["models"]}
        assert models.keys() >= {"mine", "sketch", MODEL}
        assert all(set(model) == {"load_data", "model_id"} for model in models.values())
        assert post(server, "system_details")["loads"] == []

        keys = server.key, server.admin_key
        killed = killed_midway(server, hub, folder / "weights/.parts")
        more = f"{hub.url}/plain/me/files/main/more.safetensors"
        post(server, "load_model", url=more, model_id="interrupted", model_type="lora")
        assert killed.wait(60)
        command = [sys.executable, "-m", "server", "weights", "list", "--manifest", str(demo_manifest_path)]
        command += ["--weights", str(folder / "weights")]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert {"mine", "sketch"} <= {line.split()[0] for line in listed.splitlines() if line}
        hub.requests.clear()
        server = start(folder, demo_manifest_path, hub, accounts=False)
        server.key, server.admin_key = keys
        assert drawn(server, "mine", lora_model="sketch") == plain
        assert verified(server, "interrupted") == "Model exists on server"
        assert drawn(server, "mine", lora_model="interrupted") == plain
        spans = [span for _, path, span, _ in hub.requests if path.endswith("more.safetensors")]
        assert [int((span or "=0-").removeprefix("bytes=").rstrip("-")) > 0 for span in spans] == [True]
        post(server, "restart_server")
        assert drawn(server, "mine", lora_model="sketch") == plain

        with ThreadPoolExecutor(1) as callers:
            fields = {"lora_model": "sketch", "num_inference_steps": 40}
            last = callers.submit(drawn, server, "mine", **fields)
            eventually(lambda: "running 1.0" in HTTP.get(f"{server.url}/metrics").text or None)
            assert post(server, "delete_model", model_id="sketch")["message"] == "Model deleted on server"
            assert last.done()
            assert last.result()
        assert post(server, "text2img", model_id="mine", lora_model="sketch", **SMALL)["message"] == {
            "lora_model": ["lora_model sketch is not on this server"]
        }
        assert not (folder / "weights/me/sketch").exists()
        assert drawn(server, "mine") == drawn(server, MODEL)
        assert post(server, "delete_model", model_id="mine")["message"] == "Model deleted on server"
        assert post(server, "text2img", model_id="mine", **SMALL)["message"] == "Model id not found"
        assert not (folder / "weights/me/tiny-sd").exists()
        assert post(server, "delete_model", model_id="mine")["message"] == "Model id not found"
        # The name is free again, and means what is loaded now.
        post(server, "load_model", url="me/words", model_id="sketch")
        assert verified(server, "sketch") == "Model exists on server"
        assert drawn(server, MODEL, embeddings_model="sketch", prompt="a sketch") != drawn(
            server, MODEL, prompt="a sketch"
        )
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("pickled", {"url": "me/pickled"}, "it is a pickle, which can run code"),
        ("flux", {"url": "me/flux"}, "it is a FluxPipeline; this server draws with"),
        ("several", {"url": "me/several"}, "it has 2 .safetensors files"),
        ("absent", {"url": "me/absent"}, "me/absent is not on the hub"),
        ("no-vae", {"url": "me/sketch", "model_type": "vae"}, "it is a lora, not a vae"),
        ("disguised", {"url": "plain/me/files/main/disguised.safetensors"}, "it is a pickle"),
        ("page", {"url": "plain/me/files/main/page.safetensors"}, "it is an HTML page, not a file"),
        ("missing", {"url": "nothing.safetensors"}, "it could not be fetched: the server answered 404"),
        ("xl", {"url": "me/sketch", "model_type": "sdxl"}, "it is a lora, not a checkpoint"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_says_why(
    shared: RunningServer, hub: HubServer, receiver: Receiver, name: str, fields: dict[str, Any], reason: str
) -> None:
    url = fields["url"] if fields["url"].startswith("me/") else f"{hub.url}/{fields['url']}"
    answer = post(
        shared, "load_model", **{**fields, "url": url}, model_id=name, webhook=receiver.url, track_id="mine"
    )
    assert (answer["message"], answer["track_id"]) == ("model load started", "mine")
    message = verified(shared, name)
    assert message.startswith(f"Model id not found: loading failed: {reason}")
    told = receiver.about(name)
    assert (told["status"], told["track_id"]) == ("failed", "mine")
    assert reason in told["message"]
    state = next(load for load in post(shared, "system_details")["loads"] if load["model_id"] == name)
    assert state["status"] == "failed"
    assert reason in state["message"]
    assert name not in {model["model_id"] for model in post(shared, "get_all_models")["models"]}
    # A failure is forgotten when it is deleted.
    assert post(shared, "delete_model", model_id=name)["message"] == "Model deleted on server"
    assert post(shared, "verify_model", model_id=name)["message"] == "Model id not found"


def test_a_vae_is_loaded_and_chosen_by_its_id(
    shared: RunningServer, hub: HubServer, demo_manifest_path: Path
) -> None:
    folder = demo_manifest_path.parent / "sd15_adapters/vae"
    hub.repos["me/vae"] = Repo({path.name: path.read_bytes() for path in folder.iterdir()})
    answer = post(shared, "load_vae", vae_id="other", vae_url="me/vae", vae_type="sd15")
    assert answer["message"] == answer["messege"] == "VAE load started"
    assert verified(shared, "other") == "Model exists on server"
    assert drawn(shared, MODEL, vae="other") == drawn(shared, MODEL, vae="sd-vae-ft-mse")


@pytest.mark.parametrize(
    ("operation", "fields", "message"),
    [
        ("load_model", {"model_id": "x"}, {"url": ["The url field is required."]}),
        ("load_model", {"url": "me/sketch"}, {"model_id": ["The model_id field is required."]}),
        ("load_model", {"url": "me/sketch", "model_id": "../x"},
         {"model_id": ["model_id must be 1 to 128 letters, digits, dots, dashes and underscores, "
                       "a letter or digit first"]}),
        ("load_model", {"url": "me/sketch", "model_id": MODEL},
         {"model_id": [f"model_id {MODEL} stands in this server's weights.yaml"]}),
        ("load_model", {"url": "me/sketch", "model_id": "more_details"},
         {"model_id": ["model_id more_details stands in this server's weights.yaml"]}),
        ("load_model", {"url": "https://example.com/a.ckpt?x=1", "model_id": "x"},
         {"url": ["url is a pickle, which can run code when it is opened; give a .safetensors"]}),
        *(
            ("load_model", {"url": "me/sketch", "model_id": "x", "model_format": word},
             {"model_format": ["model_format pickles are refused: they can run code when they are opened; "
                               "give a .safetensors"]})
            for word in ("ckpt", "bin", "pt", "pth", "pickle")
        ),
        ("load_model", {"url": "me/sketch", "model_id": "x", "revision": "../main"},
         {"revision": ["revision must be the name of a branch, tag or commit"]}),
        ("load_model", {"url": "/etc/passwd", "model_id": "x"},
         {"url": ["url must be an http or https URL, or a repository of the hub as owner/name"]}),
        ("load_model", {"url": "file:///etc/passwd", "model_id": "x"},
         {"url": ["url cannot be fetched: only http and https URLs are allowed"]}),
        ("load_model", {"url": "http://10.0.0.1/a.safetensors", "model_id": "x"},
         {"url": ["url cannot be fetched: its address is not a public one"]}),
        ("load_vae", {"vae_id": "x", "vae_url": "/models/vae"},
         {"vae_url": ["vae_url must be an http or https URL, or a repository of the hub as owner/name"]}),
        ("delete_model", {"model_id": MODEL},
         {"model_id": [f"model_id {MODEL} stands in this server's weights.yaml; remove it there"]}),
        ("delete_model", {"model_id": "never-loaded"}, "Model id not found"),
    ],
)  # fmt: skip
def test_what_can_be_seen_to_be_wrong_is_refused_at_once(
    shared: RunningServer, operation: str, fields: dict[str, Any], message: object
) -> None:
    answer = post(shared, operation, **fields)
    assert answer["status"] == "error"
    assert answer["message"] == answer["messege"] == message


@pytest.mark.parametrize("operation", ["load_model", "load_model_v2", "load_vae", "delete_model"])
def test_only_an_administrator_changes_what_can_be_drawn_with(shared: RunningServer, operation: str) -> None:
    fields = {"url": "me/sketch", "model_id": "x", "vae_url": "me/vae", "vae_id": "x"}
    answer = post(shared, operation, key=shared.key, **fields)
    expected = f"{operation} changes this server for everyone and needs an administrator's key"
    assert (answer["status"], answer["message"]) == ("error", expected)
    assert post(shared, "verify_model", model_id="x")["message"] == "Model id not found"
