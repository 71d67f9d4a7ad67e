"""The names that diffusers gave to layers of attentions before 0.17, which files still have. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipelines.weights.layouts.placing import Spelling
from pipelines.weights.layouts.tensors import Expected

_BEFORE = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""The layers of an attention, and how diffusers called them before."""


def deprecated(name: str) -> Iterator[str]:
    """The earlier name of a tensor in diffusers, where it had another one."""
    for layer, before in _BEFORE.items():
        if f".{layer}." in name:
            yield name.replace(f".{layer}.", f".{before}.")


def vae_spellings(*prefixes: str) -> Callable[[Expected], Iterator[Spelling]]:
    """The names of a VAE's tensors, behind each of the prefixes."""

    def spellings(each: Expected) -> Iterator[Spelling]:
        for prefix in prefixes:
            yield prefix + each.original, "none"
            yield prefix + each.name, "none"
            for name in deprecated(each.name):
                yield prefix + name, "none"

    return spellings
