"""Which tests a run takes, and what it says when it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest on a machine without a GPU."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    without_gpu = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, env=without_gpu, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("arguments", [("-m", "gpu"), ("-m", "slow or gpu", "tests/gpu")], ids=" ".join)
def test_asking_for_gpu_tests_without_a_gpu_fails_with_one_line(arguments: tuple[str, ...]) -> None:
    ended = run(*arguments)
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    said = f"{ended.stdout}{ended.stderr}".strip()
    assert said == "ERROR: tests marked gpu need a CUDA device, and torch sees none here"


def collected(*arguments: str) -> set[str]:
    listed = run("--collect-only", "-q", "-n0", *arguments, "tests/gpu", "tests/numerics").stdout
    return {line for line in listed.splitlines() if "::" in line}


def test_what_the_plain_command_leaves_out_is_slow_or_needs_a_gpu() -> None:
    plain, slow, every = collected(), collected("-m", "slow"), collected("-m", "")
    assert plain
    assert slow
    assert not plain & slow
    assert {name.partition("::")[0] for name in every - plain - slow} == {"tests/gpu/test_full_size.py"}
