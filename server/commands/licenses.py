"""What a person is asked before a pull: the licences, and what there is for whoever does not accept one."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterator

from pipelines.weights.entries import PoseDetectorEntry
from pipelines.weights.lock import Lock
from pipelines.weights.repositories import Repository


def show_licenses(
    wanted: list[Repository], locked: Lock, *, offered: PoseDetectorEntry | None, accepted: bool, quiet: bool
) -> bool:
    """Show the licences of what was never pulled; return whether it may be pulled now.

    Args:
        offered: what whoever does not accept the licence of OpenPose may have in its place.
        quiet: keep standard output for something else, and say nothing of what was accepted.
    """
    new = [each for each in wanted if each.licenses and not _is_known(each, locked)]
    if not new:
        return True
    if not quiet or not accepted:
        print(*_words(new, offered), sep="\n", file=sys.stderr if quiet else sys.stdout)
    if not accepted:
        print("Read them, and accept them with --accept-licenses. Nothing was fetched.", file=sys.stderr)
    return accepted


def _words(new: list[Repository], offered: PoseDetectorEntry | None) -> Iterator[str]:
    yield "Licences:"
    yield from (f"  {each.hub}: {'; '.join(each.licenses)}" for each in new)
    if offered and any("body_pose_model.pth" in each.files for each in new):
        yield "In place of OpenPose, whose licence is for non-commercial use, --free-alternatives fetches:"
        yield from (
            f"  {each.hub or each.folder}: {each.license or offered.license}" for each in offered.sources
        )


def _is_known(repository: Repository, locked: Lock) -> bool:
    """Whether all that is wanted of a repository was pulled before, so that its licences were accepted."""
    before = locked.repositories.get(repository.key)
    origins = [file.origin for file in before.files.values()] if before else []
    return bool(origins) and all(fnmatch.filter(origins, name) for name in repository.files)
