"""``python -m tests.benchmarks.host_memory``: decode with memory reused and given back."""

from __future__ import annotations

import multiprocessing
import time

import torch

from pipelines.demo.checkpoints.autoencoder import large_autoencoder
from pipelines.engine.host_memory import reuse_freed_memory

SIDE = 1024
"""The width and height of the pictures, in pixels."""
PICTURES = 5


@torch.no_grad()
def seconds(reused: bool) -> float:
    """The CPU's seconds for a picture, in a process that has not chosen how to free memory yet."""
    if reused:
        reuse_freed_memory()
    torch.set_num_threads(1)
    vae, latents = large_autoencoder(), torch.randn(1, 4, SIDE // 32, SIDE // 32)
    vae.decode(latents)
    began = time.process_time()
    for _ in range(PICTURES):
        vae.decode(latents)
    return (time.process_time() - began) / PICTURES


def main() -> None:
    fresh = multiprocessing.get_context("spawn")
    with fresh.Pool(1, maxtasksperchild=1) as processes:
        given_back, reused = processes.map(seconds, (False, True), chunksize=1)
    print(f"given back {given_back:.2f} s, reused {reused:.2f} s of a core: x{given_back / reused:.1f}")


if __name__ == "__main__":
    main()
