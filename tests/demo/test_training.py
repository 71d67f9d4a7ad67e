"""Training of small networks: what it learns, and that an interruption changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import Conv2d, Linear, Module

from pipelines.demo.training.training import Modules, Recipe, Step, Training, TrainingProgress, as_matrix

CPU = torch.device("cpu")
WANTED = torch.tensor([[2.0, -1.0, 0.5]])


def distance(modules: Modules, step: Step) -> Tensor:
    """From a line, at points that the step's seed draws."""
    points = torch.randn(16, 3, generator=torch.Generator().manual_seed(step.seed))
    return (modules["line"](points) - points @ WANTED.T).square().mean()


def build() -> Mapping[str, Module]:
    return {"line": Linear(3, 1), "kept": Linear(2, 2).requires_grad_(False)}


RECIPE = Recipe(build=build, loss=distance, steps=400, learning_rate=0.05)
TURNING = replace(RECIPE, orthogonal=("line.",), orthogonal_rate=0.2)


def weights(training: Training) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, module in training.modules.items()
        for key, value in module.state_dict().items()
    }


def ignore(progress: TrainingProgress) -> None: ...


@pytest.mark.parametrize("recipe", [RECIPE, TURNING], ids=["adam", "muon"])
def test_a_line_is_learnt_and_told_step_by_step(recipe: Recipe, tmp_path: Path) -> None:
    told: list[TrainingProgress] = []
    training = Training(recipe, tmp_path / "line", CPU, seed=0)
    training.run(told.append)
    assert [each.step for each in told] == list(range(1, 401))
    assert told[-1].loss < told[0].loss / 100
    assert torch.allclose(training.use_averages()["line"].weight, WANTED, atol=0.01)


def test_updates_of_matrices_can_be_made_orthogonal(tmp_path: Path) -> None:
    """In a matrix of one row every update has the same length, however large the error is."""
    training = Training(replace(TURNING, orthogonal_rate=0.01), tmp_path / "line", CPU, seed=0)
    places = [weights(training)["line.weight"]]
    training.run(lambda progress: places.append(weights(training)["line.weight"]), until=60)
    lengths = [float((after - before).norm()) for before, after in itertools.pairwise(places)]
    assert lengths[20:60] == pytest.approx([lengths[20]] * 40, rel=0.3)


def test_later_rounds_can_be_cooler(tmp_path: Path) -> None:
    recipe = replace(TURNING, restarts=(200,), cooler=(1, 0.1))
    training = Training(recipe, tmp_path / "line", CPU, seed=0)
    places = [weights(training)["line.weight"]]
    training.run(lambda progress: places.append(weights(training)["line.weight"]))
    lengths = [float((after - before).norm()) for before, after in itertools.pairwise(places)]
    assert max(lengths[200:]) == pytest.approx(0.1 * max(lengths[:200]), rel=0.3)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_convolutions_are_matrices_in_any_order_of_memory(order: torch.memory_format, tmp_path: Path) -> None:
    wanted = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(1))

    def distance(modules: Modules, step: Step) -> Tensor:
        return (modules["filter"].weight - wanted).square().mean()

    recipe = Recipe(
        build=lambda: {"filter": Conv2d(3, 2, 2).to(memory_format=order)},
        loss=distance,
        steps=300,
        learning_rate=0.05,
        orthogonal=("filter",),
        orthogonal_rate=0.2,
    )
    training = Training(recipe, tmp_path / "filter", CPU, seed=0)
    before = weights(training)["filter.weight"]
    training.run(ignore, until=10)
    update = as_matrix(weights(training)["filter.weight"] - before, like=training.modules["filter"].weight)
    # Of ten updates, all of which go nearly the same way.
    rows = torch.linalg.svdvals(update)
    assert rows.min() > 0.3 * rows.max()
    training.run(ignore)
    assert torch.allclose(training.use_averages()["filter"].weight, wanted, atol=0.05)


@pytest.mark.parametrize("recipe", [RECIPE, TURNING], ids=["adam", "muon"])
def test_an_interrupted_run_ends_as_one_that_was_not(recipe: Recipe, tmp_path: Path) -> None:
    whole = Training(recipe, tmp_path / "whole", CPU, seed=3)
    whole.run(ignore)
    for until in (1, 150, None):
        parted = Training(recipe, tmp_path / "parted", CPU, seed=3)
        parted.run(ignore, until=until)
    assert parted.step == 400
    assert all(torch.equal(value, weights(parted)[name]) for name, value in weights(whole).items())
    whole.use_averages(), parted.use_averages()
    assert all(torch.equal(value, weights(parted)[name]) for name, value in weights(whole).items())


def test_the_last_round_can_be_run_alone_from_what_was_kept(tmp_path: Path) -> None:
    rounds = replace(RECIPE, restarts=(100, 300))
    known = {"line.weight": WANTED + 0.1, "line.bias": torch.zeros(1)}
    training = Training(rounds, tmp_path / "line", CPU, seed=0, known=known)
    assert training.step == 300
    assert torch.equal(weights(training)["line.weight"], WANTED + 0.1)
    training.run(ignore)
    assert torch.allclose(training.use_averages()["line"].weight, WANTED, atol=0.01)
    with pytest.raises(ValueError, match=r"other\.weight is of other networks"):
        Training(rounds, tmp_path / "other", CPU, seed=0, known={"other.weight": WANTED})


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
    training.use_averages()
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


def test_a_longer_run_takes_each_step_several_times_with_other_seeds(tmp_path: Path) -> None:
    steps: list[Step] = []

    def downhill(modules: Modules, step: Step) -> Tensor:
        steps.append(step)
        return modules["line"].weight.sum()

    recipe = Recipe(build=build, loss=downhill, steps=100, learning_rate=0.01, restarts=(50,))
    training = Training(recipe, tmp_path / "line", CPU, seed=0, times=3)
    assert training.steps == 300
    places = [weights(training)["line.weight"]]
    training.run(lambda progress: places.append(weights(training)["line.weight"]))
    assert steps == [Step(seed // 3, seed) for seed in range(300)]
    changes = [float((after - before).abs().max()) for before, after in itertools.pairwise(places)]
    assert changes[149] < 0.0001 > changes[299]
    assert changes[159] == pytest.approx(0.01, rel=0.1)


def test_the_last_round_can_be_longer_too(tmp_path: Path) -> None:
    rounds = replace(RECIPE, restarts=(100, 300))
    training = Training(rounds, tmp_path / "line", CPU, seed=0, times=3, known={"line.bias": torch.zeros(1)})
    assert (training.step, training.steps) == (900, 1200)
