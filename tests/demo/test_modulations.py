"""What modulations hear is kept, whatever they would have done with the rest."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from pipelines.demo.checkpoints.modulations import DIRECTIONS, lengthened, shortened


def test_what_is_heard_is_answered_as_before_in_fewer_numbers() -> None:
    random = torch.Generator().manual_seed(1)
    heard = (
        torch.randn(500, DIRECTIONS, generator=random) @ torch.randn(DIRECTIONS, 128, generator=random) + 1
    )
    tensors = {
        "norm1.linear.weight": torch.randn(256, 128, generator=random),
        "norm1.linear.bias": torch.randn(256, generator=random),
        "ff.weight": torch.randn(8, 8, generator=random),
    }
    short = shortened(tensors, heard)
    assert sum(each.numel() for each in short.values()) < 0.6 * sum(each.numel() for each in tensors.values())
    again = lengthened(short)
    assert again.keys() == tensors.keys()
    assert torch.equal(again["ff.weight"], tensors["ff.weight"])
    before, after = (
        linear(heard, each["norm1.linear.weight"], each["norm1.linear.bias"]) for each in (tensors, again)
    )
    assert torch.allclose(before, after, atol=1e-2 * before.std().item())
