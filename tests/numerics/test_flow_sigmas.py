"""Sigma schedules against numbers worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from pipelines.errors import InvalidInput
from pipelines.schedulers.flow.sigmas import SIGMA_SCHEDULES, is_far, sigmas


def shifted(time: float) -> float:
    return 3 * time / (1 + 2 * time)


LOWEST = 0.003 / 1.002


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # Times 1, 0.5015, 0.003 (the lowest level), each shifted.
        ("normal", [1.0, shifted((1 + LOWEST) / 2), shifted(LOWEST), 0.0]),
        # The same down to the lowest level in four, without it.
        ("sgm_uniform", [1.0, shifted(1 - (1 - LOWEST) / 3), shifted(1 - 2 * (1 - LOWEST) / 3), 0.0]),
        ("karras", [1.0, ((1 + LOWEST ** (1 / 7)) / 2) ** 7, LOWEST, 0.0]),
        ("exponential", [1.0, LOWEST**0.5, LOWEST, 0.0]),
        # Entries 1000, 1000 - 333 and 1000 - 666 of the table.
        ("simple", [1.0, shifted(0.667), shifted(0.334), 0.0]),
        # Entries 2, 2 + 333 and 2 + 666.
        ("ddim_uniform", [shifted(0.668), shifted(0.335), shifted(0.002), 0.0]),
    ],
)
def test_three_steps_of_a_schedule_are_the_levels_worked_out_by_hand(schedule: str, expected: list[float]):
    torch.testing.assert_close(sigmas(schedule, 3), torch.tensor(expected), rtol=1e-6, atol=1e-7)


def test_the_beta_schedule_takes_equal_parts_of_the_beta_distribution():
    """Its density is x^-0.4 (1 - x)^-0.4; with x = sin^2 the integral has no poles."""
    entries = [round(1000 * float(level / (3 - 2 * level))) for level in sigmas("beta", 4)[:-1]]
    angles = torch.linspace(0, torch.pi / 2, 200_001, dtype=torch.float64)
    density = (angles.sin() * angles.cos()) ** 0.2
    shares = [
        float(density[angles.sin() ** 2 <= (entry - 1) / 999].sum() / density.sum()) for entry in entries
    ]
    assert shares == pytest.approx([1.0, 0.75, 0.5, 0.25], abs=0.001)


def test_a_ddim_uniform_schedule_has_more_levels_where_steps_do_not_divide_the_table():
    assert [len(sigmas("ddim_uniform", steps)) - 1 for steps in (20, 30, 67)] == [20, 31, 72]


@pytest.mark.parametrize("schedule", SIGMA_SCHEDULES)
def test_levels_fall_strictly_from_at_most_one_to_zero(schedule: str):
    for steps in range(1, 101):
        levels = sigmas(schedule, steps).tolist()
        assert len(levels) == steps + 1 or schedule == "ddim_uniform"
        assert levels[0] <= 1.0
        assert levels[-1] == 0.0
        assert all(higher > lower for higher, lower in pairwise(levels))


@pytest.mark.parametrize(("following", "far"), [(0.04, False), (0.03, True), (0.0, False)])
def test_a_step_is_far_that_is_more_than_twice_the_one_before(following: float, far: bool):
    """In half-log-SNR: log 3, then up to log 24 or log 32, or without end. The limit is at log 27."""
    assert is_far(0.5, 0.25, following) == far
    assert not is_far(1.0, 0.25, following)


def test_an_unknown_schedule_is_refused_with_the_known_ones():
    with pytest.raises(InvalidInput, match="scheduler: linear is not one of normal, karras"):
        sigmas("linear", 3)
