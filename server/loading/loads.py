"""Load checkpoints and adapters while the server runs, in tasks that outlive their request and a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from pipelines.weights.atomic import write_atomically
from pipelines.weights.fetch_process import Fetched, unwritable
from pipelines.weights.header import Unrecognised
from pipelines.weights.kinds import SECTIONS, Kind, Precision, StableDiffusionFamily
from pipelines.weights.loaded import LoadedEntry, parse
from server.engines.dispatch import Dispatch
from server.errors import ApiError, FieldError
from server.loading.catalogue import Catalogue
from server.loading.incoming import Incoming
from server.loading.transfer import NotLoaded
from server.outside.public_http import PublicHTTP
from server.settings import Settings
from server.webhooks.outbox import Webhooks

log = logging.getLogger(__name__)

RECORD_NAME = "loads.yaml"
"""The file in the weights folder that records the loads that are under way or failed."""

MAX_FAILURES = 20
"""The most failed loads that are remembered."""


class Load(BaseModel):
    """A caller's wish to load a checkpoint or adapter.

    Attributes:
        name: the name by which requests will call it.
        origin: URL of a .safetensors file, or ``owner/name`` of a repository on the hub.
        revision: branch, tag or commit of the repository.
        precision: the precision that the caller names; None if the caller names none.
        kind: the kind that the caller names, which is checked; None if the caller names none.
        suggested: the kind that the caller seems to expect, which is not checked.
        family: the family that the caller names, which is believed only where the file does not tell.
        webhook: the URL of the receiver to tell when the load has ended.
        problem: the reason why it failed; None while it is under way.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    origin: str
    revision: str = "main"
    precision: Precision | None = None
    kind: Kind | None = None
    suggested: Kind | None = None
    family: StableDiffusionFamily | None = None
    account_id: int
    webhook: str | None = None
    track_id: str | int | float | None = None
    problem: str | None = None


_RECORD: TypeAdapter[list[Load]] = TypeAdapter(list[Load])


@dataclass(slots=True)
class LoadProgress:
    """The bytes of a load that are here, and all that there are; 0 of 0 before that is known."""

    done: int = 0
    total: int = 0

    def __call__(self, done: int, total: int) -> None:
        """Record the progress; the object serves as the callback of a download."""
        self.done, self.total = done, total


