"""What a person is asked before a pull: the licences, and what there is for whoever does not accept one."""

from __future__ import annotations

import fnmatch
import sys

from pipelines.weights.lock import Lock
from pipelines.weights.manifest import PoseDetectorEntry
from pipelines.weights.repositories import Repository


def show_licenses(
    wanted: list[Repository], locked: Lock, offered: PoseDetectorEntry | None, *, accepted: bool
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
        print(
            "Read them, and accept them with --accept-licenses. Nothing was fetched.",
            file=sys.stderr,
        )
    return accepted


def _is_known(repository: Repository, locked: Lock) -> bool:
    """Whether all that is wanted of a repository was pulled before, so that its licences were accepted."""
    before = locked.repositories.get(repository.key)
    origins = [file.origin for file in before.files.values()] if before else []
    return bool(origins) and all(fnmatch.filter(origins, name) for name in repository.files)
