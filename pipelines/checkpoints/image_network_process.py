"""A process that says which files are upscalers and face restorers: whoever asks need not load torch.

Run as ``python -m pipelines.checkpoints.image_network_process``. Paths come in on the standard input as a
list in JSON; for each a line of JSON goes out: ``{"path": ..., "kind": ..., "about": ..., "problem": ...}``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError
from torch import Tensor

from pipelines.weights.conversion import NotTensors, demand_tensors

_KINDS = {"SR": "upscaler", "FaceSR": "face_restorer"}


def describe(path: Path) -> dict[str, Any]:
    """What a file is: kind and what is to be told about it, or the problem with it."""
    try:
        network = _opened(path)
    except (NotTensors, OSError) as error:
        return {"problem": f"it cannot be read: {error}"}
    except UnsupportedModelError:
        return {"problem": "it is of no architecture that spandrel knows"}
    except Exception as error:  # of an architecture that spandrel takes it for, and is not
        return {"problem": f"it is no whole network that spandrel knows: {error}".splitlines()[0]}
    kind = _KINDS.get(network.purpose)
    if not isinstance(network, ImageModelDescriptor) or kind is None:
        return {"problem": f"it is a {network.architecture.name} for another purpose ({network.purpose})"}
    if (network.input_channels, network.output_channels) != (3, 3):
        return {"problem": f"it is a {network.architecture.name} for other pictures than coloured ones"}
    scale = f", x{network.scale}" if kind == "upscaler" else ""
    return {"kind": kind, "about": f"{network.architecture.name}{scale}"}


def _opened(path: Path) -> Any:
    """The network, without its numbers where its architecture can be opened so."""
    tensors = _tensors(path)
    try:
        with torch.device("meta"):
            return ModelLoader("meta").load_from_state_dict(_without_numbers(tensors))
    except Exception:  # some architectures look at numbers
        return ModelLoader("cpu").load_from_state_dict(tensors)


def _without_numbers(tensors: Any) -> Any:
    """The same tensors on the meta device, in whatever dictionaries a trainer put them."""
    if isinstance(tensors, Tensor):
        return tensors.to("meta")
    if isinstance(tensors, dict):
        return {name: _without_numbers(value) for name, value in tensors.items()}
    return tensors


def _tensors(path: Path) -> Any:
    if path.suffix.lower() != ".safetensors":
        return demand_tensors(path)
    with safe_open(path, framework="pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping


def main() -> None:
    for path in json.load(sys.stdin):
        print(json.dumps({"path": path, **describe(Path(path))}), flush=True)


if __name__ == "__main__":
    main()
