"""The LoRAs, textual inversions, VAEs and ControlNets of the manifest: found by name, read, and kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, ControlNetModel
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipelines.adapters.embedding_file import EmbeddingFile, read_embedding
from pipelines.adapters.lora_file import LoraFile, read_lora
from pipelines.checkpoints.checkpoint import local
from pipelines.checkpoints.network_files import controlnet_of_file, vae_of_file
from pipelines.errors import CheckpointUnavailable, UnknownAdapter, is_out_of_memory
from pipelines.images import codec
from pipelines.lru import LRUCache
from pipelines.weights.absence import remedy
from pipelines.weights.entries import AdapterEntry, Source
from pipelines.weights.header import Unrecognised
from pipelines.weights.manifest import Manifest

log = logging.getLogger(__name__)

Field = Literal["loras", "embeddings", "vae", "controls"]
"""The fields of a request that name adapters."""


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """The contents of one safetensors file. The tensors are shared: never change them in place."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


class AdapterLibrary:
    """The adapters that requests name; one library serves all pipelines of a device.

    Attributes:
        manifest: may be replaced at any time; files that were read stay cached until `clear_cache`.

    Args:
        weights: the folder of downloaded repositories.
        cache_bytes: the most bytes of files that are kept in host memory.
    """

    def __init__(self, manifest: Manifest, weights: Path, cache_bytes: int = 2 * 1024**3) -> None:
        self.manifest = manifest
        self._weights = weights
        self._files: LRUCache[Path, LoraFile | EmbeddingFile] = LRUCache(
            cache_bytes, lambda file: file.nbytes
        )

    def lora(self, name: str, family: str) -> LoraFile:
        """The file of a LoRA, in whatever layout it has; LoHa and LoKr have become LoRAs.

        Raises:
            UnknownAdapter: no such LoRA, made for another family, or not readable.
            CheckpointUnavailable: its file is missing, or not the one that was pulled or loaded.
        """
        file = self._file("loras", name, family, read_lora)
        assert isinstance(file, LoraFile)
        return file

    def embedding(self, name: str, family: str) -> EmbeddingFile:
        """The vectors of a textual inversion.

        Raises:
            UnknownAdapter, CheckpointUnavailable: as for `lora`.
        """
        file = self._file("embeddings", name, family, read_embedding)
        assert isinstance(file, EmbeddingFile)
        return file

    def vae(self, name: str, family: str, like: AutoencoderKL, device: torch.device) -> AutoencoderKL:
        """A new VAE on the device, in the type of ``like``, which lends a bare file its configuration.

        Raises:
            UnknownAdapter, CheckpointUnavailable: as for `lora`, or not of the checkpoint's shape.
        """
        path = self._path("vae", name, family)
        try:
            if path.is_dir():
                vae = AutoencoderKL.from_pretrained(path, use_safetensors=True, local_files_only=True)
            else:
                vae = vae_of_file(path, like.config, like.dtype)
        except Unrecognised as error:
            raise UnknownAdapter("vae", f"{name} cannot be read: {error}") from error
        except Exception as error:
            _demand_memory(error)
            raise _unreadable("vae", name, error) from error
        channels = vae.config["latent_channels"], like.config["latent_channels"]
        if channels[0] != channels[1] or codec.per_latent(vae) != codec.per_latent(like):
            raise UnknownAdapter("vae", f"{name} has other latents than the checkpoint")
        vae.to(device=device, dtype=like.dtype)  # pyright: ignore[reportCallIssue]
        return vae.eval()

    def controlnet(
        self, name: str, family: str, unet: Any, per_latent: int, device: torch.device
    ) -> ControlNetModel:
        """A new ControlNet on the device, in the type of the network that it steers.

        Args:
            per_latent: pixels of a control image along one side of a latent.
        Raises:
            UnknownAdapter, CheckpointUnavailable: as for `lora`, or not of the network's shape.
        """
        path = self._path("controls", name, family)
        try:
            network: Any = (
                ControlNetModel.from_pretrained(
                    path, use_safetensors=True, local_files_only=True, dtype=unet.dtype
                )
                if path.is_dir()
                else controlnet_of_file(path, unet)
            )
        except Unrecognised as error:
            raise UnknownAdapter("controls", f"{name} cannot be read: {error}") from error
        except Exception as error:
            _demand_memory(error)
            raise _unreadable("controls", name, error) from error
        shapes = ("block_out_channels", "cross_attention_dim", "layers_per_block")
        halvings = len(network.config["conditioning_embedding_out_channels"]) - 1
        if 2**halvings != per_latent or any(network.config[shape] != unet.config[shape] for shape in shapes):
            raise UnknownAdapter("controls", f"{name} does not fit this checkpoint")
        return network.to(device).eval()

    def annotator(self, preprocessor: str) -> Path | None:
        """The folder with a preprocessor's weights; None where the manifest has none.

        Raises:
            CheckpointUnavailable: the manifest names some, and they are missing or damaged.
        """
        source = self.manifest.annotator(preprocessor)
        if source is None:
            return None
        users = self.manifest.controlnets.items()
        owner = next(name for name, entry in users if entry.annotator == source)
        path = self._local(owner, source, f"the preprocessor {preprocessor}")
        return path if path.is_dir() else path.parent

    def folder(self, source: Source | None) -> Path | None:
        """The folder of a pose detector's source; None where there is no source, or nothing of it here."""
        try:
            path = source and local(self.manifest, source, self._weights)
        except (OSError, ValueError) as error:
            log.error("the weights of a pose detector cannot be read: %s", error)
            return None
        return path if path is None or path.is_dir() else path.parent

    def clear_cache(self) -> None:
        """Drop the cached files; the next request that names one reads it again."""
        self._files.clear()

    def _file(
        self, field: Field, name: str, family: str, read: Callable[[Path], LoraFile | EmbeddingFile]
    ) -> LoraFile | EmbeddingFile:
        path = self._path(field, name, family)
        try:
            return self._files.get(path, lambda: read(path))
        except Unrecognised as error:
            raise UnknownAdapter(field, f"{name} cannot be used: {error}") from error
        except (OSError, SafetensorError, ValueError) as error:
            raise _unreadable(field, name, error) from error

    def _path(self, field: Field, name: str, family: str) -> Path:
        entry = self._entries(field).get(self.manifest.id_of(name))
        if entry is None:
            raise UnknownAdapter(field, f"{name} is not on this server")
        if entry.family != family:
            raise UnknownAdapter(
                field, f"{name} is made for {entry.family} checkpoints, this one is {family}"
            )
        return self._local(name, entry.source, name)

    def _local(self, name: str, source: Source, shown: str) -> Path:
        """The folder or file of a source that belongs to what has this name.

        Raises:
            CheckpointUnavailable: it is missing, or not as it was pulled or loaded.
        """
        try:
            return local(self.manifest, source, self._weights)
        except (OSError, ValueError) as error:
            log.error("%s is unavailable: %s", shown, error)
            raise CheckpointUnavailable(
                f"{shown} is unavailable: its weights are missing or are not the ones that were verified",
                remedy(self.manifest.id_of(name), source, self._weights),
            ) from error

    def _entries(self, field: Field) -> Mapping[str, AdapterEntry]:
        match field:
            case "loras":
                return self.manifest.loras
            case "embeddings":
                return self.manifest.embeddings
            case "vae":
                return self.manifest.vaes
            case "controls":
                return self.manifest.controlnets


def _unreadable(field: Field, name: str, error: Exception) -> UnknownAdapter:
    """The error for the caller; the path and the reason go to the log."""
    log.error("%s %s cannot be read: %s", field, name, error)
    return UnknownAdapter(field, f"{name} cannot be read")


def _demand_memory(error: Exception) -> None:
    """Raise an error again that says nothing of the files: no memory was left, or the device was lost."""
    if isinstance(error, torch.AcceleratorError) or is_out_of_memory(error):
        raise error


def _read(path: Path) -> AdapterFile:
    """Read a safetensors file, or the only one in a folder."""
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            raise ValueError(f"{len(found)} safetensors files in {path}, one is expected")
        path = found[0]
    with safe_open(path, framework="pt", device="cpu") as file:
        names: list[str] = list(file.keys())
        return AdapterFile({name: file.get_tensor(name) for name in names}, dict(file.metadata() or {}))
