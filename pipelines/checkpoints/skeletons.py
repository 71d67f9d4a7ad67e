"""Networks without numbers, built beside other threads: nothing global is patched or set meanwhile.

``from_pretrained`` of diffusers and transformers replaces methods of ``torch.nn.Module`` and sets torch's
default dtype for all threads while it builds a network; another thread that computes meanwhile would build
and fill its own tensors by that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch.overrides import TorchFunctionMode

from pipelines.checkpoints.diffusers_kolors import ChatGLMModel

_FLOATING = {torch.zeros, torch.ones, torch.full, torch.linspace, torch.rand, torch.randn}
"""The functions whose results have torch's default dtype where none is named."""


class _WithoutNumbers(TorchFunctionMode):
    """Within it, this thread's uninitialised tensors are on the meta device; all others hold their numbers.

    Networks make their parameters with `torch.empty` and their buffers with what gives numbers.
    """

    def __init__(self, pause: Callable[[], None], dtype: torch.dtype | None) -> None:
        """
        Args:
            dtype: the type of floating numbers for which none is named; None: torch's default.
        """
        super().__init__()
        self._pause = pause
        self._dtype = dtype

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is torch.empty:
            self._pause()
            if given.get("device") is None:
                given["device"] = "meta"
        elif func in _FLOATING and given.get("dtype") is None and self._is_floating(func, args, given):
            given["dtype"] = self._dtype
        return func(*args, **given)

    @staticmethod
    def _is_floating(func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any]) -> bool:
        return func is not torch.full or isinstance(given.get("fill_value", args[-1]), float)


def skeleton(
    cls: Any, config: Any, dtype: torch.dtype | None = None, pause: Callable[[], None] = lambda: None
) -> Any:
    """A network whose parameters are on the meta device, and whose other tensors hold their real values.

    Args:
        config: for a class of transformers its configuration; for one of diffusers the values of it.
        dtype: the type of tensors for which the network names none; None: torch's default.
        pause: called before each parameter is made.
    """
    with _WithoutNumbers(pause, dtype):
        if cls is ChatGLMModel:
            # Its own empty_init would allocate everything on the host.
            return ChatGLMModel(config, empty_init=False)
        if issubclass(cls, ModelMixin):
            return cls.from_config(config)  # pyright: ignore[reportAttributeAccessIssue]
        return cls(config)
