"""What heads of SD3's small transformer look at before it has learned anything."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from pipelines.demo.checkpoints import sd3
from pipelines.demo.training.neighbours import look_around

SIDE = 16
"""The patches on each side of a picture."""
MIDDLE = SIDE // 2


def attention(block: int, head: int) -> Tensor:
    """(patches, patches) of a network that begins so, for patches that show noise."""
    torch.manual_seed(1)
    network = sd3.transformer()
    look_around(network)
    with torch.no_grad():
        seen = network.pos_embed(torch.randn(1, 16, 2 * SIDE, 2 * SIDE))[0]
        attention = network.transformer_blocks[block].attn
        normal = layer_norm(seen, seen.shape[-1:])
        rows = slice(32 * head, 32 * (head + 1))
        queries, keys = attention.to_q(normal)[:, rows], attention.to_k(normal)[:, rows]
        return (queries @ keys.T / 32**0.5).softmax(-1)


@pytest.mark.parametrize(
    ("block", "head", "across", "down"),
    [(0, 0, 1, 0), (0, 1, -1, 0), (0, 2, 0, 0), (1, 0, 0, 1), (2, 1, -1, -1), (4, 0, 1, 0)],
)
def test_heads_look_at_the_patch_beside_each_patch(block: int, head: int, across: int, down: int) -> None:
    looked_at = attention(block, head)[MIDDLE * SIDE + MIDDLE].reshape(SIDE, SIDE)
    places = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij"))
    rows, columns = (looked_at * places).sum((1, 2)).tolist()
    assert (rows - MIDDLE, columns - MIDDLE) == pytest.approx((down, across), abs=0.5)
    near = looked_at[MIDDLE + down - 1 : MIDDLE + down + 2, MIDDLE + across - 1 : MIDDLE + across + 2]
    assert near.sum() > 0.8


def test_one_head_is_left_to_read_what_is_said() -> None:
    assert attention(0, 3).max() < 0.2
