"""LMSDiscreteScheduler that may be entered in the middle of its schedule."""

from __future__ import annotations

from typing import Any

import diffusers
from torch import Tensor


class LMS(diffusers.LMSDiscreteScheduler):
    """diffusers' own scheduler, whose order is never above the number of slopes that it has seen.

    diffusers takes the order from the place in the schedule: where image to image begins, that asks for up to
    four slopes of which there is one, and the missing ones count as zero.
    """

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        order: int = 4,
        return_dict: bool = False,
    ) -> Any:
        seen = len(self.derivatives) + 1
        return super().step(model_output, timestep, sample, order=min(order, seen), return_dict=return_dict)
