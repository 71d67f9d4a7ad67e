"""Open what the manifest names: diffusers pipelines and single networks, from whatever source."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils import logging as transformers_logging

from pipelines.checkpoints import dummies, folder, single_file
from pipelines.checkpoints.dtypes import Dtypes, of_name
from pipelines.checkpoints.network_files import vae_of_file
from pipelines.checkpoints.pace import AtOnce, Pace
from pipelines.checkpoints.quantization import QuantizationMissing, quantize
from pipelines.errors import CheckpointUnavailable, GenerationError, UnusableCheckpoint, is_out_of_memory
from pipelines.weights.absence import remedy
from pipelines.weights.configs import configuration
from pipelines.weights.conversion import demand_tensors
from pipelines.weights.entries import PipelineEntry, Source
from pipelines.weights.header import Unrecognised
from pipelines.weights.inspection import configuration_folder
from pipelines.weights.loaded import LOADED_FOLDER
from pipelines.weights.lock import download_problem, problems, read_lock
from pipelines.weights.manifest import Manifest
from pipelines.weights.repositories import folder as repository_folder

log = logging.getLogger(__name__)

# Bars for opening a checkpoint would run through the server's log.
diffusers_logging.disable_progress_bar()
transformers_logging.disable_progress_bar()

P = TypeVar("P", bound=DiffusionPipeline)
M = TypeVar("M", bound=torch.nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    """A manifest entry that can be opened on one device.

    Attributes:
        name: the pipeline's name in the manifest.
        weights: folder of downloaded repositories and the lock.
        device: where the pipeline draws.
        opened_on: where its networks are put when they are opened; None: on the device.
        pace: leaves room for what is drawn while the checkpoint is opened.
        readers: for each network that was opened, what reads it from its files once more.
    """

    name: str
    manifest: Manifest
    entry: PipelineEntry
    weights: Path
    device: torch.device
    opened_on: torch.device | None = None
    pace: Pace = field(default_factory=AtOnce, compare=False)
    readers: dict[torch.nn.Module, Callable[[], torch.nn.Module]] = field(
        default_factory=dict[torch.nn.Module, Callable[[], torch.nn.Module]], compare=False
    )

    @property
    def place(self) -> torch.device:
        """Where its networks are put when they are opened."""
        return self.opened_on or self.device

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.entry.dtype)

    def _dtype_of(self, network: str) -> torch.dtype:
        return getattr(torch, self.entry.dtype_of(network))

    def _dtypes(self, part: str) -> Dtypes:
        """The dtypes of a part's components, by their names; one where all have the same."""
        components = {network: self.entry.source_of(network) for network in self.entry.networks}
        own = {
            place[1]: self._dtype_of(network)
            for network, place in components.items()
            if place is not None and place[0] is self.entry.parts[part] and place[1] is not None
        }
        return {**own, "default": self.dtype} if own else self.dtype

    def skips(self, network: str) -> bool:
        """Whether the pipeline is opened without this network of its family."""
        return self.entry.skips(network)

    def has(self, part: str) -> bool:
        """Whether the manifest gives this optional part."""
        return part in self.entry.parts

    def path(self, part: str) -> Path:
        """The local folder or file of a part that diffusers does not open (OpenPose's annotators).

        Raises:
            CheckpointUnavailable: the part is not there, or not as it was pulled.
        """
        source = self.entry.parts[part]
        with self._opening(source):
            return local(self.manifest, source, self.weights)

    def pipeline(self, part: str, cls: type[P], **components: Any) -> P:
        """Open a diffusers pipeline; ``components`` replace the ones of the checkpoint (None: leave out).

        Raises:
            CheckpointUnavailable: files are missing, differ from the verified ones, or do not fit ``cls``.
        """
        source = self.entry.parts[part]
        with self._opening(source):
            if source.dummy is not None:
                config = configuration(source.dummy)
                opened: P = dummies.pipeline(
                    cls, config, self.device, self._dtypes(part), components, self.place
                )
            elif source.file is not None:
                opened = self._single_file(part, cls, components)
            else:
                path = local(self.manifest, source, self.weights)
                opened = folder.pipeline(cls, path, self._dtypes(part), components, self.pace)
            opened.set_progress_bar_config(disable=True)
            again = replace(self, readers={}, pace=AtOnce())
            for name, network in opened.components.items():
                if isinstance(network, torch.nn.Module):
                    if name not in components:
                        self._quantize(part, name, network)
                        self.readers[network] = partial(again.component, part, name, type(network))
                    network.to(self.place)
            return opened

    def component(self, part: str, name: str, cls: type[M]) -> M:
        """Open one network of a diffusers pipeline by itself, as it is in the pipeline.

        Raises:
            CheckpointUnavailable: as for `pipeline`.
        """
        source = self.entry.parts[part]
        with self._opening(source):
            opened = self._component(source, name, cls, of_name(self._dtypes(part), name))
            self._quantize(part, name, opened)
            return opened.to(self.place)

    def _component(self, source: Source, name: str, cls: type[Any], dtype: torch.dtype) -> Any:
        if source.dummy is not None:
            config = configuration(source.dummy) / name
            return dummies.network(cls, config, self.device, dtype, self.place)
        path = local(self.manifest, source, self.weights)
        if source.file is not None:
            return single_file.network(path, self._configuration(source), dtype, name)
        return folder.network(cls, path / name, dtype, self.pace)

    def module(self, part: str, cls: type[M]) -> M:
        """Open a single network of diffusers or transformers.

        Raises:
            CheckpointUnavailable: as for `pipeline`.
        """
        opened = self._module(part, cls)
        self.readers[opened] = partial(replace(self, readers={}, pace=AtOnce())._module, part, cls)
        return opened

    def _module(self, part: str, cls: type[M]) -> M:
        source = self.entry.parts[part]
        dtype = self._dtype_of(part)
        with self._opening(source):
            if source.dummy is not None:
                config = configuration(source.dummy)
                return dummies.network(cls, config, self.device, dtype, self.place)
            path = local(self.manifest, source, self.weights)
            opened: Any
            if source.file is not None and cls is AutoencoderKL:
                config = json.loads((self._configuration(source) / "config.json").read_text())
                opened = vae_of_file(path, config, dtype)
            elif source.file is not None:
                config = str(self._configuration(source))
                opened = self.pace.alone(
                    lambda: cls.from_single_file(  # pyright: ignore[reportAttributeAccessIssue]
                        str(path), config=config, dtype=dtype, local_files_only=True
                    )
                )
            else:
                opened = folder.network(cls, path, dtype, self.pace)
            return opened.to(self.place)

    def tensors(self, part: str) -> dict[str, Tensor]:
        """All tensors of a part that is one file: safetensors, or a pickle, of which nothing else is read.

        Raises:
            CheckpointUnavailable: as for `pipeline`; also where something else than tensors is in it.
        """
        source = self.entry.parts[part]
        with self._opening(source):
            path = local(self.manifest, source, self.weights)
            return load_file(path) if path.suffix == ".safetensors" else demand_tensors(path)

    def tokenizer(self, part: str, cls: Any) -> Any:
        """The tokenizer that lies beside a single network of transformers.

        Raises:
            CheckpointUnavailable: as for `pipeline`.
        """
        source = self.entry.parts[part]
        with self._opening(source):
            path = local(self.manifest, source, self.weights)
            folder.demand_vocabulary(path)
            return cls.from_pretrained(path, local_files_only=True)

    def _single_file(self, part: str, cls: type[P], components: dict[str, Any]) -> P:
        """Open a file of the original layout: it holds weights only; configurations and vocabularies ship."""
        source = self.entry.parts[part]
        path = local(self.manifest, source, self.weights)
        config = self._configuration(source)
        dtypes = self._dtypes(part)
        parts = single_file.components(path, config, dtypes, without=components)
        return dummies.pipeline(cls, config, self.device, dtypes, {**parts, **components}, self.place)

    def _quantize(self, part: str, name: str, network: torch.nn.Module) -> None:
        """Quantize a component, if that is chosen."""
        source = self.entry.parts[part]
        for chosen in self.entry.networks:
            quantization = self.entry.quantization_of(chosen)
            if quantization is not None and self.entry.source_of(chosen) == (source, name):
                quantize(network, quantization, self.device, self.pace.pause)

    def _configuration(self, source: Source) -> Path:
        """The folder of a configuration: the one beside the manifest, else the one that ships."""
        if source.config is None:
            raise ValueError("a file source needs a config")
        return configuration_folder(source.config, self.manifest)

    @contextmanager
    def _opening(self, source: Source) -> Generator[None]:
        """Keep paths and tracebacks out of the errors that a caller reads; they are in the log."""
        try:
            yield
        except (torch.AcceleratorError, GenerationError):
            raise
        except QuantizationMissing as error:
            log.error("%s cannot be opened: %s", self.name, error)
            raise CheckpointUnavailable(f"{self.name} cannot be opened: {error}") from error
        except Unrecognised as error:
            log.error("%s cannot be drawn with: %s", self.name, error)
            raise UnusableCheckpoint(f"{self.name} cannot be drawn with: {error}") from error
        except Exception as error:  # diffusers and transformers document none of what they raise
            if is_out_of_memory(error):
                raise  # that says nothing about the files
            log.error("%s cannot be opened: %s", self.name, error)
            raise CheckpointUnavailable(
                f"the weights of {self.name} are missing or are not the ones that were verified",
                remedy(self.name, source, self.weights),
            ) from error


