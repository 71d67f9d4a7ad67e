"""`understudy weights list|pull|verify`: the checkpoints that the manifest names, fetched and checked."""

from __future__ import annotations

import argparse
import errno
import fnmatch
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from yaml import YAMLError

from pipelines.weights import lock
from pipelines.weights.alternatives import with_free_alternatives
from pipelines.weights.loaded import load_full_manifest
from pipelines.weights.manifest import Manifest, PoseDetectorEntry
from pipelines.weights.repositories import Repository, repositories
from server.settings import Settings

if TYPE_CHECKING:
    from pipelines.weights.hub import Hub

DIFFERENT = 1
NOT_ACCEPTED = 2
INTERRUPTED = 130

_EXIT_CODES = (
    "exit status: 0 done; 2 licences not accepted, or a wrong argument; 3 the hub does not answer; "
    "4 no access (token, gated repository); 5 no such repository or file; 6 wrong bytes arrived; 7 disk full"
)


def register(subparsers: argparse._SubParsersAction[Any]) -> None:  # pyright: ignore[reportPrivateUsage]
    """Add the command to the command line."""
    parser = subparsers.add_parser("weights", help="list, pull or verify the checkpoints of the manifest")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--manifest", type=Path, help="weights.yaml (UNDERSTUDY_MANIFEST)")
    common.add_argument("--weights", type=Path, help="folder of the checkpoints (UNDERSTUDY_WEIGHTS)")
    actions = parser.add_subparsers(required=True, metavar="list|pull|verify")
    listing = actions.add_parser("list", parents=[common], help="what the manifest names, and what is here")
    listing.set_defaults(run=_list)
    pulling = actions.add_parser("pull", parents=[common], help="fetch what is missing", epilog=_EXIT_CODES)
    pulling.add_argument("names", nargs="*", metavar="NAME", help="pipelines and adapters (all)")
    pulling.add_argument("--accept-licenses", action="store_true", help="agree to the licences shown")
    pulling.add_argument(
        "--free-alternatives",
        action="store_true",
        help="take what is named under a free licence in place of what is for non-commercial use",
    )
    pulling.add_argument("--upgrade", action="store_true", help="take the newest commit of each revision")
    pulling.set_defaults(run=_pull)
    verifying = actions.add_parser(
        "verify", parents=[common], help="hash every file", epilog="exit status: 0 all is as pulled; 1 not"
    )
    verifying.set_defaults(run=_verify)


def _open(arguments: argparse.Namespace) -> tuple[Manifest, Path] | None:
    settings = Settings()
    path: Path = arguments.manifest or settings.manifest
    try:
        weights: Path = arguments.weights or settings.weights
        return load_full_manifest(path, weights), weights
    except FileNotFoundError:
        _complain(f"{path}: no such manifest; name one with --manifest or UNDERSTUDY_MANIFEST")
    except (ValidationError, ValueError, YAMLError) as error:
        _complain(f"{path} is not a valid manifest: {error}")
    return None


def _lock(weights: Path) -> lock.Lock | None:
    try:
        return lock.read_lock(weights)
    except ValueError:
        _complain(f"{lock.LOCK_NAME} is damaged; delete it and pull again (files that are right are kept)")
        return None


def _list(arguments: argparse.Namespace) -> int:
    opened = _open(arguments)
    if opened is None:
        return 2
    manifest, weights = opened
    read = _lock(weights)
    if read is None:
        return 1
    locked = read.repositories
    rows = [("NAME", "FAMILY", "STATE", "GB", "LOADED", "LICENCE", "ALSO")]
    for name, entry in manifest.openable().items():
        size = f"{entry.vram_gb:.1f}{'' if entry.vram_measured else '*'}" if entry.vram_gb else "?"
        loaded = "at start" if entry.resident else "on demand"
        gated = " (gated)" if entry.gated else ""
        about = (name, entry.family, _state(manifest, name, locked), size, loaded, entry.license + gated)
        rows.append((*about, ", ".join(entry.also)))
    for name, adapter in manifest.adapters():
        about = (name, adapter.family, _state(manifest, name, locked), "", "on request", adapter.license)
        rows.append((*about, ", ".join(adapter.also)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("\n* computed from parameter counts, for the weights alone; not measured")
    return 0


def _state(manifest: Manifest, name: str, locked: dict[str, lock.LockedRepository]) -> str:
    needed = repositories(manifest, [name])
    if not needed:
        return "local"
    here = sum(repository.key in locked for repository in needed)
    return "pulled" if here == len(needed) else f"{here} of {len(needed)} pulled"


def _pull(arguments: argparse.Namespace) -> int:
    from pipelines.weights.downloads import one_pull_at_a_time
    from pipelines.weights.hub import Hub, PullError

    opened = _open(arguments)
    if opened is None:
        return 2
    manifest, weights = opened
    read = _lock(weights)
    if read is None:
        return 1
    offered = manifest.pose_detector
    if arguments.free_alternatives:
        manifest, offered = with_free_alternatives(manifest), None
    known = {*manifest.openable(), *(name for name, _ in manifest.adapters())}
    names = [manifest.id_of(name) for name in arguments.names]
    if unknown := [name for name in names if name not in known]:
        _complain(f"not in the manifest: {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        return 2
    wanted = repositories(manifest, names or None)
    if not wanted:
        print("Nothing of this comes from the hub.")
        return 0
    try:
        with one_pull_at_a_time(weights):
            if not _show_licenses(wanted, read, offered, accepted=arguments.accept_licenses):
                return NOT_ACCEPTED
            hub = Hub(os.environ.get("HF_ENDPOINT"), os.environ.get("HF_TOKEN"))
            return _pull_all(hub, wanted, weights, upgrade=arguments.upgrade)
    except PullError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("Interrupted; the next pull goes on from here.")
        return INTERRUPTED
    except OSError as error:
        _complain(f"{weights} cannot be written: {error.strerror}")
        return 7 if error.errno == errno.ENOSPC else 1


def _show_licenses(
    wanted: list[Repository], locked: lock.Lock, offered: PoseDetectorEntry | None, *, accepted: bool
) -> bool:
    """Show the licences of what was never pulled; return whether it may be pulled now.

    Args:
        offered: what whoever does not accept the licence of OpenPose may have in its place.
    """
    new = [each for each in wanted if each.licenses and not _is_known(each, locked)]
    if not new:
        return True
    print("Licences:", *(f"  {each.hub}: {'; '.join(each.licenses)}" for each in new), sep="\n")
    if offered and any("body_pose_model.pth" in each.files for each in new):
        print("In place of OpenPose, whose licence is for non-commercial use, --free-alternatives fetches:")
        for source in offered.sources:
            print(f"  {source.hub or source.folder}: {source.license or offered.license}")
    if not accepted:
        _complain("Read them, and accept them with --accept-licenses. Nothing was fetched.")
    return accepted


def _is_known(repository: Repository, locked: lock.Lock) -> bool:
    """Whether all that is wanted of a repository was pulled before, so that its licences were accepted."""
    before = locked.repositories.get(repository.key)
    origins = [file.origin for file in before.files.values()] if before else []
    return bool(origins) and all(fnmatch.filter(origins, name) for name in repository.files)


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


def _verify(arguments: argparse.Namespace) -> int:
    opened = _open(arguments)
    if opened is None:
        return 2
    manifest, weights = opened
    locked = _lock(weights)
    if locked is None:
        return DIFFERENT
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
