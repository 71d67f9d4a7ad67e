"""The API process stays light: what draws is loaded by engine processes alone."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ("torch", "torchvision", "diffusers", "transformers", "accelerate", "peft", "controlnet_aux")


def loaded_after(statement: str) -> set[str]:
    """Names of the top-level packages that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps([n.partition('.')[0] for n in sys.modules]))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(ended.stdout))


def test_the_api_process_loads_nothing_that_draws():
    assert loaded_after("import server.app, server.__main__").isdisjoint(HEAVY)


def test_the_probe_would_notice():
    assert "torch" in loaded_after("import pipelines.engine.process")
