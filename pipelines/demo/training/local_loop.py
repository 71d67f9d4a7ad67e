"""Draw with the small checkpoints in this process, as an engine does, to look at their pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pipelines.denoising.loop import Loop
from pipelines.drawing import Drawing
from pipelines.engine.process import open_pool
from pipelines.image_io import RGBImage
from pipelines.messages import Drawn, EngineConfig, Failed
from pipelines.request import Request

GROUP_PIXELS = 8 * 512 * 512


class LocalLoop:
    """One loop over the checkpoints of a manifest."""

    def __init__(self, manifest: Path, device: str = "cpu") -> None:
        config = EngineConfig(
            manifest=manifest,
            weights=manifest.parent,
            device=device,
            budget_bytes=4 * 2**30,
            host_budget_bytes=2**30,
            group_pixels=GROUP_PIXELS,
        )
        self._loop = Loop(open_pool(config), GROUP_PIXELS, device=torch.device(device))

    def draw(
        self, requests: Sequence[Request], on_picture: Callable[[], None] = lambda: None
    ) -> list[tuple[RGBImage, ...]]:
        """The pictures of each request; see `drawings`."""
        return [drawing.images for drawing in self.drawings(requests, on_picture)]

    def drawings(
        self, requests: Sequence[Request], on_picture: Callable[[], None] = lambda: None
    ) -> list[Drawing]:
        """Draw requests together, and return their drawings in order.

        Args:
            on_picture: called whenever a request is done.
        Raises:
            RuntimeError: a request could not be drawn.
        """
        for index, request in enumerate(requests):
            self._loop.submit(str(index), request)
        drawn: dict[int, Drawing] = {}
        while not self._loop.idle:
            for event in self._loop.turn():
                if isinstance(event, Failed):
                    raise RuntimeError(f"{requests[int(event.ticket_id)]}: {event.error}")
                if isinstance(event, Drawn):
                    drawn[int(event.ticket_id)] = event.drawing
                    on_picture()
        return [drawn[index] for index in range(len(requests))]
