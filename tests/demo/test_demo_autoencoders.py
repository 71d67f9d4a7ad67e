"""The autoencoders that are made of another one."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL

from pipelines.demo.checkpoints.autoencoder import (
    large_autoencoder,
    trained_autoencoder,
    with_sixteen_channels,
)
from pipelines.demo.training.recipes.pictures import crops


@pytest.mark.parametrize("made", [trained_autoencoder, large_autoencoder])
@torch.no_grad()
def test_sixteen_channels_say_what_four_say(made: type[AutoencoderKL]) -> None:
    plain = made()
    wide = with_sixteen_channels(plain)
    pictures = crops(3, 2, 192, smallest=192, largest=384)
    four, sixteen = (vae.encode(pictures).latent_dist.mean for vae in (plain, wide))
    assert sixteen.shape[1] == 16
    assert sixteen.std().item() == pytest.approx(four.std().item(), rel=0.05)
    assert torch.allclose(wide.decode(sixteen).sample, plain.decode(four).sample, atol=1e-4)
