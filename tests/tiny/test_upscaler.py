"""Upscalers: any architecture, tiles without seams, and pictures that go on to one when they are drawn."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from spandrel import ModelLoader
from spandrel.architectures.Compact import Compact
from spandrel.architectures.ESRGAN import ESRGAN

from pipelines.denoising.loop import Loop
from pipelines.engine.pool import PipelinePool
from pipelines.errors import CheckpointUnavailable, InvalidInput
from pipelines.image_io import RGBImage
from pipelines.images import tiles
from pipelines.messages import Drawn, Event, Failed, Progress
from pipelines.request import Upscaling
from pipelines.weights.entries import Source, UpscalerEntry
from pipelines.weights.manifest import Manifest
from tests.drawing import (
    array,
    draw,
    drawings,
    events_of,
    image_of,
    largest_difference,
    open_family,
    small_request,
)
from tests.tiny.harmful import Harmful

SMALL = "small-x2"
TEXT_TO_IMAGE = small_request(height=48, num_inference_steps=2, seeds=(1, 2))


def noise(width: int, height: int, seed: int = 0) -> RGBImage:
    return image_of(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def request(image: RGBImage, scale: int = 2, pipeline: str = SMALL) -> Upscaling:
    return Upscaling(pipeline=pipeline, image=image, width=scale * image.width, height=scale * image.height)


def upscaled(manifest: Manifest, request: Upscaling) -> np.ndarray:
    (picture,) = draw(open_family(manifest, request.pipeline), request)
    return array(picture.image)


def with_upscaler(manifest: Manifest, state: dict[str, torch.Tensor], name: str) -> Manifest:
    save_file(state, manifest.path.parent / f"{name}.safetensors")
    entry = UpscalerEntry(source=Source(file=Path(f"{name}.safetensors")), dtype="float32")
    return manifest.model_copy(update={"upscalers": {**manifest.upscalers, name: entry}})


def untiled(manifest: Manifest, image: RGBImage, file: str = "upscaler") -> np.ndarray:
    """The picture enlarged by spandrel alone, the whole of it at once."""
    network = ModelLoader().load_from_state_dict(load_file(manifest.path.parent / f"{file}.safetensors"))
    whole = torch.from_numpy(array(image).astype(np.float32) / 255).permute(2, 0, 1)[None]
    return (network(whole)[0].permute(1, 2, 0) * 255).round().byte().numpy()


def test_a_small_picture_is_what_the_network_makes_of_it(manifest: Manifest) -> None:
    image = noise(40, 30)
    assert np.array_equal(upscaled(manifest, request(image)), untiled(manifest, image))


@pytest.mark.parametrize("size", [(400, 64), (64, 705), (800, 390)])
def test_tiles_leave_no_seams(size: tuple[int, int], manifest: Manifest) -> None:
    image = noise(*size)
    family = open_family(manifest, SMALL)
    assert family.encode(request(image))[0].sampler.total > 1
    assert largest_difference(upscaled(manifest, request(image)), untiled(manifest, image)) <= 1


def far_looking() -> dict[str, torch.Tensor]:
    """A network that adds to each pixel the four that lie 24 pixels away, at full strength: one per layer."""
    network = Compact(num_feat=4, num_conv=22, upscale=2)
    sides = [(1, 0), (1, 2), (0, 1), (2, 1)]
    with torch.no_grad():
        for module in network.modules():
            for parameter in module.parameters(recurse=False):
                parameter.fill_(1.0 if isinstance(module, torch.nn.PReLU) else 0.0)
        first, *inner, last = [module for module in network.body if isinstance(module, torch.nn.Conv2d)]
        for channel, (row, column) in enumerate(sides):
            first.weight[channel, 1, row, column] = 1.0
            last.weight[:, channel, row, column] = 1.0
            for convolution in inner:
                convolution.weight[channel, channel, row, column] = 1.0
    return network.state_dict()


@pytest.mark.parametrize("size", [(400, 64), (64, 705)])
def test_a_network_that_looks_as_far_as_the_margin_sees_no_cut(
    size: tuple[int, int], manifest: Manifest
) -> None:
    far = with_upscaler(manifest, far_looking(), "far")
    dark = image_of(array(noise(*size)) // 6)  # five pixels together are no brighter than white
    expected = untiled(far, dark, "far")
    assert np.abs(expected - array(dark).repeat(2, axis=0).repeat(2, axis=1).astype(int)).mean() > 40
    assert np.array_equal(upscaled(far, request(dark, pipeline="far")), expected)


@pytest.mark.parametrize("length", [1, 383, 384, 385, 704, 705, 5000])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_everywhere_the_tiles_count_one_in_all_and_cut_edges_nothing(length: int, scale: int) -> None:
    rows = tiles.weights(length, scale)
    begins = tiles.starts(length)
    assert rows.shape == (len(begins), length * scale)
    assert torch.allclose(rows.sum(dim=0), torch.ones(length * scale))
    for begin, row in zip(begins, rows, strict=True):
        counted = row.nonzero().flatten()
        first = 0 if begin == 0 else begin + tiles.MARGIN
        last = length if begin + tiles.TILE >= length else begin + tiles.TILE - tiles.MARGIN
        assert counted.min() >= first * scale
        assert counted.max() < last * scale
    overlaps = [begin + tiles.TILE - after for begin, after in pairwise(begins)]
    assert all(overlap >= tiles.OVERLAP for overlap in overlaps)


def test_the_demo_upscaler_is_sane_and_adds_something_of_its_own(manifest: Manifest) -> None:
    image = noise(32, 32)
    doubled = array(image).repeat(2, axis=0).repeat(2, axis=1).astype(int)
    difference = np.abs(upscaled(manifest, request(image)) - doubled)
    assert 1 < difference.mean() < 25


def test_the_scale_is_read_from_the_checkpoint_whatever_its_architecture(manifest: Manifest) -> None:
    torch.manual_seed(5)
    network = ESRGAN(scale=4, num_filters=8, num_blocks=1)
    four = with_upscaler(manifest, network.state_dict(), "esrgan")
    image = noise(24, 16)
    with torch.no_grad():
        expected = network(torch.from_numpy(array(image).astype(np.float32) / 255).permute(2, 0, 1)[None])
    expected = (expected[0].clamp(0, 1).permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.array_equal(upscaled(four, request(image, 4, "esrgan")), expected)
    halved = np.asarray(Image.fromarray(expected).resize((48, 32), Image.Resampling.LANCZOS))
    assert np.array_equal(upscaled(four, request(image, 2, "esrgan")), halved)


def test_what_is_no_upscaler_is_refused_when_it_is_opened(manifest: Manifest) -> None:
    restores = Compact(num_feat=4, num_conv=1, upscale=1).state_dict()
    grey = Compact(num_in_ch=1, num_out_ch=1, num_feat=4, num_conv=1, upscale=2).state_dict()
    unknown = {"what": torch.zeros(3)}
    for name, state in {"restores": restores, "grey": grey, "unknown": unknown}.items():
        with pytest.raises(CheckpointUnavailable, match=name):
            open_family(with_upscaler(manifest, state, name), name)


@pytest.mark.parametrize("content", ["tensors", "code", "nothing"])
def test_of_a_pickle_only_tensors_are_read(content: str, manifest: Manifest, tmp_path: Path) -> None:
    state = Compact(num_feat=4, num_conv=1, upscale=2).state_dict()
    inside = {"tensors": {"params": state}, "code": {**state, "x": Harmful(tmp_path / "ran")}, "nothing": {}}
    torch.save(inside[content], manifest.path.parent / "pickle.pth")
    entry = UpscalerEntry(source=Source(file=Path("pickle.pth")), dtype="float32")
    pickled = manifest.model_copy(update={"upscalers": {"pickle": entry}})
    if content == "tensors":
        assert upscaled(pickled, request(noise(8, 8), pipeline="pickle")).shape == (16, 16, 3)
        return
    with pytest.raises(CheckpointUnavailable):
        open_family(pickled, "pickle")
    assert not (tmp_path / "ran").exists()


def test_an_upscaler_draws_nothing_else(manifest: Manifest) -> None:
    with pytest.raises(InvalidInput, match="does not draw text_to_image"):
        open_family(manifest, SMALL).encode(replace(TEXT_TO_IMAGE, pipeline=SMALL))


# Through the loop


def loop_of(manifest: Manifest, budget_bytes: int = 10**9) -> tuple[Loop, PipelinePool]:
    pool = PipelinePool(
        manifest, manifest.path.parent, torch.device("cpu"), budget_bytes=budget_bytes, host_budget_bytes=0
    )
    return Loop(pool, 10**6), pool


@pytest.fixture(scope="module")
def unpinned(manifest: Manifest) -> Manifest:
    entries = {name: each.model_copy(update={"resident": False}) for name, each in manifest.pipelines.items()}
    return manifest.model_copy(update={"pipelines": entries})


@pytest.mark.parametrize("pipeline", ["stable-diffusion-v1-5", "sdxl"])
def test_drawn_pictures_go_on_to_the_upscaler(pipeline: str, unpinned: Manifest) -> None:
    plainly = replace(TEXT_TO_IMAGE, pipeline=pipeline)
    loop, pool = loop_of(unpinned)
    requests = {"larger": replace(plainly, upscaler=SMALL), "plain": plainly}
    events = events_of(loop, requests)
    drawn = drawings(events)
    assert [image.width for image in drawn["larger"].images] == [128, 128]
    for larger, plain in zip(drawn["larger"].images, drawn["plain"].images, strict=True):
        assert np.array_equal(array(larger), untiled(unpinned, plain))
    assert set(pool.resident) == {pipeline, SMALL}
    last = [event for event in events if isinstance(event, Progress) and event.ticket_id == "larger"][-1]
    assert last.done == last.total


def test_a_flagged_picture_is_enlarged_without_the_network(unpinned: Manifest) -> None:
    family = open_family(unpinned, "stable-diffusion-v1-5")

    class Suspicious:
        def demand(self) -> None:
            """It is there."""

        def flags(self, image: RGBImage) -> bool:
            return True

    family._safety_checker = Suspicious()
    (picture, _) = draw(family, replace(TEXT_TO_IMAGE, upscaler=SMALL, safety_checker=True))
    assert picture.flagged
    assert (picture.image.width, picture.image.height) == (128, 96)
    assert not any(picture.image.pixels)


def test_many_upscalings_share_evaluations_and_stay_what_they_are_alone(unpinned: Manifest) -> None:
    images = [noise(400, 40, seed) for seed in range(3)]
    loop, _ = loop_of(unpinned)
    together = drawings(events_of(loop, {str(index): request(image) for index, image in enumerate(images)}))
    for index, image in enumerate(images):
        alone = upscaled(unpinned, request(image))
        assert largest_difference(array(together[str(index)].images[0]), alone) <= 1


def test_an_unknown_upscaler_fails_its_request_before_anything_is_drawn(unpinned: Manifest) -> None:
    loop, _ = loop_of(unpinned)
    loop.submit("first", replace(TEXT_TO_IMAGE, num_inference_steps=9))
    loop.turn()
    loop.submit("bad", replace(TEXT_TO_IMAGE, upscaler="unheard"))
    events: list[Event] = []
    while not loop.idle:
        events += loop.turn()
    assert [event.ticket_id for event in events if isinstance(event, Failed)] == ["bad"]
    assert [event.ticket_id for event in events if isinstance(event, Drawn)] == ["first"]
