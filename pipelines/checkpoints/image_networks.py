"""Networks from pictures to pictures, of every architecture that spandrel knows; their tensors say which."""

from __future__ import annotations

from typing import Literal

import torch
from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.errors import CheckpointUnavailable

ImageNetwork = ImageModelDescriptor[torch.nn.Module]


def open_network(checkpoint: Checkpoint, part: str, purpose: Literal["SR", "FaceSR"]) -> ImageNetwork:
    """Open a part that is one file of tensors, on the checkpoint's device.

    The network has the checkpoint's type, or fp32 where its architecture cannot do that.

    Raises:
        CheckpointUnavailable: the file is missing or damaged, or no network of this purpose for coloured
            pictures.
    """
    try:
        network = ModelLoader(checkpoint.device).load_from_state_dict(checkpoint.tensors(part))
    except UnsupportedModelError as error:
        raise CheckpointUnavailable(f"{checkpoint.name} is of no architecture that spandrel knows") from error
    colours = (network.input_channels, network.output_channels)
    if not isinstance(network, ImageModelDescriptor) or network.purpose != purpose or colours != (3, 3):
        does = "enlarge coloured pictures" if purpose == "SR" else "restore faces"
        raise CheckpointUnavailable(f"{checkpoint.name} does not {does}")
    halves = {torch.float16: network.supports_half, torch.bfloat16: network.supports_bfloat16}
    dtype = checkpoint.dtype if halves.get(checkpoint.dtype, True) else torch.float32
    return network.to(checkpoint.device, dtype).eval()
