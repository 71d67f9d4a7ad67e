"""The tensors' names and shapes in what torch pickles, read without running it. Torch-free."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipelines.weights.header import Shapes, Unrecognised

_ZIP = b"PK\x03\x04"
_OLD_MAGIC = 0x1950A86A20F9469CFC6C
"""The number with which files begin that torch wrote before version 1.6, as a pickle of its own."""

_MAX_PICKLE_BYTES = 50_000_000
"""The most bytes of a pickle without its tensors that are read; a checkpoint's has half a megabyte."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    shape: tuple[int, ...]


class _Anything:
    """Stands for what is beside the tensors and says nothing about them: number formats, devices."""

    def __new__(cls, *arguments: Any, **named: Any) -> _Anything:
        return super().__new__(cls)


def _tensor(storage: Any, offset: Any, size: Any, *rest: Any) -> _Tensor:
    return _Tensor(tuple(int(side) for side in size))


def _parameter(data: Any, *rest: Any) -> Any:
    return data


def _size(*sides: Any) -> tuple[Any, ...]:
    return tuple(sides[0]) if sides else ()


def _encoded(text: str, *rest: Any) -> bytes:
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): _size,
    ("torch", "device"): _Anything,
    ("_codecs", "encode"): _encoded,
}
"""What a pickle of bare tensors calls, and what is done instead; torch opens no others here either."""


class _MoreThanTensors(Exception):
    """A pickle names a class or function that bare tensors do not need."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        if known := _KNOWN.get((module, name)):
            return known
        if module in ("torch", "torch.storage"):  # number formats, and the kinds of storages
            return _Anything
        raise _MoreThanTensors(f"{module}.{name}")

    def persistent_load(self, pid: Any, /) -> Any:
        return _Anything()


def read_pickle_shapes(path: Path) -> Shapes:
    """The shapes of a pickle's tensors by their path in its dictionaries, joined by dots.

    Raises:
        Unrecognised: it is no pickle of torch, or holds more than tensors.
    """
    try:
        with path.open("rb") as file:
            opened = _opened(file)
    except _MoreThanTensors as error:
        raise Unrecognised(
            f"it is a pickle that holds more than tensors ({error}); give a .safetensors"
        ) from error
    except Exception as error:  # a damaged pickle can make the machine that reads it raise anything
        raise Unrecognised("it is not a file that torch saved, or is damaged") from error
    return dict(_flat(opened))


def _opened(file: BinaryIO) -> Any:
    start = file.read(len(_ZIP))
    file.seek(0)
    if start == _ZIP:
        with zipfile.ZipFile(file) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            if archive.getinfo(name).file_size > _MAX_PICKLE_BYTES:
                raise ValueError("too large")
            return _Unpickler(io.BytesIO(archive.read(name))).load()
    first = _Unpickler(file).load()
    if first != _OLD_MAGIC:
        raise ValueError("not torch's")
    for _ in ("protocol version", "system information"):
        _Unpickler(file).load()
    return _Unpickler(file).load()


def _flat(opened: Any, name: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    if isinstance(opened, _Tensor):
        yield name or "emb_params", opened.shape
    elif isinstance(opened, dict):
        for key, value in cast("dict[Any, Any]", opened).items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))
