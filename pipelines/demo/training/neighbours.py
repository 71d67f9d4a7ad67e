"""How transformers begin that have to draw what stands in neighbouring patches."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import torch

SHARPNESS = 6.0
"""Of the first attention: nearly all of it stays within one patch of where it looks."""
_FREQUENCIES = 8
"""The highest of the position embedding, of each axis; their sines and cosines fill a head of 32."""
_SEEN = 32
"""Latents a side of a picture."""
_WAYS = (
    ((1, 0), (-1, 0), (0, 0)),
    ((0, 1), (0, -1), (0, 0)),
    ((1, 1), (-1, -1), (0, 0)),
    ((1, -1), (-1, 1), (0, 0)),
)
"""Where three heads of each block look, block by block; a fourth one is left to find what is said."""


@torch.no_grad()
def look_around(network: Any) -> None:
    """Begin with heads that look at the patches around each patch, whatever they show, in place.

    Attention finds out from many pictures that what is next to each other belongs together; convolutions know
    it, and so do heads whose queries are their own positions, moved (d'Ascoli et al. 2021, "ConViT").

    Args:
        network: SD3's transformer or ControlNet, with heads of 32; positions of patches are whole numbers.
    """
    width = network.pos_embed.proj.out_channels
    half, frequencies = width // 2, width // 4
    # By axis and frequency: where the sine and the cosine of a position stand, and how fast they turn.
    waves = [
        (axis * half + wave, axis * half + frequencies + wave, axis, 10_000 ** (-wave / frequencies))
        for axis in range(2)
        for wave in range(_FREQUENCIES)
    ]
    used = [place for sine, cosine, _, _ in waves for place in (sine, cosine)]
    # Positions are read where nothing else is written.
    network.pos_embed.proj.weight[used] = 0
    network.pos_embed.proj.bias[used] = 0
    # Normalisation takes the mean off: what is left of it in waves would draw queries to one corner.
    seen = network.pos_embed(torch.randn(1, network.config.in_channels, _SEEN, _SEEN))[0]
    missing = -(seen.mean(-1) / seen.std(-1)).mean()
    for block, ways in zip(network.transformer_blocks, cycle(_WAYS)):
        query, key = block.attn.to_q, block.attn.to_k
        for head, way in enumerate(ways):
            rows = slice(2 * len(waves) * head, 2 * len(waves) * (head + 1))
            query.weight[rows] = key.weight[rows] = 0
            for row, (sine, cosine, axis, speed) in enumerate(waves):
                first = rows.start + 2 * row
                turn = torch.tensor(speed * way[axis])
                moved = SHARPNESS * torch.stack([turn.cos(), turn.sin(), -turn.sin(), turn.cos()])
                query.weight[first, [sine, cosine]] = moved[:2]
                query.weight[first + 1, [sine, cosine]] = moved[2:]
                key.weight[first, sine] = key.weight[first + 1, cosine] = 1
            for layer in (query, key):
                layer.bias[rows] = -missing * layer.weight[rows].sum(1)
