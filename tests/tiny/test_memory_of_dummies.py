"""What is said of each part's bytes, held against full-size networks on the meta device."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.families.registry import open_pipeline
from pipelines.weights.kinds import Dtype
from pipelines.weights.manifest import Manifest, load_manifest
from pipelines.weights.memory import part_bytes
from pipelines.weights.networks import NETWORKS
from tests.gpu.stages import SIDES, in_precision

ROOT = Path(__file__).parents[2]
SHIPPED = load_manifest(ROOT / "weights.yaml")
SLOW, OTHERS = pytest.mark.slow, ("bfloat16", "float32")
DUMMIES = load_manifest(ROOT / "tests/gpu/weights.yaml")


def meta_bytes(manifest: Manifest, name: str) -> Mapping[str, int]:
    """The bytes of each network of a pipeline, tensors that it has twice counted once."""
    checkpoint = Checkpoint(name, manifest, manifest.pipelines[name], Path(), torch.device("meta"))
    modules = open_pipeline(checkpoint, AdapterLibrary(manifest, Path())).modules
    return {part: bytes_of(module) for part, module in modules.items()}


def bytes_of(module: torch.nn.Module) -> int:
    tensors = itertools.chain(module.parameters(), module.buffers())
    return sum({id(tensor): tensor.nbytes for tensor in tensors}.values())


@pytest.mark.parametrize(
    "dtype",
    [
        "float16",
        pytest.param("bfloat16", marks=pytest.mark.slow),
        pytest.param("float32", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW) if name == "sd3-medium-pose" else name for name in SIDES]
)
def test_weights_yaml_says_the_bytes_of_the_networks_that_are_opened(name: str, dtype: Dtype) -> None:
    said = part_bytes(in_precision(SHIPPED, dtype).pipelines[name])
    real = meta_bytes(in_precision(DUMMIES, dtype), name)
    usual = part_bytes(in_precision(DUMMIES, dtype).pipelines[name])
    assert usual.keys() == real.keys() <= said.keys()
    for part, size in real.items():
        assert size == pytest.approx(said[part], rel=0.005), part
        assert size == pytest.approx(usual[part], rel=0.001), part


def test_every_network_that_the_manifest_opens_has_a_size_in_it() -> None:
    for name, entry in SHIPPED.openable().items():
        opened = {part for part in part_bytes(entry) if part not in NETWORKS[entry.family].full}
        assert entry.memory.keys() == opened, name
