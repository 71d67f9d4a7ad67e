"""The VAEs of one pipeline: the checkpoint's own, and those that requests chose instead."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL

from pipelines.adapters.library import AdapterLibrary
from pipelines.lru import LRUCache

AT_ONCE = 2
"""The number of chosen VAEs that stay on the device beside the checkpoint's own."""


class Vaes:
    """The VAEs of one pipeline, by the name that a request gives.

    A chosen VAE never replaces the checkpoint's own. One that the cache drops frees its memory on the device.
    """

    def __init__(
        self, own: AutoencoderKL, adapters: AdapterLibrary, family: str, device: torch.device
    ) -> None:
        self._own = own
        self._device = device
        self._adapters = adapters
        self._family = family
        self._chosen: LRUCache[str, AutoencoderKL] = LRUCache(AT_ONCE)

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        chosen = {f"vae:{name}": vae for name, vae in self._chosen.items()}
        return {"vae": self._own, **chosen}

    def clear_cache(self) -> None:
        """Drop the chosen VAEs; the next request that names one opens it again."""
        self._chosen.clear()

    def part(self, name: str | None) -> str:
        """The name in ``modules`` of the VAE that a request names; None is the checkpoint's own."""
        return "vae" if name is None else f"vae:{name}"

    def get(self, name: str | None) -> AutoencoderKL:
        """The VAE of that name; None gives the checkpoint's own.

        Raises:
            UnknownAdapter: the VAE is not known or does not fit.
        """
        if name is None:
            return self._own
        return self._chosen.get(name, lambda: self._adapters.vae(name, self._family, self._own, self._device))
