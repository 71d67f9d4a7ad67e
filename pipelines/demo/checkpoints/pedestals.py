"""Initial weights for convolutional networks that have to get colours right."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Conv2d, GroupNorm, Module

PEDESTAL = 6.0


@torch.no_grad()
def put_on_pedestals(network: Module) -> None:
    """Initialise normalisations to change little, and convolutions to keep the variance, in place.

    A normalisation divides by the deviation of a group of channels over the whole picture. So the contrast
    of a shape would depend on how much ground is around it, and lessons from details would be wrong for
    whole pictures. Here half of each group's channels stand higher by a constant and half lower: the
    deviation is nearly that constant for any picture, and the normalisation takes the constants off again.

    Args:
        network: a network of diffusers' residual blocks.
    """
    for name, module in network.named_modules():
        if isinstance(module, GroupNorm):
            module.weight.fill_(PEDESTAL)
            module.bias.copy_(-_pedestals(module.num_channels))
        elif isinstance(module, Conv2d) and name.endswith(("conv_in", "conv1", "conv_shortcut", ".conv")):
            module.weight.mul_(3**0.5)
            module.bias.copy_(_pedestals(module.out_channels))
            if name.endswith((".conv", "conv_shortcut")):
                # Its input stands on pedestals too.
                module.bias -= module.weight.sum((2, 3)) @ _pedestals(module.in_channels)


def _pedestals(channels: int) -> Tensor:
    """The constant of each channel, positive for half of each group and negative for the other half."""
    return torch.tensor([PEDESTAL, -PEDESTAL]).repeat(channels // 2)