def local(manifest: Manifest, source: Source, weights: Path) -> Path:
    """The folder or file of a source on this machine.

    It is a file for ``file`` and for a repository of which only one file is named. A hub repository and a
    file that was loaded from a URL are compared with the lock first.

    Raises:
        ValueError: not pulled or loaded, a file is missing, added or differs from the lock; or the source is
            a dummy.
        FileNotFoundError: the folder or file of the manifest is not there.
    """
    if source.hub is not None:
        return _pulled(source, weights)
    given = source.folder or source.file
    if given is None:
        raise ValueError("a dummy has no files")
    path = manifest.path.parent / given
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_relative_to(weights.absolute() / LOADED_FOLDER):
        _compare(path.relative_to(weights.absolute()).as_posix(), weights)
    return path


def _compare(name: str, weights: Path) -> None:
    locked = read_lock(weights).downloads.get(name)
    if locked is None:
        found = f"{name} is not in the lock"
    else:
        found = download_problem(weights, name, locked, thorough=False)
    if found:
        raise ValueError(f"{found}: delete it with delete_model and load it again")


def _pulled(source: Source, weights: Path) -> Path:
    assert source.hub is not None
    key = f"{source.hub}@{source.revision}"
    locked = read_lock(weights).repositories.get(key)
    if locked is None:
        raise ValueError(f"{key} is not in the lock: run `understudy weights pull`")
    if found := problems(weights, locked, thorough=False):
        raise ValueError(f"{'; '.join(found)}: run `understudy weights pull`")
    whole = weights / repository_folder(source.hub, source.revision)
    for name, file in locked.files.items():
        if source.files == (file.origin,):
            return whole / name
    return whole
