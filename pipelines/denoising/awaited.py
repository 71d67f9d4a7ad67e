"""The requests whose pipeline is being read beside the loop."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.denoising.active_request import ActiveRequest
from pipelines.denoising.needs import InUse
from pipelines.denoising.pool import PipelineLoader
from pipelines.request import pipelines_of


class Awaited:
    """The pipelines that are being read, by name, with the requests that wait for each."""

    def __init__(self, loader: PipelineLoader | None) -> None:
        """
        Args:
            loader: None: pipelines are opened between two steps, and no request waits for one.
        """
        self._loader = loader
        self._requests: dict[str, list[ActiveRequest]] = {}

    def __bool__(self) -> bool:
        return bool(self._requests)

    def __iter__(self) -> Iterator[str]:
        return iter(self._requests)

    def takes(self, active: ActiveRequest, in_use: InUse) -> bool:
        """Whether a pipeline of the request has to be read first; the request waits here until it is.

        Raises:
            UnknownPipeline, CheckpointUnavailable, OutOfMemory: the pipeline cannot be read.
        """
        if self._loader is None:
            return False
        for name in pipelines_of(active.request):
            if not self._loader.ready(name, in_use):
                self._requests.setdefault(name, []).append(active)
                return True
        return False

    def ended(self, in_use: InUse) -> Iterator[tuple[ActiveRequest, Exception | None]]:
        """The requests whose pipeline is read, or failed to be with this error; the newest first."""
        for name, error in self._loader.finished(in_use) if self._loader is not None else ():
            for active in reversed(self._requests.pop(name, [])):
                yield active, error

    def remove(self, ticket_id: str) -> None:
        """Take a request out, if it waits."""
        for requests in self._requests.values():
            requests[:] = [active for active in requests if active.ticket_id != ticket_id]
