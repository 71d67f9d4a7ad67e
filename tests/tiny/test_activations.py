"""What is said of activations, held against one evaluation of full-size networks on the meta device."""

from __future__ import annotations

import pytest
import torch

from pipelines.weights.memory import activation_bytes
from tests.benchmarks.activations import META, counted, modules_of, most_bytes
from tests.gpu.stages import SIDES
from tests.tiny.test_memory_of_dummies import SHIPPED

LIGHT = "stable-diffusion-v1-5"
NAMES = [LIGHT, *(pytest.param(name, marks=pytest.mark.slow) for name in SIDES if name != LIGHT)]


@pytest.mark.parametrize("name", NAMES)
def test_activations_are_those_of_an_evaluation_and_grow_with_its_pictures(name: str) -> None:
    modules, entry = modules_of(name), SHIPPED.pipelines[name]
    for pictures, side in ((1, SIDES[name]), (1, SIDES[name] // 2), (2, SIDES[name] // 2)):
        for stage, size in counted(name, modules, pictures=pictures, side=side):
            read_once = stage == "encode"
            said = activation_bytes(entry, stage, pixels=side**2, samples=1 if read_once else pictures)
            # A fifth is left for the workspaces of libraries, which the meta device has not.
            # Stable Diffusion 3's texts do not shrink with the picture.
            assert said == pytest.approx(1.2 * size, rel=0.08, abs=10e6), (stage, pictures, side)


def test_what_is_freed_is_subtracted_and_weights_are_not_counted() -> None:
    layer = torch.nn.Linear(1000, 1000, device=META, dtype=torch.float16)

    def evaluate(rows: int) -> torch.Tensor:
        passed = torch.empty(rows, 1000, device=META, dtype=torch.float16)
        for _ in range(5):
            passed = layer(passed)
        return passed

    assert most_bytes({"layer": layer}, lambda: evaluate(10)) == 2 * 10 * 1000 * 2


def test_attentions_make_no_matrix_of_all_queries_and_keys() -> None:
    def evaluate() -> torch.Tensor:
        queries = torch.empty(1, 8, 4096, 64, device=META)
        return torch.nn.functional.scaled_dot_product_attention(queries, queries, queries)

    assert most_bytes({}, evaluate) == 2 * 8 * 4096 * 64 * 4
