"""What Segmind's pages of Stable Diffusion ask an engine for, with pictures that their tests share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.image_io import RGBImage
from pipelines.request import SchedulerChoice
from pipelines.weights.manifest import Manifest
from server.endpoints.fields import read
from server.endpoints.segmind.page import Page
from tests.contract.segmind_refusal import CHECKPOINTS

PICTURE = RGBImage(90, 60, bytes(range(90)) * 60 * 3)
MASK = RGBImage(60, 60, bytes(60 * 60 * 3))
SENT = {"prompt": "a cat", "image": "AAAA", "mask": "AAAA"}
"""A body that every page takes."""

DDIM = SchedulerChoice(name="DDIMScheduler")
UNIPC = SchedulerChoice(name="UniPCMultistepScheduler")


def controlnets(**preprocessors: str | None) -> Manifest:
    """A manifest with these ControlNets of SD1.5."""
    entries = {
        name: {"source": {"folder": name}, "family": "sd15", "preprocessor": preprocessor}
        for name, preprocessor in preprocessors.items()
    }
    return Manifest.model_validate({"pipelines": CHECKPOINTS, "controlnets": entries})


ALL = controlnets(
    canny="canny", depth="depth", openpose="openpose", scribble="scribble", softedge="hed", mlsd="mlsd"
)
"""A manifest with every ControlNet that has a page."""


def drawn(page: type[Page], body: Mapping[str, Any], manifest: Manifest = ALL) -> Any:
    """What a page asks an engine for."""
    fields = read(page, body)
    pictures = {name: {"image": PICTURE, "mask": MASK}[name] for name in fields.sent_pictures()}
    return fields.to_request(manifest, pictures)
