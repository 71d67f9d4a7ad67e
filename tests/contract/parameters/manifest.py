"""What the server of these tests can draw with; nothing of it is ever opened."""

from __future__ import annotations

from typing import Any

from tests.contract.segmind_refusal import CHECKPOINTS


def _source(name: str) -> dict[str, str]:
    return {"folder": name}


def _adapter(name: str) -> dict[str, Any]:
    return {"source": _source(name), "family": "sd15"}


MANIFEST: dict[str, Any] = {
    "pipelines": {
        "photographs": {
            "family": "sd15",
            "parts": {"pipeline": _source("photographs"), "safety_checker": _source("checker")},
        },
        "drawings": {"family": "sd15", "parts": {"pipeline": _source("drawings")}},
        **CHECKPOINTS,
        "translator": {"family": "mbart50", "parts": {"pipeline": _source("translator")}},
    },
    "loras": {"more_details": _adapter("more_details"), "pencil": _adapter("pencil")},
    "embeddings": {"bad-hands": _adapter("bad-hands")},
    "vaes": {"soft": _adapter("soft")},
    "controlnets": {
        "canny": {**_adapter("canny"), "preprocessor": "canny"},
        "depth": {**_adapter("depth"), "preprocessor": "depth"},
        "openpose": {**_adapter("openpose"), "preprocessor": "openpose"},
        "scribble": {**_adapter("scribble"), "preprocessor": "scribble"},
        "softedge": {**_adapter("softedge"), "preprocessor": "hed"},
        "mlsd": {**_adapter("mlsd"), "preprocessor": "mlsd"},
    },
    "upscalers": {"fast": {"source": _source("fast")}, "fine": {"source": _source("fine")}},
    "face_restorers": {"faces": {"source": _source("faces")}},
}
