"""The dtypes in which the networks of one pipeline are opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch

Dtypes: TypeAlias = torch.dtype | Mapping[str, torch.dtype]
"""The dtype of all networks of a pipeline, or of each by its name; ``default`` is that of all others."""


def of_name(dtypes: Dtypes, name: str) -> torch.dtype:
    """The dtype of the network of that name."""
    return dtypes if isinstance(dtypes, torch.dtype) else dtypes.get(name, dtypes["default"])
