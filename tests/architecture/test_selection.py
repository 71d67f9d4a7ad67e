"""The tests that a run takes, and what it says when it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("wanted", ["gpu", "slow or gpu"])
def test_asking_for_gpu_tests_without_a_gpu_fails_with_one_line(wanted: str) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", wanted, "tests/gpu"]
    without_gpu = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(command, cwd=ROOT, env=without_gpu, capture_output=True, text=True, timeout=120)
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    said = f"{ended.stdout}{ended.stderr}".strip()
    assert said == "ERROR: tests marked gpu need a CUDA device, and torch sees none here"


def test_what_the_plain_command_leaves_out_is_run_after_it_but_for_the_gpu(
    pytestconfig: pytest.Config,
) -> None:
    own = {line.partition(":")[0] for line in pytestconfig.getini("markers")} & {"gpu", "slow"}
    assert own == {"gpu", "slow"}
    options = pytestconfig.getini("addopts")
    assert options[options.index("-m") + 1] == "not gpu and not slow"
    commands = (ROOT / ".ci/run").read_text().splitlines()
    assert commands.index('eval "$test_command"') < commands.index("pytest -m slow")
