"""Skeletons: told from photographs, drawn, and detected by OpenPose on weights made by hand."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.control.open_pose import OpenPose, _import_detector, _person
from pipelines.control.pose import detect, is_skeleton, skeleton
from pipelines.control.skeletons import COLORS, Person, draw_skeletons
from pipelines.demo.world.figure import STANDING, demo_skeleton
from pipelines.demo.world.poses import random_figure
from pipelines.denoising import step
from pipelines.denoising.sample import Picture
from pipelines.errors import AnnotatorMissing, CheckpointUnavailable, InvalidInput, PoseNotFound
from pipelines.families.sd3_pose import StableDiffusion3Pose
from pipelines.image_io import RGBImage
from pipelines.request import PoseToImage
from pipelines.weights.manifest import Manifest

CPU = torch.device("cpu")

Spot = tuple[float, float]

NECK, RIGHT_SHOULDER, LEFT_SHOULDER, RIGHT_HIP, LEFT_HIP = 1, 2, 5, 8, 11
SPOTS: dict[int, Spot] = {
    NECK: (0.5, 0.25),
    RIGHT_SHOULDER: (0.2, 0.25),
    LEFT_SHOULDER: (0.8, 0.25),
    RIGHT_HIP: (0.35, 0.8),
    LEFT_HIP: (0.65, 0.8),
}
"""Where the joints of the person in `photograph` are."""
MARKS: dict[int, tuple[int, int, int]] = {
    NECK: (255, 0, 0),
    RIGHT_SHOULDER: (0, 255, 0),
    LEFT_SHOULDER: (0, 0, 255),
    RIGHT_HIP: (255, 255, 0),
    LEFT_HIP: (255, 0, 255),
}
"""The colour that marks a joint for `body_weights`."""
FIELDS = {RIGHT_SHOULDER: 12, LEFT_SHOULDER: 20, RIGHT_HIP: 0, LEFT_HIP: 6}
"""First channel of the part affinity field from the neck to a joint."""


def rgb(picture: Image.Image) -> RGBImage:
    picture = picture.convert("RGB")
    return RGBImage(picture.width, picture.height, picture.tobytes())


def pillow(image: RGBImage) -> Image.Image:
    return Image.frombytes("RGB", (image.width, image.height), image.pixels)


def photograph(width: int = 400, height: int = 400, *, person: bool = True) -> RGBImage:
    """Grey, with a spot in the colour of `MARKS` on every joint, brightest in its middle."""
    rows, columns = np.mgrid[:height, :width]
    picture = np.full((height, width, 3), 60.0)
    for joint, (x, y) in SPOTS.items() if person else ():
        distance = np.hypot(columns - x * width, rows - y * height) / (0.12 * min(width, height))
        strength = np.clip(1 - distance, 0, 1)[..., None]
        picture = picture * (1 - strength) + np.array(MARKS[joint]) * strength
    return rgb(Image.fromarray(picture.astype(np.uint8)))


def zeros(like: Tensor) -> Tensor:
    """One stored number for the whole tensor, so that the files stay small."""
    return torch.zeros(1, dtype=torch.int8).expand(like.shape)


def body_weights() -> dict[str, Tensor]:
    """OpenPose's body network as a detector of `MARKS`.

    The middles of its kernels carry colours to the heat maps; all ReLUs pass what is carried, which is never
    negative. The affinity fields are the same everywhere.
    """
    from controlnet_aux.open_pose.model import bodypose_model

    weights = {name.split(".", 1)[1]: zeros(value) for name, value in bodypose_model().state_dict().items()}

    def carry(layer: str, taps: dict[tuple[int, int], float], bias: dict[int, float] | None = None) -> None:
        kernel = torch.zeros(weights[f"{layer}.weight"].shape, dtype=torch.float16)
        for (to, of), factor in taps.items():
            kernel[to, of, kernel.shape[2] // 2, kernel.shape[3] // 2] = factor
        offsets = torch.zeros(kernel.shape[0])
        for to, offset in (bias or {}).items():
            offsets[to] = offset
        weights[f"{layer}.weight"], weights[f"{layer}.bias"] = kernel, offsets

    blue_green_red = {(channel, channel): 1.0 for channel in range(3)}
    carry("conv1_1", blue_green_red, bias=dict.fromkeys(range(3), 0.5))
    for layer in ("conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv3_4"):
        carry(layer, blue_green_red)
    # One channel per mark: the colours that it has, minus the others, minus what one of two has alone.
    taps = {
        (index, 2 - channel): 1.0 if lit else -1.0
        for index, color in enumerate(MARKS.values())
        for channel, lit in enumerate(color)
    }
    carry("conv4_1", taps, bias={index: 1.0 - sum(map(bool, c)) for index, c in enumerate(MARKS.values())})
    marks = {(index, index): 1.0 for index in range(len(MARKS))}
    for layer in ("conv4_2", "conv4_3_CPM", "conv4_4_CPM"):
        carry(layer, marks)
    carry("Mconv1_stage6_L2", {(index, 38 + 19 + index): 1.0 for index in range(len(MARKS))})
    for layer in range(2, 7):
        carry(f"Mconv{layer}_stage6_L2", marks)
    carry("Mconv7_stage6_L2", {(joint, index): 1.0 for index, joint in enumerate(MARKS)})
    fields: dict[int, float] = {}
    for joint, channel in FIELDS.items():
        across, down = (end - start for end, start in zip(SPOTS[joint], SPOTS[NECK], strict=True))
        length = (across**2 + down**2) ** 0.5
        fields[channel], fields[channel + 1] = across / length, down / length
    carry("Mconv7_stage6_L1", {}, bias=fields)
    return weights


@pytest.fixture(scope="module")
def annotator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three files of an annotator; its hands and faces never fire."""
    _import_detector()
    from controlnet_aux.open_pose.face import FaceNet
    from controlnet_aux.open_pose.model import handpose_model

    folder = tmp_path_factory.mktemp("annotator")
    hand = {name.split(".", 1)[1]: zeros(value) for name, value in handpose_model().state_dict().items()}
    face = {name: zeros(value) for name, value in FaceNet().state_dict().items()}
    torch.save(body_weights(), folder / "body_pose_model.pth")
    torch.save(hand, folder / "hand_pose_model.pth")
    torch.save(face, folder / "facenet.pth")
    return folder


