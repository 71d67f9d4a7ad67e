"""Faces: found in a real photograph, aligned, restored one by one, and laid back without a seam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import skimage.data
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import load_file
from skimage.transform import SimilarityTransform
from spandrel import ImageModelDescriptor, ModelLoader
from spandrel.architectures.Compact import Compact
from spandrel.architectures.GFPGAN import GFPGAN, GFPGANArch

from pipelines.demo.checkpoints.parts import fill
from pipelines.denoising import step
from pipelines.denoising.loop import Loop
from pipelines.denoising.pipeline import DirectAnswer
from pipelines.drawing import Drawing
from pipelines.engine.parts import module_bytes
from pipelines.engine.pool import PipelinePool
from pipelines.errors import CheckpointUnavailable, InvalidInput
from pipelines.families.face_restorer import NO_FACE, FaceRestorer
from pipelines.image_io import RGBImage
from pipelines.images.face_alignment import FEATHER, SIDE, alignment, cut_out, enlarged, lay_on
from pipelines.images.faces import MIN_EYE_DISTANCE, TEMPLATE, FrontalCascade, YuNet, _distinct
from pipelines.messages import Drawn, Failed, Progress
from pipelines.request import FaceRestoration, Upscaling
from pipelines.weights.entries import FaceRestorerEntry, Source
from pipelines.weights.manifest import Manifest
from tests.drawing import (
    advance_to_the_end,
    array,
    draw,
    drawings,
    events_of,
    image_of,
    largest_difference,
    open_family,
)
from tests.random_checkpoints.build import build as build_random_checkpoints
from tests.tiny.harmful import Harmful

SMALL = "small-faces"

ASTRONAUT: np.ndarray = skimage.data.astronaut()
POINTS = np.array([(204, 101), (247.5, 102.5), (225, 125), (204.5, 141), (244, 141)])
"""The five points of the astronaut's face, read off the photograph."""
NOBODY: np.ndarray = skimage.data.coffee()[:250, :250]
PORTRAIT = ASTRONAUT[:250, 100:350]
GROUP = np.concatenate([PORTRAIT, PORTRAIT[:, ::-1]], axis=1)
HEADS = (slice(60, 160), slice(80, 170)), (slice(60, 160), slice(330, 420))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return build_random_checkpoints(tmp_path_factory.mktemp("random"), "upscaler", "face_restorer")


@pytest.fixture(scope="module")
def family(manifest: Manifest) -> Any:
    return open_family(manifest, SMALL)


def restoration(picture: np.ndarray, scale: int = 1, pipeline: str = SMALL) -> FaceRestoration:
    original = image_of(picture)
    image = image_of(picture.repeat(scale, axis=0).repeat(scale, axis=1))
    return FaceRestoration(
        pipeline=pipeline, original=original, image=image, width=image.width, height=image.height
    )


def with_restorer(manifest: Manifest, name: str, **sources: str) -> Manifest:
    files = {part: Source(file=Path(file)) for part, file in sources.items()}
    return manifest.model_copy(update={"face_restorers": {name: FaceRestorerEntry(**files)}})


# Finding


def test_the_face_of_a_photograph_is_found_where_it_is():
    (face,) = FrontalCascade().find(ASTRONAUT)
    assert np.abs(face - POINTS).max() < 8


def test_two_faces_are_two_and_a_shrunk_one_is_one():
    left, right = sorted(FrontalCascade().find(GROUP), key=lambda face: face[0, 0])
    mirrored = [(GROUP.shape[1] - 1 + 100, 0) + POINTS[index] * (-1, 1) for index in (1, 0, 2, 4, 3)]
    assert np.abs(left + np.array((100, 0)) - POINTS).max() < 10
    assert np.abs(right - mirrored).max() < 10
    (small,) = FrontalCascade().find(np.asarray(Image.fromarray(ASTRONAUT).resize((300, 300))))
    assert np.abs(small - POINTS * 300 / 512).max() < 6


@pytest.mark.parametrize("name", ["coffee", "chelsea", "brick", "grass"])
def test_where_nobody_is_no_face_is_found(name: str):
    picture = getattr(skimage.data, name)()
    picture = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    assert FrontalCascade().find(picture) == []


