"""`understudy weights list|pull|verify`: the checkpoints that the manifest names, fetched and checked."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from yaml import YAMLError

from pipelines.weights import lock
from pipelines.weights.alternatives import with_free_alternatives
from pipelines.weights.loaded import load_full_manifest
from pipelines.weights.manifest import Manifest
from pipelines.weights.memory import part_bytes
from pipelines.weights.networks import GIGABYTE
from pipelines.weights.repositories import Repository, repositories
from server.commands.configuration import read_settings
from server.commands.failure import CommandFailed
from server.commands.licenses import show_licenses
from server.commands.listing import AsJson, print_json, print_table

if TYPE_CHECKING:
    from pipelines.weights.hub import Hub

DIFFERENT = 1
NOT_ACCEPTED = 2

_EXIT_CODES = (
    "exit status: 0 done; 2 licences not accepted, or a wrong argument; 3 the hub does not answer; "
    "4 no access (token, gated repository); 5 no such repository or file; 6 wrong bytes arrived; 7 disk full"
)


app = typer.Typer()

ManifestPath = Annotated[
    Path | None, typer.Option("--manifest", help="The manifest, weights.yaml (UNDERSTUDY_MANIFEST).")
]
WeightsFolder = Annotated[
    Path | None, typer.Option("--weights", help="The folder of the checkpoints (UNDERSTUDY_WEIGHTS).")
]


def _open(manifest: Path | None, weights: Path | None) -> tuple[Manifest, Path]:
    settings = read_settings(manifest=manifest, weights=weights)
    path = settings.manifest
    try:
        return load_full_manifest(path, settings.weights), settings.weights
    except FileNotFoundError:
        raise CommandFailed(
            f"{path}: no such manifest; name one with --manifest or UNDERSTUDY_MANIFEST"
        ) from None
    except (ValidationError, ValueError, YAMLError) as error:
        raise CommandFailed(f"{path} is not a valid manifest: {error}") from None


def _lock(weights: Path) -> lock.Lock:
    try:
        return lock.read_lock(weights)
    except ValueError:
        raise CommandFailed(
            f"{lock.LOCK_NAME} is damaged; delete it and pull again (files that are right are kept)", status=1
        ) from None


@app.command("list")
def show(manifest: ManifestPath = None, weights: WeightsFolder = None, as_json: AsJson = False) -> None:
    """Show what the manifest names, and what of it is here."""
    opened, folder = _open(manifest, weights)
    locked = _lock(folder).repositories
    listed = [
        {
            "name": name,
            "family": entry.family,
            "state": _state(opened, name, locked),
            "gb": round(sum(part_bytes(entry).values()) / GIGABYTE, 1),
            "loaded": "at start" if entry.resident else "on demand",
            "license": entry.license,
            "gated": entry.gated,
            "also": list(entry.also),
        }
        for name, entry in opened.openable().items()
    ]
    listed += [
        {
            "name": name,
            "family": adapter.family,
            "state": _state(opened, name, locked),
            "loaded": "on request",
            "license": adapter.license,
            "also": list(adapter.also),
        }
        for name, adapter in opened.adapters()
    ]
    if as_json:
        print_json(listed)
        return
    headings = ("NAME", "FAMILY", "STATE", "GB", "LOADED", "LICENCE", "ALSO")
    print_table(headings, [_row(facts) for facts in listed])
    print("\nGB: of all networks together, without what drawing takes beside them")


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    size = f"{facts['gb']:.1f}" if "gb" in facts else ""
    license = facts["license"] + (" (gated)" if facts.get("gated") else "")
    about = (facts["name"], facts["family"], facts["state"], size, facts["loaded"], license)
    return (*about, ", ".join(facts["also"]))


def _state(manifest: Manifest, name: str, locked: dict[str, lock.LockedRepository]) -> str:
    needed = repositories(manifest, [name])
    if not needed:
        return "local"
    here = sum(repository.key in locked for repository in needed)
    return "pulled" if here == len(needed) else f"{here} of {len(needed)} pulled"


@app.command(epilog=_EXIT_CODES)
def pull(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Pipelines and adapters; all if absent.")
    ] = None,
    accept_licenses: Annotated[
        bool, typer.Option("--accept-licenses", help="Agree to the licences shown.")
    ] = False,
    free_alternatives: Annotated[
        bool,
        typer.Option(
            "--free-alternatives",
            help="Take what is named under a free licence in place of what is for non-commercial use.",
        ),
    ] = False,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Take the newest commit of each revision.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be fetched, and how large it is.")
    ] = False,
    manifest: ManifestPath = None,
    weights: WeightsFolder = None,
    as_json: AsJson = False,
) -> None:
    """Fetch what is missing, several files at once; what was interrupted goes on where it was."""
    opened, folder = _open(manifest, weights)
    offered = opened.pose_detector
    if free_alternatives:
        opened, offered = with_free_alternatives(opened), None
    wanted = _wanted(opened, names or [])
    if not wanted:
        print("[]" if as_json else "Nothing of this comes from the hub.")
        return
    may_pull = partial(
        show_licenses, wanted, offered=offered, accepted=accept_licenses or dry_run, quiet=as_json
    )
    raise typer.Exit(_pull(wanted, folder, may_pull, upgrade=upgrade, dry_run=dry_run, as_json=as_json))


def _wanted(manifest: Manifest, names: list[str]) -> list[Repository]:
    """The repositories of what is named, or of everything.

    Raises:
        CommandFailed: a name is not in the manifest.
    """
    known = {*manifest.openable(), *(name for name, _ in manifest.adapters())}
    named = [manifest.id_of(name) for name in names]
    if unknown := [name for name in named if name not in known]:
        raise CommandFailed(
            f"not in the manifest: {', '.join(unknown)}; it has {', '.join(sorted(known))}", status=2
        )
    return repositories(manifest, named or None)


def _pull(
    wanted: list[Repository],
    weights: Path,
    may_pull: Callable[[lock.Lock], bool],
    *,
    upgrade: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Pull repositories and return the exit status: that of the first failure."""
    from pipelines.weights.downloads import one_pull_at_a_time
    from pipelines.weights.hub import Hub, PullError

    read = _lock(weights)
    try:
        with one_pull_at_a_time(weights):
            if not may_pull(read):
                return NOT_ACCEPTED
            hub = Hub(os.environ.get("HF_ENDPOINT"), os.environ.get("HF_TOKEN"))
            if dry_run:
                return _show_plan(hub, wanted, weights, upgrade=upgrade, as_json=as_json)
            return _fetch(hub, wanted, weights, upgrade=upgrade, as_json=as_json)
    except PullError as error:
        _complain(str(error))
        return error.exit_code
    except OSError as error:
        _complain(f"{weights} cannot be written: {error.strerror}")
        return 7 if error.errno == errno.ENOSPC else 1


