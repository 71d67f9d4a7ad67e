# pyright: basic
# (diffusers' pipelines carry their components untyped.)
"""LoRAs on the networks of one pipeline: exactly those of the request or group whose turn it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipelines.adapters import AdapterLibrary
from pipelines.errors import InvalidInput, UnknownAdapter
from pipelines.request import Lora

KEPT_BYTES = 512 * 1024**2
"""LoRAs of so many bytes together stay in the networks, switched off: switching one on again takes 10 ms,
inserting its layers anew 190, and groups of different ones can alternate."""

_TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


class AttachedLoras:
    """Puts LoRAs on the networks of a diffusers pipeline and takes them off again.

    A network with its LoRAs switched off computes the very numbers of one that never had any.
    """

    def __init__(self, pipeline: Any, adapters: AdapterLibrary, family: str) -> None:
        self._pipeline = pipeline
        self._adapters = adapters
        self._family = family
        self._layers: dict[str, str] = {}
        self._inserted: dict[str, torch.nn.ParameterList] = {}
        self._next = 0
        self._active: tuple[Lora, ...] = ()

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """What the LoRAs that are kept, on or off, add to the networks."""
        return {f"lora:{name}": added for name, added in self._inserted.items()}

    def use(self, loras: tuple[Lora, ...]) -> None:
        """Have exactly these on the networks; nothing to do when they are.

        Raises:
            UnknownAdapter: one of them is not known or does not fit; then none is on.
            InvalidInput: one of them is named twice.
        """
        if loras == self._active:
            return
        names = [lora.name for lora in loras]
        if len(set(names)) < len(names):
            raise InvalidInput("loras", "a LoRA is named twice")
        try:
            self._switch(loras)
        except Exception:
            self._remove_all()
            raise
        self._active = loras

    def forget(self) -> None:
        """Take every LoRA off; the next `use` reads and inserts again what it needs."""
        if self._layers:
            self._remove_all()

    def _switch(self, loras: tuple[Lora, ...]) -> None:
        if not loras:
            self._pipeline.disable_lora()
            return
        missing = {lora.name for lora in loras} - self._layers.keys()
        coming = sum(self._adapters.lora(name, self._family).nbytes for name in missing)
        kept = sum(tensor.nbytes for added in self._inserted.values() for tensor in added)
        if missing and kept + coming > KEPT_BYTES:
            self._remove_all()
        for lora in loras:
            if lora.name not in self._layers:
                self._insert(lora.name)
        self._pipeline.enable_lora()
        self._pipeline.set_adapters(
            [self._layers[lora.name] for lora in loras], [lora.scale for lora in loras]
        )

    def _insert(self, name: str) -> None:
        """Add the layers of one more LoRA to the networks, under a name that PEFT accepts."""
        file = self._adapters.lora(name, self._family)
        layers = f"lora{self._next}"
        self._next += 1
        pipeline = self._pipeline
        try:
            tensors, alphas = pipeline.lora_state_dict(dict(file.tensors), unet_config=pipeline.unet.config)
            tensors = {key: _shaped(pipeline, key, tensor) for key, tensor in tensors.items()}
            self._load(layers, tensors, alphas, _peft_options(file.metadata.get("lora_adapter_metadata")))
            fits = any(layers in present for present in pipeline.get_list_adapters().values())
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except (RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise UnknownAdapter("loras", f"{name} does not fit this checkpoint") from error
        if not fits:
            raise UnknownAdapter("loras", f"{name} does not fit this checkpoint")
        self._layers[name] = layers
        self._inserted[name] = torch.nn.ParameterList(self._added(layers))

    def _load(self, layers: str, tensors: Any, alphas: Any, options: dict[str, Any] | None) -> None:
        pipeline = self._pipeline
        pipeline.load_lora_into_unet(
            tensors, alphas, pipeline.unet, adapter_name=layers, metadata=options, low_cpu_mem_usage=True
        )
        for part in _TEXT_ENCODERS:
            if any(key.startswith(f"{part}.") for key in tensors):
                pipeline.load_lora_into_text_encoder(
                    tensors,
                    alphas,
                    getattr(pipeline, part),
                    prefix=part,
                    adapter_name=layers,
                    metadata=options,
                    low_cpu_mem_usage=True,
                )

    def _added(self, layers: str) -> list[torch.nn.Parameter]:
        """All that these layers consist of."""
        networks = [getattr(self._pipeline, name, None) for name in ("unet", *_TEXT_ENCODERS)]
        return [
            parameter
            for network in networks
            if network is not None
            for name, parameter in network.named_parameters()
            if layers in name.split(".")
        ]

    def _remove_all(self) -> None:
        """Give the networks their own layers back."""
        self._pipeline.unload_lora_weights()
        self._layers.clear()
        self._inserted.clear()
        self._active = ()


def _shaped(pipeline: Any, key: str, tensor: Tensor) -> Tensor:
    """A convolution's matrices in the shapes that PEFT expects, once the convolution is known."""
    name, _, part = key.rpartition(".lora.")
    if tensor.ndim != 2 or part not in ("down.weight", "up.weight") or not name.startswith("unet."):
        return tensor
    layer = pipeline.unet.get_submodule(name.removeprefix("unet."))
    layer = getattr(layer, "base_layer", layer)
    if not isinstance(layer, torch.nn.Conv2d):
        return tensor
    kernel = layer.kernel_size if part == "down.weight" else (1, 1)
    return tensor.reshape(tensor.shape[0], -1, *kernel)


def _peft_options(stored: str | None) -> dict[str, Any] | None:
    """How diffusers notes rank and alpha in a file's header; None: they follow from the tensors."""
    return json.loads(stored) if stored else None