@pytest.mark.parametrize("shape", [(1, 1), (8, 3000), (23, 23), (24, 24), (700, 20)])
def test_a_picture_of_any_size_can_be_searched(shape: tuple[int, int], marked_yunet: Path):
    picture = np.full((*shape, 3), 90, np.uint8)
    assert FrontalCascade().find(picture) == []
    assert YuNet(marked_yunet).find(picture) == []


CELL_POINTS = np.array([(-20, -12), (20, -12), (0, 4), (-16, 24), (16, 24)], float)
"""Where `marked_yunet` says the points of a face are, in pixels from the middle of its mark."""


@pytest.fixture(scope="module")
def marked_yunet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with the inputs and outputs of YuNet's published file, made by hand.

    It is as sure of a face as a cell of 8 x 8 pixels is red.
    """
    nodes: list[Any] = []
    constants: list[Any] = []
    outputs: list[Any] = []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    constants.append(numpy_helper.from_array(np.array([1, 1, -1]), "flat"))
    constants.append(numpy_helper.from_array(np.array([1, -1, 1]), "column"))
    colours = np.array([-1, -1, 1]).reshape(1, 3, 1, 1) / 255  # blue, green, red
    red = constant("red", colours)
    for stride in (8, 16, 32):
        cells = (640 // stride) ** 2
        pooled, graded, score = f"pooled_{stride}", f"graded_{stride}", f"score_{stride}"
        pool = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
        nodes.append(helper.make_node("AveragePool", ["input"], [pooled], **pool))
        nodes.append(helper.make_node("Conv", [pooled, red], [graded]))
        nodes.append(helper.make_node("Relu", [graded], [f"some_{stride}"]))
        share = constant(f"share_{stride}", np.array([1.0 if stride == 8 else 0.0]))
        nodes.append(helper.make_node("Mul", [f"some_{stride}", share], [score]))
        nodes.append(helper.make_node("Reshape", [score, "column"], [f"cls_{stride}"]))
        nodes.append(helper.make_node("Identity", [f"cls_{stride}"], [f"obj_{stride}"]))
        zero = constant(f"zero_{stride}", np.array([0.0]))
        box = np.array([0.5, 0.5, math.log(60 / stride), math.log(60 / stride)])
        points = (CELL_POINTS / stride + 0.5).reshape(-1)
        for name, values in (("bbox", box), ("kps", points)):
            nodes.append(helper.make_node("Mul", [f"cls_{stride}", zero], [f"{name}_nothing_{stride}"]))
            offset = constant(f"{name}_values_{stride}", values.reshape(1, 1, -1))
            nodes.append(helper.make_node("Add", [f"{name}_nothing_{stride}", offset], [f"{name}_{stride}"]))
        for name, columns in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            shape = [1, cells, columns]
            outputs.append(helper.make_tensor_value_info(f"{name}_{stride}", TensorProto.FLOAT, shape))
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 640, 640])]
    order = [f"{name}_{stride}" for name in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)]
    outputs.sort(key=lambda each: order.index(each.name))
    graph = helper.make_graph(nodes, "yunet", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    path = tmp_path_factory.mktemp("detector") / "yunet.onnx"
    onnx.save(model, path)
    return path


def marked(width: int, height: int, *middles: tuple[int, int], radius: int) -> np.ndarray:
    picture = np.full((height, width, 3), 70, np.uint8)
    for x, y in middles:
        picture[y - radius : y + radius, x - radius : x + radius] = (255, 0, 0)
    return picture


def test_yunets_points_come_back_in_the_pictures_own_pixels(marked_yunet: Path):
    # Marks that are one cell of the picture as the network sees it, at half of its size.
    picture = marked(1280, 960, (328, 248), (1000, 520), radius=8)
    faces = sorted(YuNet(marked_yunet).find(picture), key=lambda face: face[0, 0])
    assert [face.shape for face in faces] == [(5, 2), (5, 2)]
    for face, middle in zip(faces, [(328, 248), (1000, 520)], strict=True):
        assert np.abs(face - (middle + 2 * CELL_POINTS)).max() < 2


def test_a_face_too_large_for_yunet_is_found_in_the_smaller_picture(marked_yunet: Path):
    # In the larger one nine cells are red, whose faces are one; the smaller one says it once more.
    picture = marked(640, 640, (324, 324), radius=12)
    (face,) = YuNet(marked_yunet).find(picture)
    assert np.abs(face.mean(axis=0) - (324, 324)).max() < 24


def test_what_is_no_yunet_is_refused_when_it_is_opened(manifest: Manifest):
    (manifest.path.parent / "no.onnx").write_bytes(b"no network")
    broken = with_restorer(manifest, "broken", source="face_restorer.safetensors", detector="no.onnx")
    with pytest.raises(CheckpointUnavailable, match="the face detector is not YuNet"):
        open_family(broken, "broken")


def test_a_detector_of_the_manifest_finds_the_faces(manifest: Manifest, marked_yunet: Path):
    named = with_restorer(manifest, "marked", source="face_restorer.safetensors", detector=str(marked_yunet))
    picture = marked(640, 480, (324, 244), radius=4)
    (sample,) = open_family(named, "marked").encode(restoration(picture, pipeline="marked"))
    assert sample.sampler.total == 1
    nobody = open_family(named, "marked").encode(restoration(ASTRONAUT, pipeline="marked"))
    assert isinstance(nobody, DirectAnswer)


# Aligning


def turned(degrees: float, scale: float, shift: Sequence[float]) -> np.ndarray:
    """`TEMPLATE` somewhere else."""
    turn = scale * np.exp(1j * math.radians(degrees))
    return TEMPLATE @ np.array([(turn.real, turn.imag), (-turn.imag, turn.real)]) + shift


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (30, 0.2), (-75, 3), (180, 1)])
def test_a_face_that_is_the_template_turned_is_brought_back_exactly(degrees: float, scale: float):
    face = turned(degrees, scale, (40, -7))
    assert np.allclose(np.c_[face, np.ones(5)] @ alignment(face).T, TEMPLATE)


def test_other_faces_are_brought_as_near_as_a_similarity_can():
    face = turned(20, 0.5, (9, 3)) + np.random.default_rng(3).normal(0, 6, (5, 2))
    expected = SimilarityTransform.from_estimate(face, TEMPLATE).params[:2]
    assert np.allclose(alignment(face), expected)


@pytest.mark.parametrize(("degrees", "scale"), [(0, 0.25), (25, 0.4), (-40, 1.3), (10, 2.2)])
def test_what_is_cut_out_and_laid_back_changes_next_to_nothing(degrees: float, scale: float):
    large = np.asarray(Image.fromarray(ASTRONAUT).resize((1400, 1400), Image.Resampling.BICUBIC))
    smooth = cv2.GaussianBlur(large, (0, 0), 8)
    matrix = alignment(turned(degrees, scale, (300, 250)))
    again = smooth.copy()
    lay_on(again, cut_out(smooth, matrix), matrix)
    assert largest_difference(again, smooth) <= 3


@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0, 1.7])
def test_a_face_fades_into_the_picture_and_touches_nothing_else(scale: float):
    picture = np.zeros((1000, 1000, 3), np.uint8)
    matrix = alignment(turned(0, scale, (60, 50)))
    lay_on(picture, np.full((SIDE, SIDE, 3), 255), matrix)
    row = picture[round(50 + scale * SIDE / 2), :, 0].astype(int)
    begin, end = 60, round(60 + scale * SIDE)
    assert not row[: begin - 2].any()
    assert not row[end + 2 :].any()
    inside = math.ceil(scale * FEATHER) + 2
    assert (row[begin + inside : end - inside] == 255).all()
    edge = row[begin : begin + inside]
    assert (np.diff(edge) >= 0).all()
    assert np.diff(row).max() <= 255 / (scale * FEATHER) + 12


@pytest.mark.parametrize("shift", [(-300, -200), (700, 650), (-5000, 10), (3, 5000)])
def test_a_face_at_the_edge_of_the_picture_or_beyond_is_laid_on_as_far_as_it_goes(shift: tuple[int, int]):
    picture = ASTRONAUT.copy()
    matrix = alignment(turned(0, 1, shift))
    lay_on(picture, np.full((SIDE, SIDE, 3), 255), matrix)
    middle = np.array(shift) + SIDE / 2
    seen = all(-SIDE / 2 + FEATHER < place < 512 + SIDE / 2 - FEATHER for place in middle)
    assert (picture != ASTRONAUT).any() == seen
    assert cut_out(ASTRONAUT, matrix).shape == (SIDE, SIDE, 3)


def test_what_becomes_smaller_is_averaged():
    stripes = np.zeros((1600, 1600, 3), np.uint8)
    stripes[:, ::2] = 200
    face = cut_out(stripes, alignment(turned(0, 3, (10, 10)))).astype(int)
    assert np.abs(face - 100).max() < 40


def test_the_alignment_of_an_enlarged_picture_shows_the_same_face():
    large = np.asarray(Image.fromarray(ASTRONAUT).resize((1024, 1536), Image.Resampling.BICUBIC))
    matrix = alignment(POINTS)
    there = cut_out(large, enlarged(matrix, 2, 3)).astype(int)
    assert np.abs(there - cut_out(ASTRONAUT, matrix)).mean() < 4


# Restoring


def test_a_face_is_what_the_network_makes_of_it_laid_on_the_enlarged_picture(manifest: Manifest, family: Any):
    asked = restoration(PORTRAIT, 2)
    (picture,) = draw(family, asked)
    (face,) = FrontalCascade().find(PORTRAIT)
    matrix = alignment(face)
    network: Any = ModelLoader().load_from_state_dict(
        load_file(manifest.path.parent / "face_restorer.safetensors")
    )
    cut = torch.from_numpy(cut_out(PORTRAIT, matrix).astype(np.float32) / 255).permute(2, 0, 1)[None]
    expected = array(asked.image).copy()
    lay_on(expected, (network(cut)[0].permute(1, 2, 0) * 255).numpy(), enlarged(matrix, 2, 2))
    assert np.array_equal(array(picture.image), expected)
    changed = (array(picture.image) != array(asked.image)).any(axis=2)
    assert changed[120:320, 160:340].mean() > 0.9
    assert changed.mean() < 0.6
    assert picture.warnings == ()


def test_every_face_of_a_group_is_restored(family: Any):
    (sample,) = family.encode(restoration(GROUP))
    assert (sample.sampler.total, sample.latents.shape) == (2, (2, 3, SIDE, SIDE))
    advance_to_the_end(family, sample)
    changed = (array(sample.finish(sample).image) != GROUP).any(axis=2)
    for head in HEADS:
        assert changed[head].mean() > 0.9
    assert not changed[:, 240:260].any()


def test_a_picture_without_a_face_stays_as_it_is_and_a_warning_says_so(family: Any):
    asked = restoration(NOBODY, 2)
    (picture,) = draw(family, asked)
    assert (picture.image, picture.warnings) == (asked.image, (NO_FACE,))


@pytest.mark.parametrize(("eyes", "faces"), [(MIN_EYE_DISTANCE - 1, 0), (MIN_EYE_DISTANCE + 1, 1)])
def test_a_face_of_a_few_pixels_is_left_alone(eyes: float, faces: int):
    face = TEMPLATE * eyes / (TEMPLATE[1, 0] - TEMPLATE[0, 0])
    assert len(_distinct(iter([face, face + 1]))) == faces


def gfpgan(seed: int) -> ImageModelDescriptor[GFPGAN]:
    """GFPGAN as it is published, but for the number of its channels."""
    network = GFPGAN(narrow=1 / 16, num_style_feat=16)
    fill(network, seed)
    with torch.no_grad():
        for name, noise in network.stylegan_decoder.named_parameters():
            if name.endswith("conv.weight") and noise.numel() == 1:
                noise.fill_(0.3)
    return ImageModelDescriptor(
        network.eval(), network.state_dict(), GFPGANArch(), "FaceSR", [], False, True, 1, 3, 3
    )


def test_gfpgan_sees_the_numbers_that_it_was_trained_on_and_its_own_noise():
    network = gfpgan(5)
    family = FaceRestorer(network, FrontalCascade(), torch.device("cpu"))
    samples = [family.encode(restoration(picture))[0] for picture in (PORTRAIT, PORTRAIT[:, ::-1])]
    cut = samples[0].latents.clone()
    with torch.no_grad():
        expected = network.model(2 * cut - 1, randomize_noise=False)[0]
        another = network.model(2 * cut - 1)[0]
        step.advance(samples)
    assert not torch.allclose(another, expected, atol=0.01)
    assert torch.allclose(samples[0].latents, (expected / 2 + 0.5).clamp(0, 1), atol=1e-4)


def test_the_published_form_of_gfpgan_is_recognised(manifest: Manifest):
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in GFPGAN().state_dict().items()}
    # One stored number for each tensor, so that the file stays small.
    tensors = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    torch.save({"params_ema": tensors}, manifest.path.parent / "GFPGANv1.4.pth")
    opened = open_family(with_restorer(manifest, "gfpgan", source="GFPGANv1.4.pth"), "gfpgan")
    assert opened._network.architecture.id == "GFPGAN"
    assert opened._network.dtype is torch.float32  # the entry's own, float16, is more than it can do


def test_what_restores_no_faces_is_refused_when_it_is_opened(manifest: Manifest, tmp_path: Path):
    folder = manifest.path.parent
    torch.save(Compact(num_feat=4, num_conv=1, upscale=2).state_dict(), folder / "enlarges.pth")
    torch.save({"params": Harmful(tmp_path / "ran")}, folder / "harmful.pth")
    torch.save({"what": torch.zeros(3)}, folder / "unknown.pth")
    for name in ("enlarges", "harmful", "unknown", "missing"):
        with pytest.raises(CheckpointUnavailable, match=name):
            open_family(with_restorer(manifest, name, source=f"{name}.pth"), name)
    assert not (tmp_path / "ran").exists()


def test_a_face_restorer_draws_nothing_else(family: Any):
    picture = image_of(ASTRONAUT)
    with pytest.raises(InvalidInput, match="does not draw upscaling"):
        family.encode(Upscaling(pipeline=SMALL, image=picture, width=8, height=8))


# Through the loop


def upscaling(picture: np.ndarray, face_restorer: str | None = SMALL) -> Upscaling:
    height, width = picture.shape[:2]
    return Upscaling(
        pipeline="small-x2",
        image=image_of(picture),
        width=2 * width,
        height=2 * height,
        face_restorer=face_restorer,
    )


def loop_of(manifest: Manifest) -> tuple[Loop, PipelinePool]:
    entries = {name: each.model_copy(update={"resident": False}) for name, each in manifest.pipelines.items()}
    manifest = manifest.model_copy(update={"pipelines": entries})
    pool = PipelinePool(
        manifest, manifest.path.parent, torch.device("cpu"), budget_bytes=10**9, host_budget_bytes=0
    )
    return Loop(pool, 10**7), pool


def only(drawing: Drawing) -> RGBImage:
    (image,) = drawing.images
    return image


def test_enlarged_pictures_go_on_to_the_face_restorer_which_the_pool_counts(manifest: Manifest):
    loop, pool = loop_of(manifest)
    rows: list[int] = []
    network: Any = pool.open(SMALL).modules["face_restorer"]
    network.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    requests = {
        "face": upscaling(PORTRAIT),
        "nobody": upscaling(NOBODY),
        "as it is": upscaling(PORTRAIT, None),
    }
    events = events_of(loop, requests)
    drawn = drawings(events)
    assert rows == [1]
    assert [drawn[name].warnings for name in requests] == [(), (NO_FACE,), ()]
    assert set(pool.resident) == {"small-x2", SMALL}
    opened = [pool.open(name).modules for name in pool.resident]
    assert pool.used_bytes == sum(module_bytes(modules) for modules in opened)
    assert module_bytes({"": network}) > 2_000_000
    assert only(drawn["nobody"]) == only(drawings(events_of(loop, {"": upscaling(NOBODY, None)}))[""])
    (alone,) = draw(
        pool.open(SMALL),
        FaceRestoration(
            pipeline=SMALL,
            original=image_of(PORTRAIT),
            image=only(drawn["as it is"]),
            width=500,
            height=500,
        ),
    )
    assert alone.image != only(drawn["as it is"])
    assert largest_difference(array(only(drawn["face"])), array(alone.image)) <= 1
    assert drawn["face"].timings.evaluations == drawn["as it is"].timings.evaluations + 1
    last = {event.ticket_id: event for event in events if isinstance(event, Progress)}
    assert all(event.done == event.total for event in last.values())


def test_an_unknown_face_restorer_fails_its_request_alone(manifest: Manifest):
    loop, _ = loop_of(manifest)
    bad = replace(upscaling(NOBODY), face_restorer="unheard")
    events = events_of(loop, {"first": upscaling(NOBODY), "bad": bad})
    assert [event.ticket_id for event in events if isinstance(event, Failed)] == ["bad"]
    assert [event.ticket_id for event in events if isinstance(event, Drawn)] == ["first"]
    assert {event.ticket_id for event in events if isinstance(event, Progress)} <= {"first"}
