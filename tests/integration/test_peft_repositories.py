"""Repositories of adapters that PEFT saved: fetched with the settings that lie beside their tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from pipelines.adapters.lora_file import read_lora
from pipelines.checkpoints.checkpoint import local
from pipelines.weights.fetch_process import Fetched, FetchRequest, fetch
from pipelines.weights.header import Unrecognised
from pipelines.weights.loaded import parse
from pipelines.weights.manifest import Manifest
from pipelines.weights.repositories import Repository, select
from tests.integration.hub_server import HubServer, Repo

UNET = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
MIDDLE = "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
TEXT = "base_model.model.text_model.encoder.layers.0.self_attn.q_proj"
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 8}


WIDTHS = {UNET: 16, MIDDLE: 64, TEXT: 32}
"""The widths of these layers in the small checkpoints."""


def saved(layer: str, width: int | None = None) -> bytes:
    width = width or WIDTHS[layer]
    shapes = {"A": (2, width), "B": (width, 2)}
    return save({f"{layer}.lora_{end}.weight": np.ones(shape, np.float32) for end, shape in shapes.items()})


def config(**more: Any) -> bytes:
    return json.dumps({**CONFIG, **more}).encode()


REPOSITORIES: dict[str, dict[str, bytes]] = {
    "flat": {"adapter_model.safetensors": saved(UNET), "adapter_config.json": config(), "README.md": b"x"},
    "with others": {
        "adapter_model.safetensors": saved(UNET), "adapter_config.json": config(), "config.json": b"{}",
        "other.safetensors": saved(TEXT), "checkpoint-5/adapter_model.safetensors": saved(TEXT),
    },
    "folders": {
        "unet/adapter_model.safetensors": saved(MIDDLE), "unet/adapter_config.json": config(),
        "text_encoder_2/adapter_model.safetensors": saved(TEXT, 64),
        "text_encoder_2/adapter_config.json": config(lora_alpha=2),
    },
    "oft": {"adapter_model.safetensors": saved(UNET), "adapter_config.json": config(peft_type="OFT")},
    "pickle": {"adapter_model.bin": b"x", "adapter_config.json": config()},
}  # fmt: skip


@pytest.fixture
def bring(random_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Fetches one of the repositories as `load_model` does, and reads what came as a drawing does."""
    repos = {f"me/{name.replace(' ', '-')}": Repo(files) for name, files in REPOSITORIES.items()}
    with HubServer(repos) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)

        def brought(name: str) -> tuple[Fetched, Any]:
            wanted = FetchRequest(
                name="mine", hub=f"me/{name.replace(' ', '-')}", revision="main",
                manifest=random_manifest.path,
                weights=tmp_path, on_cpu=True, max_bytes=10**9,
            )  # fmt: skip
            fetched = fetch(wanted, lambda line: None)
            entry: Any = parse("loras", "mine", fetched.entry, tmp_path)
            return fetched, read_lora(local(random_manifest, entry.source, tmp_path))

        yield brought


@pytest.mark.parametrize("name", ["flat", "with others"])
def test_the_settings_beside_the_tensors_come_along(name: str, bring: Any) -> None:
    fetched, file = bring(name)
    assert (fetched.kind, fetched.entry["family"]) == ("lora", "sd15")
    assert {key: float(tensor) for key, tensor in file.tensors.items() if key.endswith("alpha")} == {
        f"{UNET}.alpha": 8.0
    }
    assert file.notes == ()


def test_each_network_has_its_own_folder_and_settings(bring: Any) -> None:
    fetched, file = bring("folders")
    assert fetched.entry["family"] == "sdxl"
    alphas = {key: float(tensor) for key, tensor in file.tensors.items() if key.endswith("alpha")}
    assert alphas == {f"unet.{MIDDLE}.alpha": 8.0, f"text_encoder_2.{TEXT}.alpha": 2.0}
    assert file.notes == ()


@pytest.mark.parametrize(("name", "reason"), [("oft", "of PEFT's kind OFT"), ("pickle", "is a pickle")])
def test_what_is_of_no_use_is_refused_by_name(name: str, reason: str, bring: Any) -> None:
    with pytest.raises(Unrecognised, match=reason):
        bring(name)


@pytest.mark.parametrize("end", ["safetensors", "bin"])
def test_a_pull_of_weights_yaml_brings_the_settings_too(end: str) -> None:
    listing = [f"a/adapter_model.{end}", "a/adapter_config.json", "adapter_config.json", f"b.{end}"]
    wanted = Repository(hub="me/x", revision="main", files=(f"a/adapter_model.{end}",))
    assert set(select(listing, wanted, None)) == {f"a/adapter_model.{end}", "a/adapter_config.json"}
