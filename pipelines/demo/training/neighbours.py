"""Initial weights for transformers that have to draw across neighbouring patches."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import torch

SHARPNESS = 6.0
"""The scale of the first attention, nearly all of which stays within one patch of its target."""
_FREQUENCIES = 8
"""The number of frequencies, for each axis, whose sines and cosines fill a head of 32."""
_SEEN = 32
"""The latents a side of a picture."""
_WAYS = (
    ((1, 0), (-1, 0), (0, 0)),
    ((0, 1), (0, -1), (0, 0)),
    ((1, 1), (-1, -1), (0, 0)),
    ((1, -1), (-1, 1), (0, 0)),
)
"""The directions of three heads, block by block; a fourth head is left to read the text."""


@torch.no_grad()
def look_around(network: Any) -> None:
    """Initialise heads to look at the patches around each patch, whatever they show, in place.

    Attention needs many pictures to find out that neighbours belong together. Convolutions know it, and so
    do heads whose queries are their own positions, moved (d'Ascoli et al. 2021, "ConViT").

    Args:
        network: SD3's transformer or ControlNet, with heads of 32 and whole numbers as patches' positions.
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
