"""Choices for single networks in weights.yaml, and the words in which wrong ones are refused. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast, get_args

from pipelines.weights.kinds import Dtype, Family, Quantization
from pipelines.weights.networks import NETWORKS

_KEYS: Mapping[str, tuple[str, ...]] = {"dtype": get_args(Dtype), "quantize": get_args(Quantization)}
"""What can be chosen for a network, and the values that it may have."""


def in_words(networks: object) -> object:
    """The choices as they were written, if each has a form that can be read.

    Raises:
        ValueError: one has not; the message says which and what it may be.
    """
    if not isinstance(networks, dict):
        raise ValueError("is a list of networks, such as {text_encoder: {quantize: int8}}")
    for name, choice in cast("dict[str, object]", networks).items():
        if isinstance(choice, dict):
            for key, value in cast("dict[str, object]", choice).items():
                _demand_value(name, key, value)
        elif choice is None or (isinstance(choice, str | int | float | list) and choice != "skip"):
            raise ValueError(f"{name}: {choice!r} is no choice; it is skip, or has {' or '.join(_KEYS)}")
    return cast(object, networks)


def _demand_value(name: str, key: str, value: object) -> None:
    if key not in _KEYS:
        raise ValueError(f"{name}: {key!r} cannot be chosen; {' and '.join(_KEYS)} can")
    if value is not None and value not in _KEYS[key]:
        raise ValueError(f"{name}: {key} may be {', '.join(_KEYS[key])}, not {value!r}")


def demand_networks(family: Family, names: Iterable[str]) -> None:
    """Refuse names that are none of the family's networks.

    Raises:
        ValueError: names it, and those that there are.
    """
    known = NETWORKS[family].numbers
    for name in names:
        if name not in known:
            raise ValueError(f"{family} has no network {name}; it has {', '.join(known)}")


def demand_optional(family: Family, name: str) -> None:
    """Refuse to draw without a network that a family needs.

    Raises:
        ValueError: names it, and those that it can do without.
    """
    may = NETWORKS[family].may_skip
    if name not in may:
        others = f"; it does without {', '.join(may)}" if may else ""
        raise ValueError(f"{name}: {family} cannot draw without it{others}")


def demand_text_encoder(family: Family, name: str) -> None:
    """Refuse to quantize a network whose rounding would be seen in every step.

    Raises:
        ValueError: names it, and those that may be quantized.
    """
    may = NETWORKS[family].text_encoders
    if name not in may:
        which = f"{family} has {', '.join(may)}" if may else f"{family} has none"
        raise ValueError(f"{name}: only text encoders may be quantized; {which}")
