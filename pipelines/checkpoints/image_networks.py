"""Networks from pictures to pictures. spandrel knows their architectures, and tells one by its tensors."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.errors import GenerationError, UnusableCheckpoint, is_out_of_memory

log = logging.getLogger(__name__)

ImageNetwork = ImageModelDescriptor[torch.nn.Module]


def open_network(checkpoint: Checkpoint, part: str, purpose: Literal["SR", "FaceSR"]) -> ImageNetwork:
    """Open a part that is one file of tensors, on the checkpoint's device.

    The network has the checkpoint's type, or fp32 where its architecture cannot do that.

    Raises:
        CheckpointUnavailable: the file is missing or damaged.
        UnusableCheckpoint: it is no network of this purpose for coloured pictures.
    """
    try:
        network = ModelLoader(checkpoint.place).load_from_state_dict(checkpoint.tensors(part))
    except UnsupportedModelError as error:
        raise UnusableCheckpoint(f"{checkpoint.name} is of no architecture that spandrel knows") from error
    except Exception as error:  # of an architecture that spandrel takes it for, and is not
        if isinstance(error, GenerationError | torch.AcceleratorError) or is_out_of_memory(error):
            raise
        log.exception("%s cannot be opened", checkpoint.name)
        raise UnusableCheckpoint(f"{checkpoint.name} is no whole network that spandrel knows") from error
    colours = (network.input_channels, network.output_channels)
    if not isinstance(network, ImageModelDescriptor) or network.purpose != purpose or colours != (3, 3):
        does = "enlarge coloured pictures" if purpose == "SR" else "restore faces"
        raise UnusableCheckpoint(f"{checkpoint.name} does not {does}")
    halves = {torch.float16: network.supports_half, torch.bfloat16: network.supports_bfloat16}
    dtype = checkpoint.dtype if halves.get(checkpoint.dtype, True) else torch.float32
    return network.to(checkpoint.place, dtype).eval()