@pytest.fixture(scope="module")
def detector(annotator: Path) -> OpenPose:
    return OpenPose(annotator, CPU)


def color_at(image: RGBImage, spot: Spot) -> tuple[int, ...]:
    column, row = round(spot[0] * image.width), round(spot[1] * image.height)
    return tuple(image.pixels[3 * (row * image.width + column) :][:3])


def test_a_person_in_a_photograph_becomes_a_skeleton_of_the_wanted_size(detector: OpenPose):
    found = skeleton(photograph(), detector, 512, 512)
    assert (found.width, found.height) == (512, 512)
    for joint, spot in SPOTS.items():
        assert color_at(found, spot) == COLORS[joint], joint
    assert is_skeleton(found)


def test_a_photograph_of_another_shape_gives_the_same_joints(detector: OpenPose):
    found = skeleton(photograph(300, 420), detector, 768, 1024)
    for joint, spot in SPOTS.items():
        assert color_at(found, spot) == COLORS[joint], joint


def test_a_photograph_without_anybody_is_refused_with_a_clear_text(detector: OpenPose):
    with pytest.raises(PoseNotFound, match="image: no person was found in the picture"):
        skeleton(photograph(person=False), detector, 512, 512)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 8), (20, 5)], ids=str)
def test_a_photograph_may_be_small_and_elongated(detector: OpenPose, size: tuple[int, int]):
    with pytest.raises(PoseNotFound):
        skeleton(rgb(Image.new("RGB", size, (90, 90, 90))), detector, 512, 2048)


@pytest.mark.parametrize("size", [(40, 6000), (6000, 40)], ids=str)
def test_a_ribbon_is_refused(detector: OpenPose, size: tuple[int, int]):
    with pytest.raises(InvalidInput, match="image: may be at most 8 times as long as it is wide"):
        skeleton(rgb(Image.new("RGB", size, (90, 90, 90))), detector, 512, 2048)


def test_a_skeleton_passes_through_unchanged_with_or_without_a_detector(detector: OpenPose):
    given = demo_skeleton(300, 200)
    assert skeleton(given, detector, 1024, 1024) is given
    assert skeleton(given, None, 1024, 1024) is given


