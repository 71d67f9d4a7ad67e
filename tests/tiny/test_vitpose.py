"""Poses by ViTPose: small networks of the published form, with weights made by hand, see coloured marks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
    VitPoseImageProcessor,
)

from pipelines.adapters.library import AdapterLibrary
from pipelines.control.pose import detect, is_skeleton, skeleton
from pipelines.control.pose_detectors import installed_detector
from pipelines.control.preprocessors import Preprocessors
from pipelines.control.skeletons import COLORS
from pipelines.control.vitpose import ViTPose, person_of_coco
from pipelines.errors import CheckpointUnavailable, PoseNotFound
from pipelines.image_io import RGBImage
from pipelines.weights.manifest import Manifest

CPU = torch.device("cpu")

NOSE, LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP, LEFT_WRIST = 0, 5, 6, 11, 12, 9
MARKS = {
    NOSE: (255, 0, 0),
    LEFT_SHOULDER: (0, 255, 0),
    RIGHT_SHOULDER: (0, 0, 255),
    LEFT_HIP: (255, 255, 0),
    RIGHT_HIP: (255, 0, 255),
    LEFT_WRIST: (0, 255, 255),
}
"""The colour that marks each of COCO's joints for `joints_network`."""
OPEN_POSE = {NOSE: 0, LEFT_SHOULDER: 5, RIGHT_SHOULDER: 2, LEFT_HIP: 11, RIGHT_HIP: 8, LEFT_WRIST: 7}
NECK = 1

Spot = tuple[float, float]

SPOTS: dict[int, Spot] = {
    NOSE: (0.5, 0.15),
    LEFT_SHOULDER: (0.75, 0.35),
    RIGHT_SHOULDER: (0.25, 0.35),
    LEFT_HIP: (0.65, 0.7),
    RIGHT_HIP: (0.35, 0.7),
    LEFT_WRIST: (0.85, 0.55),
}
"""Where the joints of a person are, as parts of the person's box."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as parts of the picture."""


def shown_pixels(box: Box, width: int, height: int) -> float:
    """The height of what the network is shown of a picture, three to four, for a person in a box."""
    return 1.25 * max((box[3] - box[1]) * height, (box[2] - box[0]) * width * 4 / 3)


def photograph(width: int, height: int, *people: Box) -> RGBImage:
    """Black, with a blurred disk in the colour of `MARKS` on every joint."""
    rows, columns = np.mgrid[:height, :width]
    picture = np.zeros((height, width, 3))
    for left, top, right, bottom in people:
        shown = shown_pixels((left, top, right, bottom), width, height)
        for joint, (x, y) in SPOTS.items():
            x, y = (left + x * (right - left)) * width, (top + y * (bottom - top)) * height
            strength = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (0.022 * shown) ** 2))[..., None]
            picture = picture * (1 - strength) + np.array(MARKS[joint]) * strength
    return RGBImage(width, height, picture.round().astype(np.uint8).tobytes())


@torch.no_grad()
def joints_network(folder: Path) -> Path:
    """A ViTPose of the published form, one layer deep, whose heat maps show where the `MARKS` are.

    Each patch becomes the mean of its colours; the layers pass it on; the norm is as good as none; the head
    sees each mark by its colours, less the others.
    """
    backbone = VitPoseBackboneConfig(
        image_size=[256, 192],
        patch_size=[8, 8],
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        mlp_ratio=1,
        out_indices=[1],
    )
    labels = {number: str(number) for number in range(17)}
    config = VitPoseConfig(backbone_config=backbone, scale_factor=2, use_simple_decoder=True, id2label=labels)
    network = VitPoseForPoseEstimation(config)
    for weights in network.parameters():
        weights.zero_()
    # A pair of opposite channels for each colour, and one that is always large: their mean is always the
    # same, and nearly their variance, so that the norm changes nothing but the scale.
    projection = network.backbone.embeddings.patch_embeddings.projection
    for color in range(3):
        projection.weight[color, color] = 1 / 64
        projection.weight[3 + color, color] = -1 / 64
    projection.bias[6], projection.bias[7] = 100.0, -100.0
    network.backbone.layernorm.weight.fill_(50.0)
    for joint, color in MARKS.items():
        for channel, lit in enumerate(color):
            network.head.conv.weight[joint, channel, 1, 1] = 4.0 if lit else -4.0
        network.head.conv.bias[joint] = 4.0 * (1 - sum(map(bool, color)))
    network.save_pretrained(folder)
    # No colour is darker than none.
    VitPoseImageProcessor(image_mean=[0.0] * 3, image_std=[1.0] * 3).save_pretrained(folder)
    return folder


