"""The bytes that one evaluation of a full-size network takes beside its weights, counted on the meta device.

    python -m tests.benchmarks.activations

No memory is taken: tensors of the meta device have shapes alone. What lives is added up, what is freed is
subtracted.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.families.registry import open_pipeline
from pipelines.weights.manifest import load_manifest
from pipelines.weights.networks import Stage
from tests.gpu.stages import SIDES, in_precision

META = torch.device("meta")
ROWS = 2
"""One picture with guidance is evaluated with and without its prompt."""

Modules = Mapping[str, Any]


class _Fused(TorchFunctionMode):
    """Attentions that make no matrix of all queries and keys, as the kernels of a GPU."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            query, _, value = args[:3]
            return query.new_empty((*query.shape[:-1], value.shape[-1]))
        return func(*args, **(kwargs or {}))


class Living(TorchDispatchMode):
    """Adds up the bytes of all tensors that live, but for the weights.

    Attributes:
        most: the most bytes that lived at one moment.
    """

    def __init__(self, modules: Modules) -> None:
        super().__init__()
        tensors = [each for module in modules.values() for each in (*module.parameters(), *module.buffers())]
        self._weights = [tensor.untyped_storage() for tensor in tensors]
        self._known = {storage._cdata for storage in self._weights}
        self._now = 0
        self.most = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self._now += size
            self.most = max(self.most, self._now)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


def most_bytes(modules: Modules, evaluate: Callable[[], Any]) -> int:
    """The most bytes beside the weights that live at one moment of an evaluation."""
    with torch.no_grad(), _Fused(), Living(modules) as living:
        evaluate()
    return living.most


def modules_of(name: str) -> Modules:
    """A pipeline's networks in half precision, on the meta device."""
    manifest = in_precision(load_manifest(Path(__file__).parents[1] / "gpu/weights.yaml"), "float16")
    checkpoint = Checkpoint(name, manifest, manifest.pipelines[name], Path(), META)
    return open_pipeline(checkpoint, AdapterLibrary(manifest, Path())).modules


def counted(
    name: str, modules: Modules, *, pictures: int = 1, side: int | None = None
) -> Iterator[tuple[Stage, int]]:
    """Each stage of a pipeline and its bytes.

    Args:
        pictures: that are denoised and decoded in one evaluation.
        side: of a picture; None: the default.
    """
    side = side or SIDES[name]
    evaluations = (
        _kandinsky(modules, pictures, side) if "kandinsky" in name else _latent(name, modules, pictures, side)
    )
    for stage, evaluate in evaluations:
        yield stage, most_bytes(modules, evaluate)


def _latent(
    name: str, modules: Modules, pictures: int, side: int
) -> Iterator[tuple[Stage, Callable[[], Any]]]:
    channels, rows, size = modules["vae"].config.latent_channels, ROWS * pictures, side // 8
    times, latents = torch.zeros(rows, device=META), _half(rows, channels, size, size)
    if name == "kolors":
        tokens = torch.zeros(1, 256, device=META, dtype=torch.long)
        text_encoder = modules["text_encoder"]
        yield "encode", lambda: text_encoder(tokens, position_ids=tokens, output_hidden_states=True)
    else:
        read = ROWS if name == "sd3-medium-pose" else 1
        yield "encode", lambda: modules["vae"].encode(_half(read, 3, side, side))
    if name == "sd3-medium-pose":
        yield "denoise", lambda: _sd3(modules, latents, times)
    else:
        unet = modules["unet"]
        texts = _half(rows, 77, unet.config.encoder_hid_dim or unet.config.cross_attention_dim)
        pooled = {"sdxl": 1280, "kolors": 4096}.get(name, 0)
        added = {"text_embeds": _half(rows, pooled), "time_ids": _half(rows, 6)}
        yield "denoise", lambda: unet(latents, times, encoder_hidden_states=texts, added_cond_kwargs=added)
    yield "finish", lambda: modules["vae"].decode(_half(pictures, channels, size, size))


def _sd3(modules: Modules, latents: Tensor, times: Tensor) -> None:
    rows = len(latents)
    shared = {
        "hidden_states": latents,
        "timestep": times,
        "encoder_hidden_states": _half(rows, 77 + 256, 4096),
        "pooled_projections": _half(rows, 2048),
        "return_dict": False,
    }
    residuals = modules["controlnet"](**shared, controlnet_cond=latents, conditioning_scale=1.0)[0]
    modules["transformer"](**shared, block_controlnet_hidden_states=residuals)


def _kandinsky(modules: Modules, pictures: int, side: int) -> Iterator[tuple[Stage, Callable[[], Any]]]:
    rows, size = ROWS * pictures, side // 8
    times = torch.zeros(rows, device=META)
    embeddings, mask = _half(rows, 1280), torch.ones(rows, 77, device=META, dtype=torch.bool)
    yield "encode", lambda: modules["prior.image_encoder"](_half(1, 3, 224, 224))
    yield "prior", lambda: modules["prior.prior"](embeddings, times, embeddings, _half(rows, 77, 1280), mask)
    latents, added = _half(rows, 4, size, size), {"image_embeds": embeddings}
    yield "denoise", lambda: modules["decoder.unet"](latents, times, None, added_cond_kwargs=added)
    yield (
        "finish",
        lambda: modules["decoder.movq"].decode(_half(pictures, 4, size, size), force_not_quantize=True),
    )


def _half(*shape: int) -> Tensor:
    return torch.empty(shape, device=META, dtype=torch.float16)


def main() -> None:
    for name, side in SIDES.items():
        modules = modules_of(name)
        for stage, size in counted(name, modules):
            print(
                f"{name:24} {stage:8} {size / 1e6:8.1f} MB {size / side**2:8.1f} bytes per pixel", flush=True
            )


if __name__ == "__main__":
    main()
