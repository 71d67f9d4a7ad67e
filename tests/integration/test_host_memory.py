"""Large tensors, one after another, in the same memory."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

COUNT, SIZE = 40, 2**25
FAULTS = f"""
import resource, sys
from pipelines.engine.host_memory import reuse_freed_memory
if "reused" in sys.argv:
    reuse_freed_memory()
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({COUNT}):
    torch.ones({SIZE}, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Pages that the system had to find for a number of tensors."""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library cannot be told")
def test_memory_of_freed_tensors_is_reused() -> None:
    given_back, reused = (
        int(subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, check=True).stdout)
        for word in ("given back", "reused")
    )
    assert reused < given_back / 2
