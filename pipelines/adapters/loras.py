"""LoRAs on the networks of one pipeline: exactly those of the request or group whose turn it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from pipelines.adapters.library import AdapterLibrary
from pipelines.adapters.lora_layers import match_layers
from pipelines.errors import InvalidInput, UnknownAdapter, is_out_of_memory
from pipelines.request import Lora

KEPT_BYTES = 512 * 1024**2
"""The most bytes of LoRAs that stay in the networks, switched off. Switching one on again takes 10 ms and
inserting its layers anew 190 ms, and groups of different LoRAs may alternate at every step."""

_TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


class AttachedLoras:
    """Puts LoRAs on the networks of a diffusers pipeline and takes them off again.

    A DoRA with magnitudes m makes of weights W, row by row, m (W + s B A) / |W + s B A| at each strength s,
    as PEFT has it. A network with its LoRAs switched off computes the very numbers of one that never had any.
    """

    def __init__(self, pipeline: Any, adapters: AdapterLibrary, family: str) -> None:
        self._pipeline = pipeline
        self._adapters = adapters
        self._family = family
        self._layers: dict[str, str] = {}
        self._inserted: dict[str, torch.nn.ParameterList] = {}
        self._unmatched: dict[str, tuple[int, int]] = {}
        self._next = 0
        self._active: tuple[Lora, ...] = ()

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The layers that LoRAs added to the networks, whether they are switched on or off."""
        return {f"lora:{name}": added for name, added in self._inserted.items()}

    def use(self, loras: tuple[Lora, ...]) -> None:
        """Switch exactly these LoRAs on, on the UNet and on the text encoders; cheap when they are on.

        Raises:
            UnknownAdapter: a LoRA is not known or does not fit; then all are off.
            InvalidInput: a LoRA is named twice.
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

    def warnings(self) -> tuple[str, ...]:
        """Sentences for the caller about layers without effect in the LoRAs that are on."""
        unmatched = [(lora.name, *self._unmatched[lora.name]) for lora in self._active]
        return tuple(
            f"{count} of the {layers} layers of the LoRA {name} found no place in this checkpoint and had no "
            "effect"
            for name, count, layers in unmatched
            if count
        )

    def clear_cache(self) -> None:
        """Take every LoRA out of the networks; the next `use` reads and inserts its own again."""
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
            matched = match_layers(pipeline, file.tensors)
            if matched.tensors:
                options = _peft_options(file.metadata.get("lora_adapter_metadata"))
                self._load(layers, matched.tensors, options)
        except (RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
                raise
            raise UnknownAdapter("loras", f"{name} does not fit this checkpoint") from error
        if not matched.tensors:
            raise UnknownAdapter("loras", f"{name} does not fit this checkpoint")
        self._layers[name] = layers
        self._inserted[name] = torch.nn.ParameterList(self._added(layers))
        self._unmatched[name] = matched.unmatched, matched.layers

    def _load(self, layers: str, tensors: Any, options: dict[str, Any] | None) -> None:
        pipeline = self._pipeline
        pipeline.load_lora_into_unet(
            tensors, None, pipeline.unet, adapter_name=layers, metadata=options, low_cpu_mem_usage=True
        )
        for part in _TEXT_ENCODERS:
            if any(key.startswith(f"{part}.") for key in tensors):
                pipeline.load_lora_into_text_encoder(
                    tensors,
                    None,
                    getattr(pipeline, part),
                    prefix=part,
                    adapter_name=layers,
                    metadata=options,
                    low_cpu_mem_usage=True,
                )

    def _added(self, layers: str) -> list[torch.nn.Parameter]:
        """The parameters of the layers that one LoRA added."""
        networks = [getattr(self._pipeline, name, None) for name in ("unet", *_TEXT_ENCODERS)]
        return [
            parameter
            for network in networks
            if network is not None
            for name, parameter in network.named_parameters()
            if layers in name.split(".")
        ]

    def _remove_all(self) -> None:
        """Take all LoRAs out, so that the networks have their own layers again."""
        self._pipeline.unload_lora_weights()
        self._layers.clear()
        self._inserted.clear()
        self._unmatched.clear()
        self._active = ()


def _peft_options(stored: str | None) -> dict[str, Any] | None:
    """The ranks and alphas that diffusers writes into a file's header; None: the tensors tell them."""
    return json.loads(stored) if stored else None
