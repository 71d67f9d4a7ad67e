"""Build networks without the random numbers that those of a file are going to replace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_RANDOM_FILLS = {
    torch.Tensor.uniform_,
    torch.Tensor.normal_,
    torch.Tensor.erfinv_,
    torch.nn.init.uniform_,
    torch.nn.init.normal_,
    torch.nn.init.kaiming_uniform_,
}
"""The functions that fill new parameters with random numbers, or take long to shape those."""


class _Skip(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _RANDOM_FILLS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def skip_init() -> TorchFunctionMode:
    """A context in which new networks are not initialised: their parameters hold whatever was in memory.

    Load every parameter before the context is left. Drawing 345 million random numbers would take half a
    minute, in which an engine does nothing else.
    """
    return _Skip()
