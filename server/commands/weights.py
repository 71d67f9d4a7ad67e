"""`understudy weights list|pull|verify`: the checkpoints that the manifest names, fetched and checked."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from yaml import YAMLError

from pipelines.weights import lock
from pipelines.weights.loaded import load_full_manifest
from pipelines.weights.manifest import Manifest
from pipelines.weights.memory import part_bytes
from pipelines.weights.networks import GIGABYTE
from pipelines.weights.repositories import Repository, repositories
from server.commands.configuration import read_settings
from server.commands.failure import CommandFailed
from server.commands.listing import AsJson, print_json, print_table

if TYPE_CHECKING:
    from pipelines.weights.hub import Hub

DIFFERENT = 1
NOT_ACCEPTED = 2
INTERRUPTED = 130

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
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Take the newest commit of each revision.")
    ] = False,
    manifest: ManifestPath = None,
    weights: WeightsFolder = None,
) -> None:
    """Fetch what is missing."""
    raise typer.Exit(_pull(names or [], manifest, weights, accepted=accept_licenses, upgrade=upgrade))


def _pull(
    names: list[str], manifest_path: Path | None, folder: Path | None, *, accepted: bool, upgrade: bool
) -> int:
    from pipelines.weights.downloads import one_pull_at_a_time
    from pipelines.weights.hub import Hub, PullError

    manifest, weights = _open(manifest_path, folder)
    read = _lock(weights)
    known = {*manifest.openable(), *(name for name, _ in manifest.adapters())}
    named = [manifest.id_of(name) for name in names]
    if unknown := [name for name in named if name not in known]:
        _complain(f"not in the manifest: {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        return 2
    wanted = repositories(manifest, named or None)
    if not wanted:
        print("Nothing of this comes from the hub.")
        return 0
    try:
        with one_pull_at_a_time(weights):
            if not _show_licenses(wanted, read, accepted=accepted):
                return NOT_ACCEPTED
            hub = Hub(os.environ.get("HF_ENDPOINT"), os.environ.get("HF_TOKEN"))
            return _pull_all(hub, wanted, weights, upgrade=upgrade)
    except PullError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("Interrupted; the next pull goes on from here.")
        return INTERRUPTED
    except OSError as error:
        _complain(f"{weights} cannot be written: {error.strerror}")
        return 7 if error.errno == errno.ENOSPC else 1


def _show_licenses(wanted: list[Repository], locked: lock.Lock, *, accepted: bool) -> bool:
    """Show the licences of what was never pulled; return whether it may be pulled now."""
    asked = [
        f"  {repository.hub}: {'; '.join(repository.licenses)}"
        for repository in wanted
        if repository.licenses and repository.key not in locked.repositories
    ]
    if not asked:
        return True
    print("Licences:", *asked, sep="\n")
    if not accepted:
        _complain("Read them, and accept them with --accept-licenses. Nothing was fetched.")
    return accepted


def _pull_all(hub: Hub, wanted: list[Repository], weights: Path, *, upgrade: bool) -> int:
    """Pull repositories and return the exit status of the first failure; a fatal one stops the pull."""
    from pipelines.weights.downloads import pull
    from pipelines.weights.hub import PullError

    failures: list[PullError] = []
    for repository in wanted:
        try:
            pull(hub, repository, weights, upgrade=upgrade, say=print)
        except PullError as error:
            _complain(str(error))
            failures.append(error)
            if error.fatal:
                break
    if failures:
        return failures[0].exit_code
    print(f"All of {len(wanted)} repositories are here.")
    return 0


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
