"""What the parameters of text2img, img2img and inpaint do to the picture, read by the judge."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.demo.checkpoints.safety_checker import FLAGGED
from pipelines.demo.judging.judge import compare, read
from pipelines.demo.training.evaluate import ARTISTS, measure, trained_scenes
from pipelines.demo.training.local_loop import LocalLoop
from pipelines.demo.world.captions import caption
from pipelines.demo.world.palette import PALETTE
from pipelines.demo.world.world import ColoredShape, Scene, random_scene, render, simple_scene
from pipelines.image_io import RGBImage, from_pil, to_pil
from pipelines.request import ImageToImage, Inpainting
from server.endpoints.enterprise.drawing.phrases import enhanced_prompt
from tests.demo.meaning.looking import FEWER_STEPS, TENTH, apart, drawn, missed, pixels, prompted, right

SIDE = 512
"""The width and height of the pictures, in pixels."""
ASK = partial(ARTISTS["SD1.5"], **FEWER_STEPS, token_merging_ratio=0.0)
RED_ON_BLUE = simple_scene("circle", "red", "blue")
SCENES = trained_scenes(4)


def request(prompt: str = caption(RED_ON_BLUE), seed: int = 1, **changes: Any) -> Any:
    return ASK(prompt, seed, **changes)


def redrawn(image: RGBImage, prompt: str, strength: float, **changes: Any) -> ImageToImage:
    """A request that begins with a picture of `SIDE`."""
    return ImageToImage(**prompted(request(prompt, **changes)), image=image, strength=strength)


# The prompt


@pytest.mark.slow
def test_a_part_of_the_table_meets_its_targets(local_loop: LocalLoop) -> None:
    assert missed(measure(ASK, local_loop.draw, TENTH)) == {}


@pytest.mark.slow
def test_sizes_and_places_are_heard(local_loop: LocalLoop) -> None:
    single = (scene for scene in map(random_scene, range(80)) if len(scene.shapes) == 1)
    scenes = list({(scene.size, scene.place): scene for scene in single}.values())[:8]
    pictures = drawn(local_loop, [request(caption(scene), seed) for seed, scene in enumerate(scenes)])
    verdicts = [compare(read(image), scene) for image, scene in zip(pictures, scenes, strict=True)]
    assert len(scenes) == 8
    assert sum(each.ground and each.colors and each.size and each.place for each in verdicts) >= 7


@pytest.mark.slow
def test_two_shapes_have_their_colours_side_by_side(local_loop: LocalLoop) -> None:
    scenes = [scene for scene in map(random_scene, range(60)) if len(scene.shapes) == 2][:4]
    pictures = drawn(local_loop, [request(caption(scene), seed) for seed, scene in enumerate(scenes)])
    verdicts = [compare(read(image), scene) for image, scene in zip(pictures, scenes, strict=True)]
    assert sum(each.ground and each.colors for each in verdicts) >= 3


def test_pictures_need_not_be_square(local_loop: LocalLoop) -> None:
    sides = ((512, 384), (384, 512))
    asked = [request(caption(SCENES[0]), width=width, height=height) for width, height in sides]
    pictures = drawn(local_loop, asked)
    assert [(image.width, image.height) for image in pictures] == [*sides]
    assert all(right(image, SCENES[0]) for image in pictures)


def test_phrases_that_are_added_to_a_prompt_leave_its_meaning(local_loop: LocalLoop) -> None:
    """The phrases are those that ``enhance_prompt`` adds."""
    asked = [request(enhanced_prompt(caption(scene))) for scene in SCENES[:2]]
    assert all(map(right, drawn(local_loop, asked), SCENES))


@pytest.mark.slow
def test_every_clip_skip_reads_the_prompt_in_its_own_way(local_loop: LocalLoop) -> None:
    asked = [request(clip_skip=skipped) for skipped in (None, 1, 2, 4, 8)]
    pictures = drawn(local_loop, asked)
    assert len(set(pictures)) == len(pictures)
    assert sum(right(image, RED_ON_BLUE) for image in pictures) >= 4


# Guidance, steps, schedulers, seeds


@pytest.mark.slow
def test_guidance_makes_the_prompts_count(local_loop: LocalLoop) -> None:
    """Without it a negative prompt is not even heard, and what the prompt changes is but a seventh."""
    negative = f"a {RED_ON_BLUE.ground} background"
    for scale, heard in ((1.0, False), (7.0, True)):
        asked = [request(guidance_scale=scale), request(guidance_scale=scale, negative_prompt=negative)]
        plain, averse = drawn(local_loop, asked)
        assert right(plain, RED_ON_BLUE) == heard
        assert (plain != averse) == heard


@pytest.mark.slow
def test_more_steps_decide_what_the_prompt_leaves_open(local_loop: LocalLoop) -> None:
    """One step shows the mean of all pictures that there could be; of a whole caption there is but one."""
    said = [f"a {scene.shapes[0].color} {scene.shapes[0].shape}" for scene in SCENES]
    decided = {
        steps: sum(
            read(image).ground is not None
            for image in drawn(
                local_loop,
                [request(words, seed, num_inference_steps=steps) for seed, words in enumerate(said)],
            )
        )
        for steps in (1, 10)
    }
    assert decided[1] < decided[10] >= 3


@pytest.mark.slow
def test_samples_differ_and_mean_the_same(local_loop: LocalLoop) -> None:
    (pictures,) = local_loop.draw([request(seeds=(1, 2, 3))])
    assert len(set(pictures)) == 3
    assert all(right(image, RED_ON_BLUE) for image in pictures)


# Pictures to begin with

KEPT = ("small", "top left")
START = render(Scene("white", (ColoredShape("star", "red"),), *KEPT), SIDE)
OTHERWISE = "a blue star on a white background"


def test_little_strength_keeps_the_composition_and_changes_the_colour(local_loop: LocalLoop) -> None:
    assert looks(drawn(local_loop, [redrawn(START, OTHERWISE, 0.3)])[0]) == ("white", "blue", "star", *KEPT)


@pytest.mark.slow
def test_full_strength_follows_the_prompt_alone(local_loop: LocalLoop) -> None:
    """The prompt says by its silence that the shape is neither small nor aside."""
    (image,) = drawn(local_loop, [redrawn(START, OTHERWISE, 1.0)])
    assert looks(image) == ("white", "blue", "star", "medium", "center")
    asked = [redrawn(START, caption(scene), 1.0, seed=seed) for seed, scene in enumerate(SCENES)]
    assert sum(map(right, drawn(local_loop, asked), SCENES)) >= 3


def looks(image: RGBImage) -> tuple[str | None, ...]:
    """Ground, colour, shape, size and place of the only shape."""
    reading = read(image)
    (shape,) = reading.shapes
    return (reading.ground, shape.color, shape.shape, shape.size, shape.place)


def test_what_is_masked_is_repainted_and_nothing_else(local_loop: LocalLoop) -> None:
    picture, wanted = render(RED_ON_BLUE, SIDE), simple_scene("star", "yellow", "blue")
    white = np.zeros((SIDE, SIDE, 3), np.uint8)
    white[96:-96, 96:-96] = 255
    mask = from_pil(Image.fromarray(white))
    asked = Inpainting(**prompted(request(caption(wanted))), image=picture, mask=mask, strength=1.0)
    (image,) = drawn(local_loop, [asked])
    assert right(image, wanted)
    assert (pixels(image) == pixels(picture))[white == 0].all()


# What is done with the picture


@pytest.mark.slow
def test_an_upscaled_edge_is_sharper_than_a_bicubic_one(local_loop: LocalLoop) -> None:
    plain, upscaled = (images[0] for images in local_loop.draw([request(), request(upscaler="small-x2")]))
    size = (2 * SIDE, 2 * SIDE)
    assert (upscaled.width, upscaled.height) == size
    bicubic = from_pil(to_pil(plain).resize(size, Image.Resampling.BICUBIC))
    assert steepest(upscaled) > 1.2 * steepest(bicubic)


def steepest(image: RGBImage) -> float:
    """The largest change from one pixel to the next, averaged over rows through the middle."""
    middle = pixels(image)[2 * image.height // 5 : 3 * image.height // 5]
    return float(np.abs(np.diff(middle, axis=1)).sum(axis=-1).max(axis=1).mean())


@pytest.mark.slow
def test_the_safety_checker_flags_the_one_scene(local_loop: LocalLoop) -> None:
    asked = [
        request(caption(scene), seed, safety_checker=True)
        for seed, scene in enumerate([FLAGGED, *SCENES[:2]])
    ]
    drawings = local_loop.drawings(asked)
    assert [drawing.flagged for drawing in drawings] == [(True,), (False,), (False,)]
    assert not pixels(drawings[0].images[0]).any()


@pytest.mark.slow
def test_merged_tokens_and_self_attention_change_the_picture_but_not_its_meaning(
    local_loop: LocalLoop,
) -> None:
    plain = drawn(local_loop, [request(caption(scene)) for scene in SCENES[:2]])
    for change in ({"token_merging_ratio": 0.5}, {"self_attention": True}):
        changed = drawn(local_loop, [request(caption(scene), **change) for scene in SCENES[:2]])
        assert not set(plain) & set(changed), change
        assert sum(map(right, changed, SCENES)) >= 1, change


@pytest.mark.slow
def test_a_panorama_goes_on_over_its_edge(local_loop: LocalLoop) -> None:
    """In one of its views the edge is in the middle, where the prompt wants its shape."""
    asked = partial(request, width=2 * SIDE)
    plain, panorama = drawn(local_loop, [asked(panorama=wanted) for wanted in (False, True)])
    shape, ground = (np.array(PALETTE[color]) for color in ("red", "blue"))

    def at_the_edge(image: RGBImage) -> bool:
        edges = pixels(image)[:, (0, -1)]
        return bool((np.abs(edges - shape).sum(-1) < np.abs(edges - ground).sum(-1)).all(1).any())

    assert (at_the_edge(plain), at_the_edge(panorama)) == (False, True)
    assert np.abs(pixels(panorama)[:, 0] - pixels(panorama)[:, -1]).mean() < 4


@pytest.mark.slow
def test_a_picture_that_is_composed_small_keeps_more_of_that(local_loop: LocalLoop) -> None:
    """Another drawing of 768 pixels has several shapes where the checkpoint knows one in 512."""
    asked = partial(request, caption(SCENES[2]), guidance_scale=3.0)
    small, plain, fixed = drawn(
        local_loop, [asked(), *(asked(width=768, height=768, highres_fix=wanted) for wanted in (False, True))]
    )
    wanted = from_pil(to_pil(small).resize((768, 768)))
    assert apart(fixed, wanted) < 0.85 * apart(plain, wanted)
