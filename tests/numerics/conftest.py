"""The selection of the samplers' proofs that wait for the slow run."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
QUICK = (
    "converges_to_the_exact_picture_with_its_order[KDPM2Discrete",
    "reproduces_mean_and_covariance[KDPM2AncestralDiscreteScheduler-None0",
)
"""Cases of KDPM2 in the quick run: each of its two schedulers on one spacing, for noise and for v.

diffusers interpolates KDPM2's sigmas slowly: half a second for each scheduler that is made.
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE and "KDPM2" in item.name and not any(case in item.name for case in QUICK):
            item.add_marker(pytest.mark.slow)