def test_a_photograph_needs_the_annotator():
    with pytest.raises(AnnotatorMissing, match="no pose detector is installed"):
        skeleton(photograph(), None, 512, 512)


def test_the_detectors_networks_are_visible_to_the_pool(detector: OpenPose):
    assert {"body", "hand", "face"} == set(detector.modules)
    assert all(len(list(module.parameters())) > 50 for module in detector.modules.values())


@pytest.mark.parametrize("name", ["body_pose_model.pth", "hand_pose_model.pth", "facenet.pth"])
def test_an_annotator_with_a_missing_file_cannot_be_opened(annotator: Path, tmp_path: Path, name: str):
    for file in annotator.iterdir():
        if file.name != name:
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(CheckpointUnavailable, match="the pose annotator needs the files body_pose_model"):
        OpenPose(tmp_path, CPU)


def test_an_annotator_of_another_shape_cannot_be_opened(annotator: Path, tmp_path: Path):
    for name in ("body_pose_model.pth", "hand_pose_model.pth", "facenet.pth"):
        (tmp_path / name).symlink_to(annotator / "facenet.pth")
    with pytest.raises(
        CheckpointUnavailable, match="the weights of the pose annotator are damaged"
    ) as refused:
        OpenPose(tmp_path, CPU)
    assert str(tmp_path) not in str(refused.value)


class Malicious(NamedTuple):
    target: Path

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def test_weights_that_would_run_code_are_refused(annotator: Path, tmp_path: Path):
    target = tmp_path / "touched"
    torch.save({"conv1_1.weight": Malicious(target)}, tmp_path / "body_pose_model.pth")
    for name in ("hand_pose_model.pth", "facenet.pth"):
        (tmp_path / name).symlink_to(annotator / name)
    with pytest.raises(CheckpointUnavailable):
        OpenPose(tmp_path, CPU)
    assert not target.exists()


@torch.no_grad()
def test_a_photograph_is_drawn_after_as_its_skeleton_would_be(annotator: Path, random_manifest: Manifest):
    entry = random_manifest.pipelines["sd3-medium-pose"]
    source = type(entry.parts["pipeline"])(folder=annotator)
    entry = entry.model_copy(update={"parts": {**entry.parts, "annotator": source}})
    checkpoint = Checkpoint("sd3-medium-pose", random_manifest, entry, annotator, CPU)
    sd3 = StableDiffusion3Pose.open(checkpoint, AdapterLibrary(random_manifest, annotator))
    assert {"annotator_body", "annotator_hand", "annotator_face"} < set(sd3.modules)

    def draw(image: RGBImage) -> RGBImage:
        wanted = PoseToImage(
            pipeline="sd3-medium-pose",
            prompt="a knight",
            image=image,
            controlnet_conditioning_scale=1.0,
            width=128,
            height=192,
            num_inference_steps=2,
            guidance_scale=5.0,
            seeds=(1,),
        )
        (sample,) = sd3.encode(wanted)
        while not sample.sampler.done:
            step.advance([sample])
        picture = sample.finish(sample)
        assert isinstance(picture, Picture)
        return picture.image

    drawn = draw(photograph())
    assert sd3._detector is not None
    assert drawn == draw(detect(photograph(), sd3._detector, 128, 192))
    assert drawn != draw(demo_skeleton(128, 192))


def jpeg(image: RGBImage, quality: int) -> Image.Image:
    encoded = io.BytesIO()
    pillow(image).save(encoded, "JPEG", quality=quality)
    return Image.open(encoded).convert("RGB")


@pytest.mark.parametrize("size", [(256, 256), (512, 768), (1024, 1024), (1280, 768)], ids=str)
def test_a_skeleton_is_known_after_jpeg_and_scaling(size: tuple[int, int]):
    original = demo_skeleton(*size)
    assert is_skeleton(original)
    for quality in (20, 50, 90):
        picture = jpeg(original, quality)
        for factor in (0.5, 1, 2):
            scaled = picture.resize((round(size[0] * factor), round(size[1] * factor)))
            assert is_skeleton(rgb(scaled)), (quality, factor)


