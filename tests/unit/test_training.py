"""Training of small networks: what it learns, and that an interruption changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import Linear, Module

from pipelines.demo.training import Modules, Progress, Recipe, Training

CPU = torch.device("cpu")
WANTED = torch.tensor([[2.0, -1.0, 0.5]])


def distance(modules: Modules, step: int) -> Tensor:
    """From a line, at points that the step's number draws."""
    points = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
    return (modules["line"](points) - points @ WANTED.T).square().mean()


def build() -> Mapping[str, Module]:
    return {"line": Linear(3, 1), "kept": Linear(2, 2).requires_grad_(False)}


RECIPE = Recipe(build=build, loss=distance, steps=400, learning_rate=0.05)


def weights(training: Training) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, module in training.modules.items()
        for key, value in module.state_dict().items()
    }


def ignore(progress: Progress) -> None: ...


def test_a_line_is_learnt_and_told_step_by_step(tmp_path: Path) -> None:
    told: list[Progress] = []
    training = Training(RECIPE, tmp_path / "line", CPU, seed=0)
    training.run(told.append)
    assert [each.step for each in told] == list(range(1, 401))
    assert told[-1].loss < told[0].loss / 100
    assert torch.allclose(training.averaged()["line"].weight, WANTED, atol=0.01)


def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = Training(RECIPE, tmp_path / "whole", CPU, seed=3)
    whole.run(ignore)
    for until in (1, 150, None):
        parted = Training(RECIPE, tmp_path / "parted", CPU, seed=3)
        parted.run(ignore, until=until)
    assert parted.step == 400
    assert all(torch.equal(value, weights(parted)[name]) for name, value in weights(whole).items())
    whole.averaged(), parted.averaged()
    assert all(torch.equal(value, weights(parted)[name]) for name, value in weights(whole).items())


def test_a_seed_says_where_a_run_begins(tmp_path: Path) -> None:
    one, again, other = (
        weights(Training(RECIPE, tmp_path / f"{number}", CPU, seed=seed))
        for number, seed in enumerate((1, 1, 2))
    )
    assert torch.equal(one["line.weight"], again["line.weight"])
    assert not torch.equal(one["line.weight"], other["line.weight"])


def test_averages_lag_behind_what_is_trained_and_what_is_kept_stays(tmp_path: Path) -> None:
    training = Training(RECIPE, tmp_path / "line", CPU, seed=0)
    before = weights(training)
    training.run(ignore, until=40)
    trained = weights(training)
    training.averaged()
    averaged = weights(training)

    def off(state: dict[str, Tensor]) -> float:
        return float((state["line.weight"] - WANTED).abs().sum())

    assert off(trained) < off(averaged) < off(before)
    assert torch.equal(trained["kept.weight"], before["kept.weight"])


def test_a_file_of_other_networks_is_refused(tmp_path: Path) -> None:
    Training(RECIPE, tmp_path / "line", CPU, seed=0).save()
    wider = Recipe(build=lambda: {"line": Linear(4, 1)}, loss=distance, steps=1, learning_rate=0.1)
    with pytest.raises(ValueError, match="is of other networks"):
        Training(wider, tmp_path / "line", CPU, seed=0)


def test_steps_grow_at_the_beginning_and_shrink_to_nothing_at_the_end(tmp_path: Path) -> None:
    downhill = Recipe(
        build=build, loss=lambda modules, step: modules["line"].weight.sum(), steps=200, learning_rate=0.01
    )
    training = Training(downhill, tmp_path / "line", CPU, seed=0)
    places = [weights(training)["line.weight"]]
    training.run(lambda progress: places.append(weights(training)["line.weight"]))
    steps = [float((after - before).abs().max()) for before, after in itertools.pairwise(places)]
    assert steps[0] < steps[5] < steps[10] == pytest.approx(0.01, rel=0.05)
    assert steps[10] > steps[100] > steps[199]
    assert steps[199] < 0.0001


def test_every_round_grows_and_shrinks_again(tmp_path: Path) -> None:
    downhill = Recipe(
        build=build,
        loss=lambda modules, step: modules["line"].weight.sum(),
        steps=300,
        learning_rate=0.01,
        restarts=(100,),
    )
    training = Training(downhill, tmp_path / "line", CPU, seed=0)
    places = [weights(training)["line.weight"]]
    training.run(lambda progress: places.append(weights(training)["line.weight"]))
    steps = [float((after - before).abs().max()) for before, after in itertools.pairwise(places)]
    assert steps[99] < 0.0001 > steps[299]
    assert steps[110] == pytest.approx(0.01, rel=0.05)
