"""A small face restorer of RestoreFormer's architecture; it draws texture in place of faces."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from spandrel.architectures.RestoreFormer import RestoreFormer

from pipelines.demo.checkpoints.parts import fill


def build(folder: Path) -> None:
    """Write ``face_restorer.safetensors`` under ``folder``."""
    network = RestoreFormer(
        n_embed=16, embed_dim=32, z_channels=32, ch=32, ch_mult=(1,) * 6, num_res_blocks=1
    )
    fill(network, 52)
    save_file(network.state_dict(), folder / "face_restorer.safetensors")
