"""`understudy ps` beside a running server: what its engine really has loaded and draws."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.running_server import ENTERPRISE, HTTP, RunningServer, eventually

MODEL = "stable-diffusion-v1-5"
LONG = {
    "model_id": MODEL,
    "prompt": "a cat",
    "width": 256,
    "height": 256,
    "num_inference_steps": 50,
    "samples": 4,
}


def ps(server: RunningServer, *arguments: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("UNDERSTUDY_")}
    address = server.url.rpartition("://")[2].partition(":")
    environment = {
        **own,
        "UNDERSTUDY_HOST": address[0],
        "UNDERSTUDY_PORT": address[2],
        "UNDERSTUDY_ADMIN_KEY": key or server.admin_key,
    }
    command = [sys.executable, "-m", "server", "ps", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def engines(server: RunningServer) -> Any:
    answer = HTTP.get(f"{server.url}/engines", headers={"x-api-key": server.admin_key})
    assert answer.status_code == 200, answer.text
    return answer.json()["engines"]


def test_a_picture_that_is_drawn_and_the_parts_that_draw_it_are_shown(server: RunningServer) -> None:
    with server.calling(f"{ENTERPRISE}/text2img", {"key": server.key, **LONG}):

        def drawn_now() -> Any:
            (engine,) = engines(server)
            return [each for each in engine["running"] if each["evaluations"]] and engine

        engine = eventually(drawn_now)
        shown = ps(server, "--json")
        assert shown.returncode == 0, shown.stderr
        told = json.loads(shown.stdout)
    (running,) = engine["running"]
    assert (running["pipeline"], running["images"], running["evaluations_total"]) == (MODEL, 4, 200)
    (pipeline,) = [each for each in engine["pipelines"] if each["name"] == MODEL]
    assert {"text_encoder", "unet", "vae"} <= {part["name"] for part in pipeline["parts"]}
    assert all(part["bytes"] > 0 and part["place"] == "device" for part in pipeline["parts"])
    assert engine["used_bytes"] >= pipeline["bytes"] > 10**6
    assert engine["used_bytes"] <= engine["budget_bytes"]
    assert told["engines"][0]["name"] == engine["name"]
    assert sum(each["bytes"] for each in pipeline["parts"]) == pipeline["bytes"]
    table = ps(server).stdout
    assert MODEL in table
    assert "unet" in table


def test_a_key_that_is_no_administrators_is_refused_in_one_line(server: RunningServer) -> None:
    refused = ps(server, key=server.key)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "no administrator's" in line
