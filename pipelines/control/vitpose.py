"""ViTPose, of transformers: the joints of people in a picture, under a free licence, code and weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pipelines.control.skeletons import Person, Point
from pipelines.errors import CheckpointUnavailable, is_out_of_memory

log = logging.getLogger(__name__)

Box = tuple[float, float, float, float]
"""Left, top, width and height, in pixels."""

PEOPLE_SCORE = 0.5
"""The least certainty with which something is taken for a person."""
JOINT_SCORE = 0.3
"""The least certainty of a joint in sight; of one that is hidden or outside of the picture it is near 0."""
MOST_PEOPLE = 32
"""The most people of one picture whose joints are looked for: the largest ones."""
FEWEST_JOINTS = 4
"""The fewest joints that make a person; the same as OpenPose's."""

FROM_COCO = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""The place of each of OpenPose's 18 joints among COCO's 17; the neck is none of them."""
NECK, SHOULDERS = 1, (5, 6)
"""OpenPose's number of the neck; COCO's numbers of the shoulders, in whose middle the neck is."""


class ViTPose:
    """ViTPose (Xu et al. 2022) for bodies, in full precision; each in the box of a detector of people.

    The detector is any one of transformers that knows persons, such as RT-DETR. Hands and faces are not
    looked for.
    """

    def __init__(self, people: Path, joints: Path, device: torch.device) -> None:
        """
        Args:
            people: folder of a detector of transformers, with its image processor.
            joints: folder of a ViTPose of 17 joints, with its image processor.
        Raises:
            CheckpointUnavailable: one of them is missing, damaged, or something else.
        """
        # Late: only photographs need them.
        from transformers import (
            AutoImageProcessor,
            AutoModelForObjectDetection,
            VitPoseForPoseEstimation,
            VitPoseImageProcessor,
        )

        def opened(cls: Any, folder: Path, **options: Any) -> Any:
            try:
                return cls.from_pretrained(folder, local_files_only=True, **options)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                log.error("the pose detector cannot be opened", exc_info=error)
                raise CheckpointUnavailable("the weights of the pose detector are damaged") from error

        safely = {"use_safetensors": True, "dtype": torch.float32}
        self._see_people = opened(AutoImageProcessor, people)
        self._see_joints = opened(VitPoseImageProcessor, joints)
        self._people = opened(AutoModelForObjectDetection, people, **safely).to(device).eval()
        self._joints = opened(VitPoseForPoseEstimation, joints, **safely).to(device).eval()
        labels: dict[int, str] = self._people.config.id2label
        persons = [number for number, label in labels.items() if label.lower() in ("person", "human")]
        if not persons or self._joints.config.num_labels != 17:
            raise CheckpointUnavailable("the pose detector needs a detector of persons and COCO's 17 joints")
        self._person = persons[0]

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        return {"people": self._people, "joints": self._joints}

    @torch.no_grad()
    def find(self, picture: Image.Image) -> list[Person]:
        boxes = self._find_boxes(picture)
        if not boxes:
            return []
        seen = self._see_joints(picture, boxes=[boxes], return_tensors="pt").to(self._joints.device)
        experts = self._joints.config.backbone_config.num_experts
        # ViTPose+ has an expert for each data set it was trained on; the first one is COCO's.
        which = {"dataset_index": torch.zeros(len(boxes), dtype=torch.long)} if experts > 1 else {}
        heat = self._joints(**seen, **{name: each.to(self._joints.device) for name, each in which.items()})
        poses = self._see_joints.post_process_pose_estimation(heat, boxes=[boxes])[0]
        people = [
            person_of_coco(pose["keypoints"].tolist(), pose["scores"].tolist(), picture.size)
            for pose in poses
        ]
        return [each for each in people if sum(joint is not None for joint in each.body) >= FEWEST_JOINTS]

    def _find_boxes(self, picture: Image.Image) -> list[Box]:
        """Where people are, the largest first."""
        seen = self._see_people(images=picture, return_tensors="pt").to(self._people.device)
        found = self._see_people.post_process_object_detection(
            self._people(**seen), threshold=PEOPLE_SCORE, target_sizes=[(picture.height, picture.width)]
        )[0]
        corners = found["boxes"][found["labels"] == self._person].tolist()
        boxes = [(left, top, right - left, bottom - top) for left, top, right, bottom in corners]
        boxes = [box for box in boxes if min(box[2:]) >= 1]
        return sorted(boxes, key=lambda box: -box[2] * box[3])[:MOST_PEOPLE]


def person_of_coco(
    places: Sequence[Sequence[float]], scores: Sequence[float], size: tuple[int, int]
) -> Person:
    """A person in OpenPose's joints, from the places in pixels and the certainties of COCO's 17.

    A joint that is uncertain, or outside of the picture, is not in sight.
    """
    width, height = size

    def joint(number: int) -> Point | None:
        x, y = places[number][0] / width, places[number][1] / height
        return (x, y) if scores[number] >= JOINT_SCORE and 0 <= x <= 1 and 0 <= y <= 1 else None

    body = [None if number is None else joint(number) for number in FROM_COCO]
    left, right = (joint(number) for number in SHOULDERS)
    if left and right:
        body[NECK] = ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2)
    return Person(body=body)
