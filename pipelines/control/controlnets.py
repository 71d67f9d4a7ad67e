"""ControlNets (Zhang et al. 2023): networks that steer a checkpoint by control images, several at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ControlNetModel
from torch import Tensor

from pipelines.adapters.library import AdapterLibrary
from pipelines.control.inpaint_guide import INPAINT, inpaint_guide
from pipelines.control.preprocessors import Preprocessors
from pipelines.denoising.blame import blaming
from pipelines.denoising.evaluation import Rows
from pipelines.denoising.needs import Parts
from pipelines.denoising.sample import Conditioning
from pipelines.errors import InvalidInput
from pipelines.group import GroupKey
from pipelines.images import codec
from pipelines.layers.panorama import Views
from pipelines.lru import LRUCache
from pipelines.request import Control, Prompted

AT_ONCE = 4
"""The number of ControlNets that stay on the device beside one checkpoint."""

_CONTROL_IMAGE, _SCALES, _STEERED = "control_image:", "control_scales:", "steered"
"""Names in a conditioning. The first two end with a ControlNet's name: its control image (1, 3, H, W), or
(V, 3, h, w) in the views of a panorama, and the scales of its n outputs (1, n). The third says whether the
ControlNets steer the row at all, (1,) on the CPU."""


class ControlNets:
    """The ControlNets that requests chose for one checkpoint.

    A sample carries its control images and scales in its conditioning; the networks' names are part of its
    key. A network that the cache drops frees its memory on the device.
    """

    def __init__(
        self,
        unet: Any,
        adapters: AdapterLibrary,
        family: str,
        pixels_per_latent: int,
        device: torch.device,
    ) -> None:
        self._unet = unet
        self._pixels_per_latent = pixels_per_latent
        self._adapters = adapters
        self._family = family
        self._device = device
        self._preprocessors = Preprocessors(adapters, device)
        self._opened: LRUCache[str, ControlNetModel] = LRUCache(AT_ONCE)

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The networks that are on the device now."""
        networks = {f"controlnet:{name}": network for name, network in self._opened.items()}
        return {**networks, **self._preprocessors.modules}

    def clear_cache(self) -> None:
        """Drop all networks; the next request that names one opens it again."""
        self._opened.clear()
        self._preprocessors.clear_cache()

    def parts(self, request: Prompted) -> Parts:
        """The names of the networks that the request's steps evaluate."""
        return frozenset(f"controlnet:{control.name}" for control in request.controls)

    def preparing_parts(self, request: Prompted) -> Parts:
        """The names of the opened networks that make the request's control images."""
        prefixes = tuple(f"preprocessor:{control.preprocessor}:" for control in request.controls)
        return frozenset(name for name in self._preprocessors.modules if name.startswith(prefixes))

    def conditioning(self, request: Prompted, key: GroupKey) -> Conditioning:
        """The control images and scales of a request, for `residuals`; empty without controls.

        Guess mode steers only the half with the prompt, and less in the shallow layers (diffusers'
        ``guess_mode``).

        Raises:
            UnknownAdapter: no such ControlNet, or it does not fit.
            InvalidInput: a ControlNet is named twice, or its control image cannot be prepared.
        """
        if not request.controls:
            return Conditioning.same_for_both({})
        names = [control.name for control in request.controls]
        if len(set(names)) < len(names):
            raise InvalidInput("controls", "a ControlNet is named twice")
        shared: dict[str, Rows] = {}
        guess = request.guess_mode
        for control in request.controls:
            network = self._network(control.name)
            config: Any = network.config
            guess = guess or config.global_pool_conditions
            whole = self._control_image(request, control, key).to(self._device, self._unet.dtype)
            shared[_CONTROL_IMAGE + control.name] = self._in_views(whole) if request.panorama else whole
            count = len(network.controlnet_down_blocks) + 1
            scales = torch.full((count,), control.scale)
            if request.guess_mode and not config.global_pool_conditions:
                scales = torch.logspace(-1, 0, count) * control.scale
            shared[_SCALES + control.name] = scales[None].to(self._device)
        return Conditioning(
            {**shared, _STEERED: torch.tensor([True])}, {**shared, _STEERED: torch.tensor([not guess])}
        )

    def residuals(
        self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """The ControlNets' additions to the network's own layers, as arguments of the network.

        Args:
            latents, timesteps, conditioning: as for `pipelines.denoising.sample.Denoiser`, N rows.
        """
        names = [
            name.removeprefix(_CONTROL_IMAGE) for name in conditioning if name.startswith(_CONTROL_IMAGE)
        ]
        if not names:
            return {}
        steered = conditioning[_STEERED].nonzero()[:, 0]
        count = len(latents)
        every = len(steered) == count
        if not every:
            latents, timesteps = latents[steered], timesteps[steered]
            conditioning = {name: rows[steered] for name, rows in conditioning.items()}
        total: list[Tensor] | None = None
        for name in names if len(steered) else []:
            parts = self._evaluate(name, latents, timesteps, conditioning)
            total = parts if total is None else [sum_ + part for sum_, part in zip(total, parts, strict=True)]
        if total is None:
            return {}
        if not every:
            total = [_among_zeros(part, steered, count) for part in total]
        return {
            "down_block_additional_residuals": tuple(total[:-1]),
            "mid_block_additional_residual": total[-1],
        }

    def _control_image(self, request: Prompted, control: Control, key: GroupKey) -> Tensor:
        """(1, 3, H, W) in 0 .. 1; for inpainting also -1."""
        if control.preprocessor == INPAINT:
            return inpaint_guide(request, key.height, key.width)
        image = self._preprocessors.prepare(control.image, control.preprocessor)
        return codec.control_tensor(image, key.height, key.width)

    def _in_views(self, control_image: Tensor) -> Views:
        return Views(control_image, self._unet.config.sample_size, self._pixels_per_latent)

    def _network(self, name: str) -> ControlNetModel:
        return self._opened.get(
            name,
            lambda: self._adapters.controlnet(
                name, self._family, self._unet, self._pixels_per_latent, self._device
            ),
        )

    def _evaluate(
        self, name: str, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> list[Tensor]:
        """The scaled outputs of one ControlNet: those of its way down, then that of its middle.

        Raises:
            UnknownAdapter: it wants to see something else than this checkpoint gives.
        """
        size = ("text_embeds", "time_ids")
        with blaming("controls", [name]):
            down, middle = self._network(name)(
                latents,
                timesteps,
                encoder_hidden_states=conditioning["encoder_hidden_states"],
                controlnet_cond=conditioning[_CONTROL_IMAGE + name],
                added_cond_kwargs={part: conditioning[part] for part in size if part in conditioning} or None,
                return_dict=False,
            )
        scales = conditioning[_SCALES + name].to(latents.dtype)
        return [part * scales[:, index, None, None, None] for index, part in enumerate((*down, middle))]


def _among_zeros(part: Tensor, rows: Tensor, count: int) -> Tensor:
    """``part`` in these rows of ``count``, zero in the others."""
    whole = part.new_zeros((count, *part.shape[1:]))
    whole[rows] = part
    return whole