@torch.no_grad()
def people_network(
    folder: Path, first: Box, boxes: int = 1, *, label: str = "person", certain: bool = True
) -> Path:
    """A small RT-DETR that sees people whatever it is shown: the first one at ``first``, others beside it."""
    config = RTDetrConfig(
        backbone_config={
            "model_type": "rt_detr_resnet",
            "embedding_size": 8,
            "hidden_sizes": [8, 8, 8, 8],
            "depths": [1, 1, 1, 1],
            "layer_type": "basic",
            "out_features": ["stage3", "stage4"],
        },
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 8],
        feat_strides=[16, 32],
        num_feature_levels=2,
        encode_proj_layers=[1],
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=16,
        decoder_in_channels=[16, 16],
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        decoder_layers=1,
        num_queries=boxes,
        id2label={0: "tie", 1: label},
    )
    network = RTDetrForObjectDetection(config)
    certainty = torch.tensor([-9.0, 4.0 if certain else -1.0])
    for head in (network.model.enc_score_head, *network.model.decoder.class_embed):
        head.weight.zero_()
        head.bias.copy_(certainty)
    for head in (network.model.enc_bbox_head, *network.model.decoder.bbox_embed):
        head.layers[-1].weight.zero_()
        head.layers[-1].bias.zero_()
    # The first cell's middle is at 1/80 of the picture, and its side 1/20; the last head moves it.
    cell = torch.tensor([0.5 / 40, 0.5 / 40, 0.05, 0.05])
    wanted = torch.tensor([(first[0] + first[2]) / 2, (first[1] + first[3]) / 2, 0.0, 0.0])
    wanted[2:] = torch.tensor([first[2] - first[0], first[3] - first[1]])
    network.model.decoder.bbox_embed[-1].layers[-1].bias.copy_(wanted.logit() - cell.logit())
    network.save_pretrained(folder)
    RTDetrImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def joints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return joints_network(tmp_path_factory.mktemp("joints"))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return people_network(tmp_path_factory.mktemp("people"), ALONE)


ALONE: Box = (0.2, 0.1, 0.8, 0.9)


def place(box: Box, spot: Spot) -> Spot:
    left, top, right, bottom = box
    return left + spot[0] * (right - left), top + spot[1] * (bottom - top)


def has_joint(image: RGBImage, joint: int, spot: Spot) -> bool:
    """Whether a joint of COCO's is drawn there, or at most 3 % of the picture beside it."""
    column, row, reach = spot[0] * image.width, spot[1] * image.height, 0.03 * image.height
    near = pillow(image).crop(
        (round(column - reach), round(row - reach), round(column + reach), round(row + reach))
    )
    return COLORS[OPEN_POSE[joint]] in {color for _, color in near.getcolors(1 << 20)}


@pytest.mark.parametrize("size", [(400, 400), (640, 320), (300, 700), (90, 120)], ids=str)
def test_every_joint_is_found_where_it_is_in_pictures_of_any_shape(
    people: Path, joints: Path, size: tuple[int, int]
) -> None:
    picture = photograph(*size, ALONE)
    (person,) = ViTPose(people, joints, CPU).find(pillow(picture))
    expected = {OPEN_POSE[joint]: place(ALONE, spot) for joint, spot in SPOTS.items()}
    shoulders = expected[2], expected[5]
    expected[NECK] = tuple(sum(sides) / 2 for sides in zip(*shoulders, strict=True))
    assert {number for number, joint in enumerate(person.body) if joint} == set(expected)
    for number, (x, y) in expected.items():
        found = person.body[number]
        assert found is not None
        # To a patch of what the network is shown.
        shown = shown_pixels(ALONE, *size)
        assert abs(found[0] - x) * size[0] < 0.03 * shown, number
        assert abs(found[1] - y) * size[1] < 0.03 * shown, number
    assert not person.hands
    assert not person.face


def test_the_skeleton_is_drawn_as_openposes_is(people: Path, joints: Path) -> None:
    found = skeleton(photograph(400, 400, ALONE), ViTPose(people, joints, CPU), 512, 512)
    assert (found.width, found.height) == (512, 512)
    assert is_skeleton(found)
    for joint, spot in SPOTS.items():
        assert has_joint(found, joint, place(ALONE, spot)), joint