def _fetch(hub: Hub, wanted: list[Repository], weights: Path, *, upgrade: bool, as_json: bool) -> int:
    from pipelines.weights.pulling import INTERRUPTED, pull_all
    from server.commands.pull_progress import plan_as_json, watcher

    shown = watcher(quiet=as_json)
    try:
        failures = pull_all(hub, wanted, weights, shown, upgrade=upgrade)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        shown.close()
        if as_json:
            print_json(plan_as_json(shown.plans, shown.problems, shutil.disk_usage(weights).free))
    if failures:
        return failures[0].exit_code
    if not as_json:
        print(f"All of {len(wanted)} repositories are here.")
    return 0


def _show_plan(hub: Hub, wanted: list[Repository], weights: Path, *, upgrade: bool, as_json: bool) -> int:
    """Show what would be fetched; a repository that cannot be looked at is told, and the others are shown."""
    from pipelines.weights.downloads import PlannedPull, plan
    from pipelines.weights.hub import PullError
    from server.commands.pull_progress import plan_as_json, print_plan

    plans: list[PlannedPull] = []
    problems: dict[str, str] = {}
    status = 0
    for repository in wanted:
        try:
            plans.append(plan(hub, repository, weights, upgrade=upgrade))
        except PullError as error:
            _complain(str(error))
            problems[repository.hub] = str(error)
            status = status or error.exit_code
            if error.fatal:
                break
    free = shutil.disk_usage(weights).free
    if as_json:
        print_json(plan_as_json(plans, problems, free))
    else:
        print_plan(plans, free)
    return status


@app.command(epilog="exit status: 0 all is as pulled; 1 not")
def verify(manifest: ManifestPath = None, weights: WeightsFolder = None) -> None:
    """Hash every file."""
    opened, folder = _open(manifest, weights)
    raise typer.Exit(_verify(opened, folder))


def _verify(manifest: Manifest, weights: Path) -> int:
    locked = _lock(weights)
    wanted = repositories(manifest)
    found = [f"{each.hub}: not pulled" for each in wanted if each.key not in locked.repositories]
    for repository in locked.repositories.values():
        print(f"{repository.hub} at {repository.commit[:10]}: {len(repository.files)} files")
        found += lock.problems(weights, repository, thorough=True)
    for name, file in locked.downloads.items():
        print(f"{name}: loaded")
        problem = lock.download_problem(weights, name, file, thorough=True)
        found += [problem] if problem else []
    for line in found:
        _complain(line)
    if not found:
        lock.renew(weights, locked)
        print("All files are the ones that were pulled.")
    return DIFFERENT if found else 0


def _complain(text: str) -> None:
    print(text, file=sys.stderr)
