"""Networks read from a folder of diffusers or transformers: a skeleton, filled from mapped safetensors.

What comes is what ``from_pretrained`` gives, number by number; unlike it, this may be done beside a thread
that draws (`pipelines.checkpoints.skeletons`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from pipelines.checkpoints.diffusers_kolors import ChatGLMConfig, ChatGLMModel
from pipelines.checkpoints.skeletons import skeleton

_NAMES = ("diffusion_pytorch_model", "model")
"""The names of the files of weights that the two libraries write."""

_HARMLESS = re.compile(r"(^|\.)position_ids$")
"""Tensors of older files that newer networks compute by themselves."""


class NotOneToOne(Exception):
    """The tensors of the files are not those of the network, one for one."""


def network(
    cls: Any, folder: Path, dtype: torch.dtype, pause: Callable[[], None] = lambda: None
) -> torch.nn.Module:
    """Read a network into the host's memory.

    Args:
        cls: its class.
        pause: called again and again while Python is at work.
    Raises:
        NotOneToOne: the files hold other tensors than the network has, so that a conversion is needed.
        OSError, ValueError, KeyError, SafetensorError: a file is missing or damaged.
    """
    if cls is AutoModelForCausalLM:
        cls = _causal_class(folder)
    if cls is not ChatGLMModel and not issubclass(cls, ModelMixin | PreTrainedModel):
        raise NotOneToOne(f"{cls.__name__} is of neither library")
    built = skeleton(cls, _config(cls, folder, dtype), dtype, pause)
    kept = _kept_in_full(built, dtype)
    with ExitStack() as files:
        keys = dict(_keys(folder, files))
        names = _names(built, keys)
        tensors = {
            name: _read(keys[key], key, name, dtype, kept) for name, key in _paced(names.items(), pause)
        }
    _assign(built, tensors)
    if isinstance(built, PreTrainedModel):
        built.requires_grad_()
    if isinstance(built, PreTrainedModel) and built.can_generate():
        built.generation_config = _generation_config(folder, built)
    if isinstance(built, ModelMixin):
        built.register_to_config(_name_or_path=str(folder))
    return built.eval()


def _config(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """The configuration of a network, as its class takes it."""
    if issubclass(cls, ModelMixin):
        return json.loads((folder / "config.json").read_text())
    config_class = ChatGLMConfig if cls is ChatGLMModel else cls.config_class
    config = config_class.from_pretrained(folder, local_files_only=True)
    for each in (config, *(getattr(config, name) for name in config.sub_configs)):
        each.dtype = dtype
    config.name_or_path = str(folder)
    return config


def _causal_class(folder: Path) -> Any:
    """The class that transformers would choose for a language model."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    mapping: Any = AutoModelForCausalLM._model_mapping  # pyright: ignore[reportPrivateUsage]
    return mapping[type(config)]


def _generation_config(folder: Path, built: Any) -> GenerationConfig:
    if (folder / "generation_config.json").exists():
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    return GenerationConfig.from_model_config(built.config)


def _keys(folder: Path, files: ExitStack) -> Iterator[tuple[str, Any]]:
    """Every tensor of the folder's files, and the opened file that has it."""
    for path in _files(folder):
        file = files.enter_context(safe_open(path, framework="pt", device="cpu"))
        for key in file.keys():  # noqa: SIM118 -- it is no mapping
            yield key, file


def _files(folder: Path) -> list[Path]:
    for name in _NAMES:
        index = folder / f"{name}.safetensors.index.json"
        if index.exists():
            return [
                folder / file for file in sorted(set(json.loads(index.read_text())["weight_map"].values()))
            ]
        if (folder / f"{name}.safetensors").exists():
            return [folder / f"{name}.safetensors"]
    raise FileNotFoundError(f"there are no weights in {folder}")


def _names(built: Any, keys: Collection[str]) -> dict[str, str]:
    """The tensors of the files by the network's own names.

    Raises:
        NotOneToOne: one is missing, or one is left over.
    """
    wanted = set(built.state_dict())
    found = {key: key for key in keys}
    if isinstance(built, ModelMixin):
        built._fix_state_dict_keys_on_load(found)  # pyright: ignore[reportPrivateUsage]
    names = {_own_name(name, wanted): key for name, key in found.items()}
    over = [name for name in names if name not in wanted and not _may_be_left(built, name)]
    tied = _tied(built)
    missing = [name for name in wanted - names.keys() if name not in tied]
    if over or missing or len(names) < len(found):
        raise NotOneToOne(f"missing {sorted(missing)[:3]}, left over {sorted(over)[:3]}")
    return {name: key for name, key in names.items() if name in wanted}


def _own_name(name: str, wanted: Collection[str]) -> str:
    """The name of a tensor in this version of its network: text encoders gained and lost a prefix."""
    for candidate in (name, f"text_model.{name}", name.removeprefix("text_model.")):
        if candidate in wanted:
            return candidate
    return name


def _may_be_left(built: Any, name: str) -> bool:
    patterns = getattr(built, "_keys_to_ignore_on_load_unexpected", None) or ()
    return bool(_HARMLESS.search(name)) or any(re.search(pattern, name) for pattern in patterns)


def _tied(built: Any) -> Mapping[str, str]:
    """The parameters that are another one, which files may leave out."""
    tied = getattr(built, "all_tied_weights_keys", None) or {}
    return {**tied, **{source: target for target, source in tied.items()}}


def _kept_in_full(built: Any, dtype: torch.dtype) -> frozenset[str]:
    """The parts of names whose tensors stay in full precision, since they overflow half precision."""
    kept: set[str] = set()
    if dtype == torch.float16:
        kept.update(getattr(built, "_keep_in_fp32_modules", None) or ())
    if dtype in (torch.float16, torch.bfloat16):
        kept.update(getattr(built, "_keep_in_fp32_modules_strict", None) or ())
    return frozenset(kept)


def _read(file: Any, key: str, name: str, dtype: torch.dtype, kept: Collection[str]) -> Tensor:
    tensor: Tensor = file.get_tensor(key)
    if tensor.is_floating_point():
        full = not set(kept).isdisjoint(name.split("."))
        dtype = torch.float32 if full else dtype
    else:
        dtype = tensor.dtype
    # A copy: a tensor in the mapping of a file lies at any address, and there kernels round otherwise.
    return tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)


def _paced(items: Collection[tuple[str, str]], pause: Callable[[], None]) -> Iterator[tuple[str, str]]:
    for item in items:
        pause()
        yield item


def _assign(built: Any, tensors: dict[str, Tensor]) -> None:
    """Let a skeleton have these tensors.

    Raises:
        NotOneToOne: something of it still has no numbers.
    """
    built.load_state_dict(tensors, assign=True, strict=False)
    if hasattr(built, "tie_weights"):
        built.tie_weights()
    rest = [name for name, each in (*built.named_parameters(), *built.named_buffers()) if each.is_meta]
    if rest:
        raise NotOneToOne(f"nothing filled {rest[:3]}")
