"""The words on a preprocessor whose weights are missing: what its caller and its operator can do."""

from __future__ import annotations

from collections.abc import Iterable

REPOSITORY = "lllyasviel/Annotators"
"""The hub repository that has the weights of every preprocessor."""

FREE_ALTERNATIVE = (
    ". That is OpenPose, which is for non-commercial use; `understudy weights pull --free-alternatives`"
    " installs the `pose_detector` of weights.yaml instead"
)
"""What the sentence on OpenPose goes on with."""


def how_to_install(where: str, files: Iterable[str]) -> str:
    """The sentence that says how an operator installs the weights of a preprocessor.

    Args:
        where: the place in weights.yaml that gets the entry.
        files: the files that the preprocessor needs.
    """
    entry = f"annotator: {{hub: {REPOSITORY}, files: [{', '.join(files)}]}}"
    return (
        f"To install it, give {where} in weights.yaml `{entry}`, run `understudy weights pull`"
        " and start the server anew"
    )