def test_a_half_figure_and_a_crowd_are_skeletons_too():
    seated = [point if number < 8 else None for number, point in enumerate(STANDING.body)]
    crowd = [
        Person(body=[point and (point[0] / 4 + shift, point[1] / 2 + 0.2) for point in STANDING.body])
        for shift in (0.0, 0.25, 0.5, 0.72)
    ]
    assert is_skeleton(draw_skeletons(512, 512, [Person(body=seated)]))
    assert is_skeleton(draw_skeletons(512, 512, crowd))
    assert all(is_skeleton(draw_skeletons(512, 512, [random_figure(seed).person])) for seed in range(8))


def test_a_skeleton_with_face_and_hands_is_one():
    face = [(0.5 + 0.05 * np.cos(turn), 0.13 + 0.05 * np.sin(turn)) for turn in np.linspace(0, 6, 68)]
    hand = [(0.33 + 0.004 * joint, 0.52 + 0.01 * (joint % 4)) for joint in range(21)]
    assert is_skeleton(draw_skeletons(512, 512, [Person(body=STANDING.body, hands=[hand], face=face)]))


def night(level: float, noise: float, lamps: int) -> RGBImage:
    """A dark street: lamps of many colours that glow into noisy darkness."""
    numbers = np.random.default_rng(lamps)
    rows, columns = np.mgrid[:384, :512]
    scene = np.full((384, 512, 3), level)
    for _ in range(lamps):
        x, y, radius = numbers.integers(512), numbers.integers(384), numbers.uniform(3, 15)
        color = numbers.uniform(0, 1, 3)
        color = (color - 0.9 * color.min()) / color.max()
        distance = np.hypot(columns - x, rows - y)[..., None] / radius
        scene = scene + color * (255 * np.exp(-(distance**2) / 2) + 60 / (1 + distance**2))
    scene = scene + numbers.normal(0, noise, scene.shape)
    return rgb(Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8)))


@pytest.mark.parametrize("lamps", [0, 1, 4, 10, 30])
@pytest.mark.parametrize(("level", "noise"), [(0, 0), (0, 3), (8, 4), (20, 8)])
def test_a_dark_photograph_is_not_taken_for_a_skeleton(level: float, noise: float, lamps: int):
    assert not is_skeleton(night(level, noise, lamps))


def test_a_skeleton_drawn_over_a_dark_photograph_is_a_photograph():
    picture = np.array(pillow(demo_skeleton(256, 256)))
    picture[:, :100] = np.maximum(picture[:, :100], 60)
    assert not is_skeleton(rgb(Image.fromarray(picture)))


def test_other_pictures_are_not_taken_for_skeletons():
    black = Image.new("RGB", (256, 256))
    bars = Image.new("RGB", (256, 256))
    for number, color in enumerate(COLORS):
        bars.paste(color, (14 * number, 0, 14 * number + 14, 256))
    text = Image.new("RGB", (256, 256))
    ImageDraw.Draw(text).text((20, 100), "NO SKELETON HERE", (255, 255, 255), font_size=24)
    inverted = Image.eval(pillow(demo_skeleton(256, 256)), lambda value: 255 - value)
    gradient = Image.linear_gradient("L")
    for picture in (black, bars, text, inverted, gradient):
        assert not is_skeleton(rgb(picture))
    assert not is_skeleton(photograph())


def test_joints_that_were_not_seen_are_left_out():
    class Joint(NamedTuple):
        x: float
        y: float

    class Body(NamedTuple):
        keypoints: list[Joint | None]

    class Pose(NamedTuple):
        body: Body
        left_hand: list[Joint] | None
        right_hand: list[Joint] | None
        face: list[Joint] | None

    seen, unseen = Joint(0.5, 0.25), Joint(-0.002, -0.002)
    person = _person(Pose(Body([seen, None] * 9), [seen, unseen], None, None))
    assert person == Person(body=[(0.5, 0.25), None] * 9, hands=[[(0.5, 0.25), None]], face=[])
    assert color_at(draw_skeletons(64, 64, [Person(body=person.body)]), (0.5, 0.25)) == COLORS[16]


def test_the_demo_client_can_draw_its_skeleton_without_torch():
    code = (
        "import sys; from pipelines.demo.world.figure import demo_skeleton; demo_skeleton(64, 64);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'controlnet_aux')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
