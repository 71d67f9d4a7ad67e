"""LoRAs on the networks of one pipeline: exactly those of the request or group whose turn it is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from pipelines.adapters.embedding_file import vectors_of
from pipelines.adapters.insertion import insert
from pipelines.adapters.library import AdapterLibrary
from pipelines.adapters.lora_layers import Matched, Overflow, match_layers
from pipelines.adapters.textual_inversion import Vectors, fitting_vectors
from pipelines.errors import InvalidInput, UnknownAdapter, is_out_of_memory
from pipelines.request import Lora
from pipelines.weights.header import Unrecognised
from pipelines.weights.lora_names import NETWORKS

log = logging.getLogger(__name__)

KEPT_BYTES = 512 * 1024**2
"""The most bytes of LoRAs that stay in the networks, switched off. Switching one on again takes 10 ms and
inserting its layers anew 190 ms, and groups of different LoRAs may alternate at every step."""

MAX_KEPT = 12
"""The most LoRAs that stay in the networks, however small: each makes inserting the next slower."""


class AttachedLoras:
    """Puts LoRAs on the networks of a diffusers pipeline and takes them off again.

    A DoRA with magnitudes m makes of weights W, row by row, m (W + s B A) / |W + s B A| at each strength s,
    as PEFT has it. A network with its LoRAs switched off computes the very numbers of one that never had any.
    """

    def __init__(self, pipeline: Any, adapters: AdapterLibrary, family: str) -> None:
        self._pipeline = pipeline
        self._adapters = adapters
        self._family = family
        self._layers: dict[str, list[str]] = {}
        self._inserted: dict[str, torch.nn.ParameterList] = {}
        self._notes: dict[str, tuple[str, ...]] = {}
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
        """Sentences for the caller about what had no effect in the LoRAs that are on."""
        return tuple(note for lora in self._active for note in self._notes[lora.name])

    def bundled_words(self) -> tuple[dict[str, Vectors], list[str]]:
        """The textual inversions in the LoRAs that are on, and sentences about those that do not fit."""
        words: dict[str, Vectors] = {}
        problems: list[str] = []
        for lora in self._active:
            for word, tensors in self._adapters.lora(lora.name, self._family).bundles.items():
                try:
                    fitting = fitting_vectors(self._pipeline, vectors_of(tensors))
                except Unrecognised:
                    fitting = None
                if fitting is None:
                    problems.append(
                        f"the textual inversion {word} in the LoRA {lora.name} does not fit this checkpoint "
                        "and had no effect"
                    )
                else:
                    words.setdefault(word, fitting)
        return words, problems

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
        if missing and (kept + coming > KEPT_BYTES or len(self._layers) + len(missing) > MAX_KEPT):
            self._remove_all()
        for lora in loras:
            if lora.name not in self._layers:
                self._insert(lora.name)
        self._pipeline.enable_lora()
        self._pipeline.set_adapters(
            [layers for lora in loras for layers in self._layers[lora.name]],
            [lora.scale for lora in loras for _ in self._layers[lora.name]],
        )

    def _insert(self, name: str) -> None:
        """Add the layers of one more LoRA to the networks, under a name that PEFT accepts."""
        file = self._adapters.lora(name, self._family)
        layers = f"lora{self._next}"
        self._next += 1
        try:
            matched = match_layers(self._pipeline, file.tensors)
            inserted = {
                adapter: None
                for network, own in matched.networks.items()
                if own
                for adapter in insert(getattr(self._pipeline, network), own, layers)
            }
        except Overflow as error:
            problem = f"{name} times its alpha is beyond the number format in which this checkpoint is drawn"
            raise UnknownAdapter("loras", problem) from error
        except (RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
                raise
            log.exception("the LoRA %s cannot be put on the networks", name)
            raise UnknownAdapter("loras", f"{name} does not fit this checkpoint") from error
        if not inserted:
            raise UnknownAdapter("loras", f"{name} does not fit this checkpoint")
        self._layers[name] = list(inserted)
        self._inserted[name] = torch.nn.ParameterList(self._added(set(inserted)))
        self._notes[name] = _notes(name, matched, file.notes)

    def _added(self, layers: set[str]) -> list[torch.nn.Parameter]:
        """The parameters of the layers that one LoRA added."""
        networks = [getattr(self._pipeline, name, None) for name in NETWORKS]
        return [
            parameter
            for network in networks
            if network is not None
            for name, parameter in network.named_parameters()
            if not layers.isdisjoint(name.split("."))
        ]

    def _remove_all(self) -> None:
        """Take all LoRAs out, so that the networks have their own layers again."""
        self._pipeline.unload_lora_weights()
        self._layers.clear()
        self._inserted.clear()
        self._notes.clear()
        self._active = ()


def _notes(name: str, matched: Matched, notes: tuple[str, ...]) -> tuple[str, ...]:
    """Sentences about what of a LoRA had no effect."""
    said = tuple(f"the LoRA {name} {note}" for note in notes)
    if not matched.unmatched:
        return said
    count = f"{matched.unmatched} of the {matched.layers} layers of the LoRA {name}"
    return (f"{count} found no place in this checkpoint and had no effect", *said)