def test_several_people_have_a_skeleton_each(tmp_path: Path, joints: Path) -> None:
    first: Box = (0.15, 0.1, 0.25, 0.9)
    # The middle of the second cell, moved as far as that of the first one is.
    moved = torch.tensor(3 / 80).logit() + torch.tensor(0.2).logit() - torch.tensor(1 / 80).logit()
    middle = moved.sigmoid().item()
    second: Box = (middle - 0.05, 0.1, middle + 0.05, 0.9)
    detector = ViTPose(people_network(tmp_path, first, 2), joints, CPU)
    found = detect(photograph(960, 360, first, second), detector, 960, 360)
    for box in (first, second):
        for joint in (NOSE, LEFT_HIP, RIGHT_HIP):
            assert has_joint(found, joint, place(box, SPOTS[joint])), (box, joint)


def test_nobody_and_somebody_of_whom_nothing_is_seen_are_refused(
    tmp_path: Path, people: Path, joints: Path
) -> None:
    unsure = ViTPose(people_network(tmp_path, ALONE, certain=False), joints, CPU)
    for picture, detector in (
        (photograph(200, 200, ALONE), unsure),
        (photograph(200, 200), ViTPose(people, joints, CPU)),
    ):
        with pytest.raises(PoseNotFound, match="image: no person was found in the picture"):
            skeleton(picture, detector, 512, 512)


def test_joints_are_put_into_openposes_order_and_the_neck_is_between_the_shoulders() -> None:
    places = [(float(number), 2.0 * number) for number in range(17)]
    body = person_of_coco(places, [0.9] * 17, (100, 100)).body
    coco_of_open_pose = {2: 6, 3: 8, 4: 10, 5: 5, 6: 7, 7: 9, 8: 12, 9: 14, 10: 16, 11: 11, 12: 13, 13: 15}
    coco_of_open_pose |= {0: 0, 14: 2, 15: 1, 16: 4, 17: 3}
    for number, coco in coco_of_open_pose.items():
        assert body[number] == (coco / 100, 2 * coco / 100)
    assert body[NECK] == pytest.approx((0.055, 0.11))


@pytest.mark.parametrize("hidden", [5, 6])
def test_without_a_shoulder_there_is_no_neck(hidden: int) -> None:
    scores = [0.9] * 17
    scores[hidden] = 0.1
    body = person_of_coco([(10.0, 10.0)] * 17, scores, (100, 100)).body
    assert body[NECK] is None
    assert sum(joint is None for joint in body) == 2


def test_a_joint_outside_of_the_picture_is_not_in_sight() -> None:
    places = [(10.0, 10.0)] * 16 + [(10.0, 101.0)]
    assert person_of_coco(places, [0.9] * 17, (100, 100)).body[10] is None


def manifest(folder: Path, people: Path, joints: Path) -> Manifest:
    control = {"source": {"folder": "none"}, "family": "sd15", "preprocessor": "openpose"}
    named = {"people": {"folder": str(people)}, "joints": {"folder": str(joints)}}
    return Manifest.model_validate(
        {
            "path": folder / "weights.yaml",
            "pipelines": {},
            "controlnets": {"pose": control},
            "pose_detector": named,
        }
    )


def test_the_preprocessor_openpose_uses_the_one_that_the_manifest_names(
    tmp_path: Path, people: Path, joints: Path
) -> None:
    preprocessors = Preprocessors(AdapterLibrary(manifest(tmp_path, people, joints), tmp_path), CPU)
    made = preprocessors.prepare(photograph(400, 400, ALONE), "openpose")
    assert (made.width, made.height) == (400, 400)
    assert has_joint(made, NOSE, place(ALONE, SPOTS[NOSE]))
    assert set(preprocessors.modules) == {"preprocessor:openpose:people", "preprocessor:openpose:joints"}


def test_where_one_of_its_networks_is_missing_there_is_none(tmp_path: Path, people: Path) -> None:
    adapters = AdapterLibrary(manifest(tmp_path, people, tmp_path / "missing"), tmp_path)
    assert installed_detector(adapters, None, CPU) is None


@pytest.mark.parametrize("damage", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_what_is_damaged_is_told_without_its_path(
    tmp_path: Path, people: Path, joints: Path, damage: str
) -> None:
    for file in joints.iterdir():
        (tmp_path / file.name).write_bytes(b"damaged" if file.name == damage else file.read_bytes())
    with pytest.raises(CheckpointUnavailable, match="pose detector are damaged") as refused:
        ViTPose(people, tmp_path, CPU)
    assert str(tmp_path) not in str(refused.value)


def test_a_detector_of_something_else_is_refused(tmp_path: Path, joints: Path) -> None:
    with pytest.raises(CheckpointUnavailable, match="a detector of persons"):
        ViTPose(people_network(tmp_path, ALONE, label="umbrella"), joints, CPU)


def pillow(image: RGBImage) -> Image.Image:
    return Image.frombytes("RGB", (image.width, image.height), image.pixels)
