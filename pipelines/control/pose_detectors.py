"""The pose detector that is installed: OpenPose, or the one under a free licence that weights.yaml names."""

from __future__ import annotations

import torch

from pipelines.adapters.library import AdapterLibrary
from pipelines.control.open_pose import OpenPose, is_open_pose
from pipelines.control.pose import PoseDetector
from pipelines.control.vitpose import ViTPose
from pipelines.weights.entries import Source


def installed_detector(
    adapters: AdapterLibrary, annotator: Source | None, device: torch.device
) -> PoseDetector | None:
    """Open OpenPose where its files are, else the manifest's `pose_detector`; None where there is neither.

    Raises:
        CheckpointUnavailable: the weights of the one that is there are damaged.
    """
    folder = adapters.folder(annotator)
    if folder is not None and is_open_pose(folder):
        return OpenPose(folder, device)
    named = adapters.manifest.pose_detector
    if named is None:
        return None
    people, joints = adapters.folder(named.people), adapters.folder(named.joints)
    return None if people is None or joints is None else ViTPose(people, joints, device)
