"""What requests need of the pipelines of a pool, in bytes: as far as is known before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.denoising.needs import Needs, Running, Work
from pipelines.engine.parts import Opened
from pipelines.engine.places import Places
from pipelines.engine.plan import Sizes, expected_needs, peak_bytes, whole, with_controls
from pipelines.errors import NeverFits
from pipelines.request import Prompted, Request
from pipelines.weights.manifest import Manifest
from pipelines.weights.memory import controlnet_bytes, needed_bytes, part_bytes


class Estimates:
    """The needs of requests, and the bytes of parts: measured where they were opened once, else expected.

    Attributes:
        manifest: what can be opened now.
    """

    def __init__(self, manifest: Manifest, places: Places, device_bytes: int | None) -> None:
        """
        Args:
            device_bytes: the bytes of the whole device, activations included; None: they are not known.
        """
        self.manifest = manifest
        self._places = places
        self._device_bytes = device_bytes
        self._measured: dict[str, Mapping[str, int]] = {}

    def measure(self, opened: Opened) -> None:
        """Remember what the parts of a pipeline take that was opened."""
        self._measured[opened.name] = {part.name: part.own_bytes for part in opened.parts.values()}

    @property
    def measured(self) -> tuple[str, ...]:
        """The names of the pipelines that were opened once."""
        return tuple(self._measured)

    def forget(self, name: str) -> None:
        """Forget what a pipeline takes, since another one has its name now."""
        self._measured.pop(name, None)

    def own_bytes(self, name: str) -> int:
        """The bytes of all parts of a pipeline without what requests have put on them."""
        return sum(self._by_part(name).values())

    def needs(self, name: str, request: Request) -> Needs:
        """What a request needs of its pipeline."""
        opened = self._places.opened.get(name)
        if opened is None or not self._moves:
            controls = request.controls if isinstance(request, Prompted) else ()
            return with_controls(self.expected(name), controls)
        needs = opened.pipeline.needs(request)
        opened.drawing = needs.drawing | needs.finish
        return needs

    def expected(self, name: str) -> Needs:
        """What any request needs of a pipeline."""
        return expected_needs(self.manifest.pipeline(name)) if self._moves else self.whole(name)

    def whole(self, name: str) -> Needs:
        """All of a pipeline: on a CPU it comes and goes as a whole."""
        opened = self._places.opened.get(name)
        return whole(opened.parts if opened else part_bytes(self.manifest.pipeline(name)))

    def alone(self, works: list[Work]) -> int:
        """The most bytes of weights that the works need at one moment while nothing else runs."""
        return peak_bytes([], works, self._own_bytes)

    def beside(self, running: Running, works: list[Work]) -> int:
        """The most bytes of weights that the works need at one moment together with all that runs."""
        return peak_bytes(self._works(running), works, self._bytes_beside(running))

    def refusal(self, name: str, works: list[Work]) -> NeverFits | None:
        """The error for a request that does not fit the device when it is alone; None: it does."""
        alone, budget_bytes = self.alone(works), self._places.budget_bytes
        if alone > budget_bytes:
            return NeverFits(name, alone, budget_bytes)
        needed = needed_bytes(self.manifest.pipeline(name))
        if self._device_bytes is not None and needed > self._device_bytes:
            return NeverFits(name, needed, self._device_bytes)
        return None

    @property
    def _moves(self) -> bool:
        return self._places.mover is not None

    def _by_part(self, name: str) -> Mapping[str, int]:
        return self._measured.get(name) or part_bytes(self.manifest.pipeline(name))

    def _works(self, running: Running) -> list[Work]:
        """What the requests that run need; what any request would of a pipeline whose own are not known."""
        return [
            Work(name, needs)
            for name, each in running.items()
            for needs in (each if each and self._moves else [self.expected(name)])
        ]

    def _own_bytes(self, name: str, part: str) -> int:
        """The bytes of a part without what requests have put on it; those of a ControlNet that is added."""
        opened = self._places.opened.get(name)
        if opened and part in opened.parts:
            return opened.parts[part].own_bytes
        if part.startswith("controlnet:"):
            entry = self.manifest.pipeline(name)
            return controlnet_bytes(self.manifest, entry, part.removeprefix("controlnet:"))
        return self._by_part(name).get(part, 0)

    def _bytes_beside(self, running: Running) -> Sizes:
        """The bytes of parts with what requests have put on those that are in use."""

        def sizes(name: str, part: str) -> int:
            opened = self._places.opened.get(name)
            if name in running and opened and part in opened.parts:
                return opened.parts[part].nbytes
            return self._own_bytes(name, part)

        return sizes
