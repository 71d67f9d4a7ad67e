"""Token merging (Bolya and Hoffman 2023): fewer tokens in the widest self-attentions, by a patch."""

from __future__ import annotations

import tomesd
import torch

from pipelines.errors import InvalidInput

MAX_RATIO = 0.75
"""The largest ratio of merged tokens: one token of each two by two is always kept."""


class TokenMerging:
    """The patch of one UNet, switched between groups.

    The tokens alone decide which of them merge, never chance, so that no picture depends on others.

    Args:
        max_downsample: attentions at latents reduced by this factor, and by smaller ones, are patched.
    """

    def __init__(self, unet: torch.nn.Module, *, max_downsample: int) -> None:
        self._unet = unet
        self._max_downsample = max_downsample
        self._ratio = 0.0

    def use(self, ratio: float) -> None:
        """Merge this part of the tokens; 0 takes the patch off. Cheap when the ratio is the same as before.

        Raises:
            InvalidInput: the ratio is below 0 or above `MAX_RATIO`.
        """
        if ratio == self._ratio:
            return
        check_ratio(ratio)
        tomesd.remove_patch(self._unet)
        if ratio > 0:
            tomesd.apply_patch(self._unet, ratio=ratio, max_downsample=self._max_downsample, use_rand=False)
        self._ratio = ratio


def check_ratio(ratio: float) -> None:
    """Refuse ratios that cannot be merged.

    Raises:
        InvalidInput: the ratio is below 0 or above `MAX_RATIO`.
    """
    if not 0 <= ratio <= MAX_RATIO:
        raise InvalidInput("token_merging_ratio", f"must be between 0 and {MAX_RATIO}")
