"""The family of a file whose tensors do not tell it, by the names that it has."""

from __future__ import annotations

import pytest

from server.loading.incoming import family_by_words


@pytest.mark.parametrize(
    "text",
    [
        "https://host/sdxl_vae.safetensors", "https://host/a/SDXL-VAE.safetensors", "my-xl-vae", "sd xl",
        "https://host/vae%20XL.safetensors", "xl_vae_v1", "vae_XL", "sd_xl_base",
    ],
)  # fmt: skip
def test_a_name_that_speaks_of_xl_is_for_sdxl(text: str) -> None:
    assert family_by_words("it", text) == "sdxl"
    assert family_by_words(text, "https://host/file") == "sdxl"


@pytest.mark.parametrize(
    "text", ["vae-ft-mse-840000", "https://host/axle.safetensors", "pixlvae", "kl-f8-anime2", "exl2", ""]
)
def test_another_name_is_for_sd15(text: str) -> None:
    assert family_by_words("it", text) == "sd15"
