"""Read a LoRA, whatever wrote it: the layers that can be drawn with, and words for what cannot."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from torch import Tensor

from pipelines.adapters.lycoris import as_lora, is_lycoris
from pipelines.weights.adapter_recognition import demand_usable_lora
from pipelines.weights.header import Unrecognised
from pipelines.weights.lora_names import NETWORKS, LoraNames, read_names
from pipelines.weights.lora_settings import CONFIG_NAME, HEADER_KEY, LoraSettings, of_config, of_header

log = logging.getLogger(__name__)

MAX_NAMED = 3
"""The most tensors that a sentence to the caller names."""


@dataclass(frozen=True, slots=True)
class LoraFile:
    """The contents of a LoRA. The tensors are shared: never change them in place.

    Attributes:
        tensors: the layers alone, LoHa and LoKr among them rewritten as LoRAs, in the names of the file.
        bundles: the textual inversions that lie in the file: word -> tensors by their names.
        notes: predicates for the caller: what of it has no effect, and what is not known of it.
    """

    tensors: Mapping[str, Tensor]
    bundles: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict[str, Mapping[str, Tensor]])
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        own = [
            *self.tensors.values(),
            *(tensor for each in self.bundles.values() for tensor in each.values()),
        ]
        return sum(tensor.nbytes for tensor in own)


def read_lora(path: Path) -> LoraFile:
    """Read a LoRA from a .safetensors file, or from a folder of them with their ``adapter_config.json``.

    Raises:
        Unrecognised: this server cannot draw with it; the error says why.
        OSError, SafetensorError, ValueError: the files cannot be read.
    """
    tensors: dict[str, Tensor] = {}
    settings: dict[str, LoraSettings] = {}
    notes: list[str] = []
    for file, network in _files(path):
        came, metadata = _opened(file)
        prefix = f"{network}." if network else ""
        tensors |= {prefix + name: tensor for name, tensor in came.items()}
        settings |= _settings(file, metadata, network, notes)
    demand_usable_lora({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    names = read_names(tensors)
    layers = _with_alphas(tensors, names, settings)
    _demand_finite(layers)
    notes += _notes(names, settings)
    bundles = {
        word: {inner: _plain(tensors[name]) for inner, name in parts.items()}
        for word, parts in names.bundles.items()
    }
    return LoraFile(as_lora(layers) if is_lycoris(layers) else layers, bundles, tuple(dict.fromkeys(notes)))


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    """Each file with the network that its folder is named after, if it is."""
    if not path.is_dir():
        yield path, ""
        return
    found = sorted(path.glob("*.safetensors"))
    if len(found) == 1 or (path / "adapter_model.safetensors") in found:
        yield (path / "adapter_model.safetensors") if len(found) > 1 else found[0], ""
        return
    inner = [
        (file, network)
        for network in NETWORKS
        for folder in (path / network, path / f"{network}_lora")
        for file in sorted(folder.glob("adapter_model.safetensors"))
    ]
    if found or not inner:
        raise ValueError(f"{len(found)} safetensors files in {path}, one is expected")
    yield from inner


def _opened(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    with safe_open(path, framework="pt", device="cpu") as file:
        names = cast("list[str]", list(file.keys()))
        return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})


def _settings(
    file: Path, metadata: Mapping[str, str], network: str, notes: list[str]
) -> dict[str, LoraSettings]:
    """What stands beside the tensors, by network; what cannot be read goes to the notes."""
    config = file.with_name(CONFIG_NAME)
    alone = file.stem == "adapter_model" or len(list(file.parent.glob("*.safetensors"))) == 1
    if config.is_file() and alone:
        return dict.fromkeys(
            [network] if network else NETWORKS, of_config(config.read_text(errors="replace"))
        )
    if HEADER_KEY not in metadata:
        return {}
    try:
        return of_header(metadata[HEADER_KEY])
    except ValueError as error:
        log.warning("the header of %s cannot be read: %s", file, error)
        notes.append(
            "has settings in its header that cannot be read, and is drawn as if its alphas were its ranks"
        )
        return {}


def _with_alphas(
    tensors: Mapping[str, Tensor], names: LoraNames, settings: Mapping[str, LoraSettings]
) -> dict[str, Tensor]:
    """The tensors of all layers, with an alpha for each layer whose strength the settings decide."""
    layers: dict[str, Tensor] = {}
    for layer, named in names.layers.items():
        parts, module = named.parts, named.module
        layers |= {name: _plain(tensors[name]) for name in parts.values()}
        if "mid" in parts:
            del layers[parts["mid"]]
            layers[parts["down"]] = _with_core(tensors[parts["mid"]], tensors[parts["down"]])
        own = settings.get(named.network)
        if "alpha" not in parts and own is not None:
            rank = _rank({part: tensors[name] for part, name in parts.items()})
            alpha = rank * own.alpha_over_rank((module, f"text_model.{module}", layer), rank)
            layers[f"{layer}.alpha"] = torch.tensor(alpha)
    return layers


def _with_core(core: Tensor, down: Tensor) -> Tensor:
    """A LoCon's first matrix with its Tucker core: together they are a convolution of the same rank."""
    return torch.einsum("abhw,bi->aihw", _plain(core).float(), _plain(down).float().flatten(1)).to(core.dtype)


def _rank(parts: Mapping[str, Tensor]) -> int:
    first = next(
        parts[part]
        for part in ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b", "lokr_w2", "lokr_w1")
        if part in parts
    )
    return max(1, first.shape[0])


def _plain(tensor: Tensor) -> Tensor:
    """A tensor of a format with which torch computes: numbers of 8 bits become ones of 16."""
    return tensor.half() if tensor.element_size() == 1 and tensor.is_floating_point() else tensor


def _demand_finite(layers: Mapping[str, Tensor]) -> None:
    for name, tensor in layers.items():
        if not tensor.isfinite().all():
            raise Unrecognised(f"its tensor {name} has numbers that are infinite or none (NaN)")


def _notes(names: LoraNames, settings: Mapping[str, LoraSettings]) -> list[str]:
    notes = [note for own in settings.values() for note in own.notes]
    without = [f"{len(layers)} layers of {kind}" for kind, layers in sorted(names.others.items())]
    if names.strays:
        more = len(names.strays) - MAX_NAMED
        listed = ", ".join([*sorted(names.strays)[:MAX_NAMED], *([f"{more} more"] if more > 0 else [])])
        without.append(f"tensors that are no part of a layer ({listed})")
    if without:
        notes.append(f"has {' and '.join(without)}, which had no effect")
    alphas = {layer.network for layer in names.layers.values() if "alpha" in layer.parts}
    if names.unsaid_alphas - alphas - settings.keys():
        notes.append(
            f"does not say its alphas, which PEFT stores in {CONFIG_NAME}: it is drawn as if they were ranks"
        )
    return notes
