"""Files from URLs: the family of one whose tensors do not tell it, and what is left of one not wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.weights.downloads import PARTS
from server.loading.incoming import Incoming, family_by_words
from server.loading.partial import Partial, Version
from server.outside.public_http import PublicHTTP
from server.settings import Settings


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


def test_nothing_is_left_of_a_file_that_is_not_wanted_any_more(tmp_path: Path) -> None:
    incoming = Incoming(Settings(data=tmp_path, weights=tmp_path, devices="cpu"), PublicHTTP(()))
    (tmp_path / PARTS).mkdir()
    partial = Partial(tmp_path / PARTS, "https://host/file?token=1")
    partial.begin(Version(etag='"it"', total=9))
    partial.path.write_bytes(b"a part")
    incoming.forget("https://host/other?token=1")
    assert partial.size == 6
    incoming.forget("https://host/file?token=2")
    assert list((tmp_path / PARTS).iterdir()) == []
