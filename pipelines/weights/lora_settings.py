"""The settings of a PEFT adapter that stand in other places than its tensors. Torch-free.

PEFT writes them into ``adapter_config.json`` beside the file, newer releases of diffusers into its header.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pipelines.weights.header import Unrecognised
from pipelines.weights.lora_names import NETWORKS

CONFIG_NAME = "adapter_config.json"
"""The file in which PEFT stores an adapter's settings, beside its tensors."""

HEADER_KEY = "lora_adapter_metadata"
"""The entry of a file's header in which diffusers stores the settings of all networks, as JSON."""

_KINDS = ("LORA", "LOHA", "LOKR")
"""The kinds of adapters of PEFT with which this server can draw."""

_CHANGED_WEIGHTS = ("pissa", "olora", "corda", "loftq")
"""Ways to begin a training that change the network's own weights, too, which an adapter's file leaves out."""


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """What decides how strong each layer of one network is.

    Attributes:
        alpha: the numerator of the strength; None: it is the rank.
        alpha_pattern: alphas of single modules, by the end of a name or an expression for one.
        rslora: whether the divisor is the root of the rank (Kalajdzievski 2023), not the rank.
        notes: sentences for the caller.
    """

    alpha: float | None = None
    alpha_pattern: Mapping[str, float] = field(default_factory=dict[str, float])
    rslora: bool = False
    notes: tuple[str, ...] = ()

    def alpha_over_rank(self, names: tuple[str, ...], rank: int) -> float:
        """The strength of a layer of that rank, whose module has these names."""
        alpha = next(
            (self.alpha_pattern[key] for key in self.alpha_pattern if _matches(key, names)), self.alpha
        )
        if alpha is None:
            return 1.0
        return alpha / (rank**0.5 if self.rslora else rank)


def of_config(text: str) -> LoraSettings:
    """Read an ``adapter_config.json``; settings that decide nothing here are left alone, known or not.

    Raises:
        Unrecognised: it is none, or of an adapter with which this server cannot draw.
    """
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unrecognised(f"its {CONFIG_NAME} is no JSON") from error
    if not isinstance(found, dict):
        raise Unrecognised(f"its {CONFIG_NAME} is no object")
    return _settings(cast("dict[str, Any]", found))


def of_header(text: str) -> dict[str, LoraSettings]:
    """Read what diffusers wrote into a header: network -> settings.

    Raises:
        ValueError: it cannot be read.
        Unrecognised: it is of an adapter with which this server cannot draw.
    """
    try:
        found: object = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    entries = cast("dict[str, Any]", found)
    settings: dict[str, LoraSettings] = {}
    for network in NETWORKS:
        own = {
            key.removeprefix(f"{network}."): value
            for key, value in entries.items()
            if key.startswith(f"{network}.")
        }
        if isinstance(entries.get(network), dict):
            own |= cast("dict[str, Any]", entries[network])
        if own:
            settings[network] = _settings(own)
    if not settings and "lora_alpha" in entries:
        settings = dict.fromkeys(NETWORKS, _settings(entries))
    return settings


def _settings(entries: Mapping[str, Any]) -> LoraSettings:
    kind = entries.get("peft_type")
    if isinstance(kind, str) and kind.upper() not in _KINDS:
        raise Unrecognised(f"it is an adapter of PEFT's kind {kind}; this server has {', '.join(_KINDS)}")
    pattern = entries.get("alpha_pattern")
    patterns = cast("dict[str, Any]", pattern) if isinstance(pattern, dict) else {}
    begun = entries.get("init_lora_weights")
    changed = isinstance(begun, str) and begun.lower().startswith(_CHANGED_WEIGHTS)
    note = f"was trained on weights that {begun} had changed, and may look different on a checkpoint's own"
    return LoraSettings(
        alpha=_number(entries.get("lora_alpha", entries.get("alpha"))),
        alpha_pattern={
            key: alpha for key, value in patterns.items() if (alpha := _number(value)) is not None
        },
        rslora=entries.get("use_rslora") is True,
        notes=(note,) if changed else (),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _matches(key: str, names: tuple[str, ...]) -> bool:
    """Whether a key of a pattern means a module, as PEFT has it: a whole name, or its end at a dot."""
    try:
        pattern = re.compile(rf"(.*\.)?({key})$")
    except re.error:
        pattern = re.compile(rf"(.*\.)?({re.escape(key)})$")
    return any(pattern.match(name) for name in names)
