"""Networks of real size and random numbers, built straight on the device: real speed without real weights."""

from __future__ import annotations

import inspect
import json
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from transformers import CLIPImageProcessor, PreTrainedTokenizerBase, T5Tokenizer

from pipelines.checkpoints import skeletons
from pipelines.checkpoints.diffusers_kolors import ChatGLMConfig, ChatGLMModel
from pipelines.checkpoints.dtypes import Dtypes, of_name
from pipelines.checkpoints.tokenizers import clip_tokenizer, glm_tokenizer


def network(
    cls: type[Any],
    config: Path,
    device: torch.device,
    dtype: torch.dtype,
    place: torch.device | None = None,
) -> Any:
    """One network of random numbers; on the meta device it has shapes only.

    Matrices and convolutions are normal with variance 1 / fan_in and normalisations are the identity, so that
    activations neither vanish nor overflow half precision. Parameters never exist in another place or
    precision.

    Args:
        device: makes the numbers.
        place: the device where they stay; None: where they are made.
    """
    module: Any = skeleton(cls, config)
    # As from_pretrained does: parts that overflow half precision stay in full precision.
    full = tuple(getattr(module, "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else ()
    generator = None if device.type == "meta" else torch.Generator(device).manual_seed(0)
    for path, parent in module.named_modules():
        kept = not set(full).isdisjoint(path.split("."))
        for name, parameter in parent.named_parameters(recurse=False):
            numbers = torch.empty(parameter.shape, device=device, dtype=torch.float32 if kept else dtype)
            filled = _fill(name, numbers, generator).to(place or device)
            setattr(parent, name, torch.nn.Parameter(filled, requires_grad=False))
        for name, buffer in parent.named_buffers(recurse=False):
            setattr(parent, name, buffer.to(dtype) if buffer.is_floating_point() else buffer)
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    return module.to(place or device).eval()


def skeleton(cls: Any, config: Path) -> Any:
    """A network whose parameters are on the meta device and whose buffers hold their real values."""
    return skeleton_of(cls, json.loads((config / "config.json").read_text()))


def skeleton_of(cls: Any, values: dict[str, Any]) -> Any:
    """A network as `skeleton` makes it, of a configuration that was read already."""
    if cls is ChatGLMModel:
        return skeletons.skeleton(cls, ChatGLMConfig(**values))
    return skeletons.skeleton(cls, values if issubclass(cls, ModelMixin) else cls.config_class(**values))


def _fill(name: str, empty: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    if empty.ndim < 2:
        return empty.fill_(1.0 if name == "weight" else 0.0)
    return empty.normal_(0.0, empty[0].numel() ** -0.5, generator=generator)


def pipeline(
    cls: type[Any],
    config: Path,
    device: torch.device,
    dtype: Dtypes,
    components: dict[str, Any],
    place: torch.device | None = None,
) -> Any:
    """A whole pipeline of a shipped configuration; ``components`` replace its own (None: leave out)."""
    index = json.loads((config / "model_index.json").read_text())
    accepted = inspect.signature(cls.__init__).parameters
    built = {name: value for name, value in components.items() if name in accepted}
    for name, value in index.items():
        if name in built or name not in accepted:
            continue
        if isinstance(value, list):
            library, class_name = value
            own = of_name(dtype, name)
            built[name] = library and _component(library, class_name, config / name, device, own, place)
        else:
            built[name] = value
    return cls(**built)


def _component(
    library: str,
    class_name: str,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    place: torch.device | None,
) -> Any:
    if class_name == "CLIPTokenizer":
        return clip_tokenizer(folder)
    if class_name == "T5TokenizerFast":
        return _t5_tokenizer()
    if class_name == "ChatGLMTokenizer":
        return _chatglm_tokenizer()
    if class_name == "CLIPImageProcessor":
        return CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
    known = import_module("diffusers.pipelines")
    module = getattr(known, library) if hasattr(known, library) else import_module(library)
    cls = getattr(module, class_name)
    if issubclass(cls, SchedulerMixin):
        return cls.from_pretrained(folder, local_files_only=True)
    return network(cls, folder, device, dtype, place)


def _t5_tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer of single ASCII characters; the real vocabulary does not ship, and the cost is the same."""
    characters = ["\u2581", *map(chr, range(ord("!"), ord("~") + 1))]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary = [*special, *((character, -5.0) for character in characters)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def _chatglm_tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer of single letters, which pads to 256 tokens like the real one."""
    with tempfile.TemporaryDirectory() as folder:
        return glm_tokenizer(Path(folder), words=())
