"""A device that is not there: it computes on the CPU, but its tensors refuse to meet the CPU's."""
# torch's dispatch is untyped.

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_aten = torch.ops.aten
_CROSSING = {
    _aten._to_copy.default,
    _aten.copy_.default,
    _aten.index.Tensor,
    _aten.index_put_.default,
}
"""The operations in which CUDA lets tensors of two devices meet: copies, and indices on the CPU."""


WAITS: list[str] = []
"""Operations that made the CPU wait for the far device, as they came."""


class MixedDevices(RuntimeError):
    """One operation was given tensors of both devices."""


class FarTensor(Tensor):
    """Says that it is on the far device; ``near`` holds its values, in the same layout."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> FarTensor:
        far = Tensor._make_wrapper_subclass(
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=torch.device("far:0"),
        )
        far.near = near
        return far

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    """Sees the operations that make tensors, which no `FarTensor` takes part in."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    far = [tensor for tensor in tensors if isinstance(tensor, FarTensor)]
    near = [tensor for tensor in tensors if not isinstance(tensor, FarTensor)]
    if far and func not in _CROSSING and any(tensor.dim() for tensor in near):
        shapes = [(str(tensor.device), tuple(tensor.shape)) for tensor in tensors]
        raise MixedDevices(f"{func} of {shapes}")
    goes_far = _goes_far(func, args, kwargs, bool(far))
    if far and (not goes_far or func is _aten._local_scalar_dense.default):
        WAITS.append(str(func))
    wrappers = {id(tensor.near): tensor for tensor in far}

    def wrapped(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return wrappers[id(leaf)] if id(leaf) in wrappers else FarTensor(leaf)

    result = func(*tree_map(_near, args), **tree_map(_near, kwargs))
    return tree_map(wrapped, result) if goes_far else result


def _goes_far(func: Any, args: Any, kwargs: Any, any_far: bool) -> bool:
    if func is _aten.copy_.default:
        return isinstance(args[0], FarTensor)
    device = kwargs.get("device")
    return any_far if device is None else torch.device(device).type == "far"


def _near(leaf: Any) -> Any:
    if isinstance(leaf, FarTensor):
        return leaf.near
    return torch.device("cpu") if isinstance(leaf, torch.device) and leaf.type == "far" else leaf


class _Literals(TorchFunctionMode):
    """Python numbers become tensors on the CPU first: torch makes them where no dispatch mode looks."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if func is torch.tensor and device is not None and torch.device(device).type == "far":
            del kwargs["device"]
            return torch.tensor(*args, **kwargs).to(device)
        if func is Tensor.__getitem__ and isinstance(args[1], list):
            args = (args[0], torch.tensor(args[1]))
        return func(*args, **kwargs)


@contextmanager
def far_device() -> Generator[torch.device]:
    """The far device, inside the block.

    Registers a backend with torch, once and for all: use it in a process of its own.
    """
    _setup_privateuseone_for_python_backend("far")
    # Else module.to() would change a tensor's type behind the back of its values.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with _Operations(), _Literals():
        yield torch.device("far:0")
