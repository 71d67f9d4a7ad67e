"""Half precision on a device apart from the CPU, as on a GPU: types stay, and nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from pipelines.images import codec
from pipelines.weights.manifest import Manifest
from tests.tiny.draw_far_away import sample, samplers

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_latents_stay_in_half_precision_with_every_noise_scheduler(dtype: torch.dtype) -> None:
    assert [name for name, sampler in samplers(CPU).items() if not sample(sampler, CPU, dtype)] == []


@pytest.fixture(scope="module")
def drawn_far_away(random_manifest: Manifest) -> dict[str, dict[str, list[str]]]:
    """What `draw_far_away` reports; a process of its own, because torch cannot forget a backend."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.tiny.draw_far_away", random_manifest.path],
        cwd=ROOT,
        # transformers would read adapters in threads, which a pretended device does not reach.
        env={**os.environ, "HF_DEACTIVATE_ASYNC_LOAD": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_every_family_draws_on_a_device_apart_and_again_after_a_stay_in_host_memory(
    drawn_far_away: dict[str, dict[str, list[str]]],
) -> None:
    assert len(drawn_far_away) == 13
    assert {name: found["failed"] for name, found in drawn_far_away.items() if found["failed"]} == {}


@pytest.mark.slow
def test_no_latents_change_their_type_while_they_are_drawn(
    drawn_far_away: dict[str, dict[str, list[str]]],
) -> None:
    assert {name: found["types"] for name, found in drawn_far_away.items() if found["types"]} == {}


def test_no_step_waits_for_the_device(drawn_far_away: dict[str, dict[str, list[str]]]) -> None:
    assert {name: found["waits"] for name, found in drawn_far_away.items() if found["waits"]} == {}


def test_a_vae_that_overflows_half_precision_decodes_in_full_and_is_half_again() -> None:
    torch.manual_seed(1)
    vae = AutoencoderKL(
        block_out_channels=(8,), norm_num_groups=4, scaling_factor=0.13025, force_upcast=True
    ).half()
    latents = torch.randn(1, 4, 8, 8).half()
    with torch.no_grad():
        decoded = codec.decode(vae, latents, upcast=True)
        assert {parameter.dtype for parameter in vae.parameters()} == {torch.float16}
        in_full = vae.float().decode(latents.float() / 0.13025, return_dict=False)[0]
    assert torch.equal(decoded, in_full)