class Loads:
    """The loads of one server, which run one after the other and are recorded in the weights folder.

    A load that a restart interrupted is taken up again, and what was fetched of it is not fetched twice.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        dispatch: Dispatch,
        webhooks: Webhooks,
        public_http: PublicHTTP,
    ) -> None:
        self._catalogue, self._dispatch, self._webhooks = catalogue, dispatch, webhooks
        self._path = settings.weights / RECORD_NAME
        self._incoming = Incoming(settings, public_http)
        self._weights = settings.weights
        self._loads: dict[str, Load] = {}
        self._progress: dict[str, LoadProgress] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()

    def states(self) -> list[tuple[Load, LoadProgress]]:
        """Every load that is under way or failed, with its progress, oldest first."""
        return [(load, self._progress.get(name, LoadProgress())) for name, load in self._loads.items()]

    def find(self, name: str) -> tuple[Load, LoadProgress] | None:
        """The load of that name with its progress, if it is under way or failed."""
        load = self._loads.get(name)
        return None if load is None else (load, self._progress.get(name, LoadProgress()))

    async def begin(self, load: Load) -> str | None:
        """Record a load and start it; it goes on behind this call.

        Returns:
            A warning for the caller where the same thing has that name already; nothing is loaded then.
        Raises:
            FieldError: the name is taken, or something is being loaded under it.
            ApiError: the weights folder cannot be written.
        """
        if (load.origin, load.revision) in self._catalogue.origins(load.name):
            await self._tell(load, {"status": "success", "message": "model loaded"})
            return f"{load.name} is on this server already, and nothing was loaded"
        if self._catalogue.is_own(load.name):
            raise FieldError("model_id", self._catalogue.own_words(load.name))
        if self._catalogue.has(load.name):
            raise FieldError("model_id", f"{load.name} is on this server already; delete it first")
        if load.name in self._tasks:
            raise FieldError("model_id", f"{load.name} is being loaded already")
        self._loads.pop(load.name, None)
        self._record({**self._loads, load.name: load})
        self._start(load)
        return None

    async def delete(self, name: str) -> bool:
        """Remove what was loaded when nobody draws with it any more, or stop loading it.

        Returns:
            Whether there was anything of that name.
        Raises:
            FieldError: the name stands in weights.yaml.
        """
        if self._catalogue.is_own(name):
            raise FieldError("model_id", f"{self._catalogue.own_words(name)}; remove it there")
        task = self._tasks.get(name)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        known = self._loads.get(name)
        if known is not None and "://" in known.origin:
            await asyncio.to_thread(self._incoming.forget, known.origin)
        self._record({other: load for other, load in self._loads.items() if other != name})
        item = self._catalogue.remove(name)
        if item is None:
            return known is not None
        await self._dispatch.retire(name)
        await self._dispatch.reload()
        await asyncio.to_thread(self._catalogue.remove_files, item)
        return True

    async def resume(self) -> None:
        """Take up the loads that were under way when the server ended."""
        if not self._path.exists():
            return
        try:
            loads = _RECORD.validate_python(yaml.safe_load(self._path.read_text()) or [])
        except (ValueError, yaml.YAMLError) as error:
            log.error("%s is damaged, and no load is taken up again: %s", RECORD_NAME, error)
            return
        for load in loads:
            self._loads[load.name] = load
            if load.problem is None:
                self._start(load)

    async def stop(self) -> None:
        """Stop all loads; the next start takes them up."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _start(self, load: Load) -> None:
        self._progress[load.name] = LoadProgress()
        task = asyncio.create_task(self._work(load), name=f"load {load.name}")
        self._tasks[load.name] = task
        task.add_done_callback(lambda _: self._tasks.pop(load.name, None))

    async def _work(self, load: Load) -> None:
        try:
            async with self._turn:
                await self._bring(load)
        except (NotLoaded, Unrecognised) as error:
            await self._fail(load, str(error))
        except OSError as error:
            log.exception("loading %s failed", load.name)
            await self._fail(load, unwritable(error))
        except Exception:
            log.exception("loading %s failed", load.name)
            await self._fail(load, "an unexpected failure; the server's log has the cause")
        else:
            item = self._catalogue.loaded().get(load.name)
            warned = {"warning": item.warning} if item is not None and item.warning else {}
            await self._tell(load, {"status": "success", "message": "model loaded", **warned})
            self._remember({name: other for name, other in self._loads.items() if name != load.name})

    async def _bring(self, load: Load) -> None:
        if load.name in self._catalogue.loaded():
            return  # the server ended between the record of what was loaded and that of the load's end
        progress = self._progress[load.name]
        if "://" in load.origin:
            found = await self._incoming.file(load.name, load.origin, load.family, load.precision, progress)
        else:
            found = await self._incoming.repository(
                load.name, load.origin, load.revision, load.family, load.precision, progress
            )
        item = LoadedEntry(
            section=SECTIONS[found.kind],
            entry=found.entry,
            origin=load.origin.partition("?")[0],
            loaded_at=datetime.now(UTC),
            warning="; ".join(_warnings(load, found)) or None,
        )
        try:
            self._check(load, found, item)
            self._catalogue.add(load.name, item)
        except (NotLoaded, OSError):
            await asyncio.to_thread(self._catalogue.remove_files, item)
            raise
        await self._dispatch.reload()

    def _check(self, load: Load, found: Fetched, item: LoadedEntry) -> None:
        if load.kind is not None and load.kind != found.kind:
            raise NotLoaded(f"it is a {found.kind}, not a {load.kind}")
        try:
            parse(item.section, load.name, item.entry, self._weights)
        except ValueError as error:
            raise NotLoaded(f"this server does not draw with a {found.kind}") from error

    async def _fail(self, load: Load, problem: str) -> None:
        log.error("%s was not loaded: %s", load.name, problem)
        await self._tell(load, {"status": "failed", "message": f"Loading failed: {problem}"})
        failed = load.model_copy(update={"problem": problem})
        others = {name: other for name, other in self._loads.items() if name != load.name}
        failures = [name for name, other in others.items() if other.problem is not None]
        for name in failures[: max(0, len(failures) - MAX_FAILURES + 1)]:
            del others[name]
        self._remember({**others, load.name: failed})

    async def _tell(self, load: Load, words: Mapping[str, object]) -> None:
        if load.webhook is not None:
            message = {**words, "messege": words["message"], "model_id": load.name}
            if load.track_id is not None:
                message["track_id"] = load.track_id
            await self._webhooks.enqueue(load.account_id, load.webhook, message)

    def _record(self, loads: dict[str, Load]) -> None:
        """Write the loads into their file.

        Raises:
            Unwritable: the weights folder cannot be written; nothing has changed.
        """
        try:
            _write(self._path, [load.model_dump() for load in loads.values()])
        except OSError as error:
            raise Unwritable(unwritable(error)) from error
        self._loads = loads

    def _remember(self, loads: dict[str, Load]) -> None:
        """Record the end of a load; on a full disk only in memory, so that a restart takes it up again."""
        try:
            self._record(loads)
        except Unwritable:
            log.exception("the end of a load was not recorded")
            self._loads = loads


def _warnings(load: Load, found: Fetched) -> list[str]:
    """What came, where it is not what the caller's words let one expect."""
    warnings = list(found.warnings)
    if load.suggested is not None and load.suggested != found.kind:
        warnings.append(f"it is a {found.kind}, not a {load.suggested}")
    family = found.entry["family"]
    if load.family is not None and load.family != family:
        warnings.append(f"it is made for {family}, not for {load.family}")
    return warnings


class Unwritable(ApiError):
    """The weights folder is mounted read-only, or full."""

    status = 507


def _write(path: Path, record: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Only for the server's own user: a URL may hold its owner's token.
    write_atomically(path, yaml.safe_dump(record, allow_unicode=True), mode=0o600)
