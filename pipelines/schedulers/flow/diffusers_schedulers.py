"""diffusers' noise schedulers for flow matching (SD3), on given noise levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from pipelines.denoising.sampler import Steps
from pipelines.schedulers.flow.sigmas import TRAIN_TIMESTEPS, is_far

_FLOW: dict[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


class FlowScheduler:
    """Mixin for diffusers' schedulers: `set_timesteps` takes its levels from ``given_sigmas``.

    The network's time is the level times 1000, as SD3 was trained; diffusers' multistep schedulers round it.
    """

    given_sigmas: Tensor
    sigmas: Tensor
    timesteps: Tensor
    _begin_index: int | None

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: str | torch.device | None = None
    ) -> None:
        """Start anew on the given levels, whatever ``num_inference_steps`` says."""
        parent: Any = super()
        parent.set_timesteps(len(self.given_sigmas) - 1, device=device)
        self.sigmas = self.given_sigmas.clone()
        self.timesteps = (self.given_sigmas[:-1] * TRAIN_TIMESTEPS).to(device)
        self._begin_index = 0

    def _is_far(self, index: int) -> bool:
        """Whether that step is too long to be extrapolated to from the one before."""
        before, level, following = self.given_sigmas[index - 1 : index + 2].tolist()
        return is_far(before, level, following)


class FlowEuler(FlowScheduler, FlowMatchEulerDiscreteScheduler):
    """Euler's step, x + (sigma_next - sigma) * velocity; for a flow DDIM's deterministic step is the same."""


class FlowLCM(FlowScheduler, FlowMatchLCMScheduler):
    """The predicted picture, noised again to the next level (Luo et al. 2023, algorithm 2)."""


class FlowHeun(FlowScheduler, FlowMatchHeunDiscreteScheduler):
    """Karras et al. 2022, algorithm 1 without noise: two evaluations per step, one in the last."""

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: str | torch.device | None = None
    ) -> None:
        """Start on the given levels.

        Each inner one comes twice: where a step ends, and where the next one starts.
        """
        super().set_timesteps(num_inference_steps, device)
        levels, times = self.sigmas, self.timesteps
        self.sigmas = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
        self.timesteps = torch.cat([times[:1], times[1:].repeat_interleave(2)])


class FlowDPMSolver(FlowScheduler, DPMSolverMultistepScheduler):
    """DPM-Solver++ (Lu et al. 2022, algorithm 2) and its SDE form, second order.

    The half-log-SNR is infinite at levels 1 and 0. Nothing needs mending: the steps from 1 and to 0 are of
    first order, and the second step weighs the slope towards an infinitely far point with zero.
    """

    def multistep_dpm_solver_second_order_update(
        self, model_output_list: list[Tensor], *args: Any, sample: Tensor, **kwargs: Any
    ) -> Tensor:
        index: Any = self.step_index
        if self._is_far(index):
            return self.dpm_solver_first_order_update(model_output_list[-1], sample=sample, **kwargs)
        return super().multistep_dpm_solver_second_order_update(
            model_output_list, *args, sample=sample, **kwargs
        )


class FlowUniPC(FlowScheduler, UniPCMultistepScheduler):
    """UniPC (Zhao et al. 2023), second order, in data prediction."""

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: str | torch.device | None = None
    ) -> None:
        """Start on the given levels, with 1 - 1e-6 for level 1, as in diffusers.

        The corrector needs a finite half-log-SNR.
        """
        super().set_timesteps(num_inference_steps, device)
        self.sigmas = self.sigmas.clamp(max=1 - 1e-6)

    def multistep_uni_p_bh_update(
        self, model_output: Tensor, *args: Any, sample: Tensor, order: int, **kwargs: Any
    ) -> Tensor:
        """Take the predictor's step, of first order where that is asked or the step is too long.

        In first order B(h) only has the factor zero. diffusers multiplies them, and at level 0 B(h) is
        infinite.
        """
        index: Any = self.step_index
        if order > 1 and not self._is_far(index):
            return super().multistep_uni_p_bh_update(
                model_output, *args, sample=sample, order=order, **kwargs
            )
        ratio = self.sigmas[index + 1] / self.sigmas[index]
        predicted: Any = self.model_outputs[-1]
        return (ratio * sample + (1 - ratio) * predicted).to(sample.dtype)


class FlowDEIS(FlowScheduler, DEISMultistepScheduler):
    """DEIS (Zhang and Chen 2022) in log rho, second order; rho = sigma / (1 - sigma).

    At level 1 rho is infinite, at level 0 its logarithm. Both limits exist: an infinitely far point has no
    weight left in the interpolation, and a step of first order is the flow's Euler step.
    """

    def convert_model_output(self, model_output: Tensor, *args: Any, sample: Tensor, **kwargs: Any) -> Tensor:
        self._velocity = model_output
        return super().convert_model_output(model_output, *args, sample=sample, **kwargs)

    def deis_first_order_update(
        self, model_output: Tensor, *args: Any, sample: Tensor, **kwargs: Any
    ) -> Tensor:
        index: Any = self.step_index
        return sample + (self.sigmas[index + 1] - self.sigmas[index]) * self._velocity

    def multistep_deis_second_order_update(
        self, model_output_list: list[Tensor], *args: Any, sample: Tensor, **kwargs: Any
    ) -> Tensor:
        index: Any = self.step_index
        if self.sigmas[index + 1] == 0 or self.sigmas[index - 1] == 1:
            return self.deis_first_order_update(model_output_list[-1], sample=sample)
        return super().multistep_deis_second_order_update(model_output_list, *args, sample=sample, **kwargs)


def _uni_pc(solver_type: Any) -> FlowUniPC:
    """A UniPC scheduler.

    The first step of bh1 spans a half-log-SNR of 14 and is not corrected: B(h) = h is far too large there.
    """
    return FlowUniPC(**_FLOW, solver_type=solver_type, disable_corrector=[0] if solver_type == "bh1" else [])


_SCHEDULERS: dict[str, Callable[[], FlowScheduler]] = {
    "euler": lambda: FlowEuler(),
    "heun": lambda: FlowHeun(),
    "dpmpp_2m": lambda: FlowDPMSolver(**_FLOW, algorithm_type="dpmsolver++"),
    "dpmpp_2m_sde": lambda: FlowDPMSolver(**_FLOW, algorithm_type="sde-dpmsolver++"),
    "dpmpp_2m_sde_gpu": lambda: FlowDPMSolver(**_FLOW, algorithm_type="sde-dpmsolver++"),
    "lcm": lambda: FlowLCM(),
    "deis": lambda: FlowDEIS(**_FLOW),
    "uni_pc": lambda: _uni_pc("bh1"),
    "uni_pc_bh2": lambda: _uni_pc("bh2"),
}
DIFFUSERS_SAMPLERS = tuple(_SCHEDULERS)
"""The samplers that are diffusers' own."""


def noise_scheduler(sampler: str, levels: Tensor) -> FlowScheduler:
    """One of `DIFFUSERS_SAMPLERS` as a fresh diffusers scheduler on the levels of `sigmas.sigmas`.

    A diffusers pipeline can use it as well.
    """
    scheduler = _SCHEDULERS[sampler]()
    scheduler.given_sigmas = levels
    return scheduler


class FlowSampler(Steps):
    """A `noise_scheduler` in the middle of one sample; predictions are SD3's velocities."""

    def __init__(self, scheduler: Any, device: torch.device) -> None:
        """
        Args:
            scheduler: becomes this sampler's own.
        """
        scheduler.set_timesteps(device=device)
        super().__init__(scheduler.timesteps)
        self._scheduler = scheduler
        self._takes_generator = isinstance(scheduler, FlowDPMSolver | FlowLCM)

    def model_input(self, latents: Tensor) -> Tensor:
        return latents

    def step(self, prediction: Tensor, latents: Tensor, generator: torch.Generator) -> Tensor:
        noise = {"generator": generator} if self._takes_generator else {}
        stepped = self._scheduler.step(prediction, self.timestep, latents, return_dict=False, **noise)[0]
        self._position += 1
        return stepped
