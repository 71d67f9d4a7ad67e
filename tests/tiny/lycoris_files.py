"""LoHa and LoKr files in kohya's layout for the small SD1.5 checkpoint, strong enough to be seen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.drawing import seeded

Parts = dict[str, Tensor]


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed)) / shape[-1] ** 0.5


def hadamard(out: int, into: int, rank: int, seed: int) -> Parts:
    shapes = {"hada_w1_a": (out, rank), "hada_w1_b": (rank, into)}
    shapes |= {"hada_w2_a": (out, rank), "hada_w2_b": (rank, into)}
    return {name: numbers(*shape, seed=seed + at) for at, (name, shape) in enumerate(shapes.items())}


def kronecker(out: int, into: int, rank: int, seed: int) -> Parts:
    """The first factor is 2 x 4."""
    return {
        "lokr_w1": numbers(2, 4, seed=seed),
        "lokr_w2_a": numbers(out // 2, rank, seed=seed + 1),
        "lokr_w2_b": numbers(rank, into // 4, seed=seed + 2),
    }


def targets(plain: Any) -> list[tuple[str, Any]]:
    """kohya's name -> layer: attentions, a convolution and the text encoder."""
    unet = [("lora_unet_", *found) for found in plain.unet.named_modules()]
    text = [("lora_te_text_model_", *found) for found in plain.text_encoder.named_modules()]
    return [
        (prefix + name.replace(".", "_"), layer)
        for prefix, name, layer in [*unet, *text]
        if name.endswith(("to_q", "to_out.0", "resnets.0.conv1", "proj_in", "fc1"))
    ]


def files(plain: Any) -> dict[str, dict[str, Tensor]]:
    made: dict[str, dict[str, Tensor]] = {"loha": {}, "lokr": {}}
    for at, (name, layer) in enumerate(targets(plain)):
        out, into = layer.weight.shape[0], layer.weight[0].numel()
        for kind, make in (("loha", hadamard), ("lokr", kronecker)):
            parts = {**make(out, into, 2, seed=100 * at), "alpha": torch.tensor(2.0)}
            # Strong enough to be seen: products of four random matrices are small.
            parts = {part: tensor * (1 if part == "alpha" else 1.5) for part, tensor in parts.items()}
            made[kind] |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    return made
