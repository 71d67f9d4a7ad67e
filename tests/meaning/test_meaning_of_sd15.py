"""What the parameters of an SD1.5 checkpoint do to the picture, read by the judge."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from pipelines.demo.captions import caption
from pipelines.demo.evaluate import ARTISTS, follows_prompts, heeds_negative_prompts, held_out_scenes
from pipelines.demo.evaluate import trained_scenes as known_scenes
from pipelines.demo.judge import read
from pipelines.demo.palette import PALETTE
from pipelines.demo.safety_checker import FLAGGED
from pipelines.demo.studio import Studio
from pipelines.demo.world import ColoredShape, Scene, render, simple_scene
from pipelines.image_io import RGBImage, from_pil, to_pil
from pipelines.request import ImageToImage, Prompted
from tests.meaning.looking import drawn, pixels, right

SIDE = 512
"""Pixels."""
ASK = partial(ARTISTS["SD1.5"], width=SIDE, height=SIDE)
RED_ON_BLUE = simple_scene("circle", "red", "blue")
SCENES = known_scenes(4)


def request(prompt: str = caption(RED_ON_BLUE), seed: int = 1, **changes: Any) -> Any:
    return ASK(prompt, seed, **changes)


def redrawn(image: RGBImage, prompt: str, strength: float, **changes: Any) -> ImageToImage:
    """A request that begins with a picture of `SIDE`."""
    plain: Prompted = request(prompt, **changes)
    values = {name: getattr(plain, name) for name in Prompted.__slots__}
    return ImageToImage(**values, image=image, strength=strength)


# The prompt


def test_trained_and_new_combinations_are_drawn(studio: Studio) -> None:
    """A tenth of what `pipelines.demo.evaluate` measures."""
    known = follows_prompts(studio.draw, ASK, known_scenes(5))
    new = follows_prompts(studio.draw, ASK, held_out_scenes(5))
    assert min(known.colors, known.everything) >= 0.8
    assert new.everything >= 0.6


def test_a_named_colour_disappears(studio: Studio) -> None:
    assert heeds_negative_prompts(studio.draw, ASK, 4) >= 0.7


def test_every_clip_skip_reads_the_prompt_in_its_own_way(studio: Studio) -> None:
    asked = [request(clip_skip=skipped) for skipped in (None, 1, 2, 4, 8)]
    pictures = drawn(studio, asked)
    assert len(set(pictures)) == len(pictures)
    assert sum(right(image, RED_ON_BLUE) for image in pictures) >= 4


# Guidance, steps, schedulers, seeds


def test_guidance_makes_the_prompt_count(studio: Studio) -> None:
    """Without it a negative prompt is not even heard; the more of it, the farther from what it names."""
    wanted, unwanted = "a star", "a black background"
    grounds = {
        scale: [
            float(np.median(pixels(image)[:8]))
            for image in drawn(
                studio,
                [
                    request(wanted, seed, negative_prompt=negative, guidance_scale=scale)
                    for seed in range(2)
                    for negative in ("", unwanted)
                ],
            )
        ]
        for scale in (1.0, 7.0)
    }
    assert grounds[1.0][::2] == grounds[1.0][1::2]
    assert min(grounds[7.0][1::2]) > 0


def test_more_steps_decide_what_the_prompt_leaves_open(studio: Studio) -> None:
    """One step shows the mean of all pictures that there could be; of a whole caption there is but one."""
    said = [f"a {scene.shapes[0].color} {scene.shapes[0].shape}" for scene in SCENES]
    decided = {
        steps: sum(
            read(image).ground is not None
            for image in drawn(
                studio, [request(words, seed, num_inference_steps=steps) for seed, words in enumerate(said)]
            )
        )
        for steps in (1, 20)
    }
    assert decided[1] < decided[20] >= 3


def test_samples_differ_and_mean_the_same(studio: Studio) -> None:
    (pictures,) = studio.draw([request(seeds=(1, 2, 3))])
    assert len(set(pictures)) == 3
    assert all(right(image, RED_ON_BLUE) for image in pictures)


# Pictures to begin with


def test_little_strength_keeps_the_composition_and_changes_the_colour(studio: Studio) -> None:
    picture = render(Scene("white", (ColoredShape("star", "red"),), "small", "top left"), SIDE)
    asked = caption(Scene("white", (ColoredShape("star", "blue"),), "small", "top left"))
    (image,) = drawn(studio, [redrawn(picture, asked, 0.3)])
    reading = read(image)
    assert reading.ground == "white"
    assert [(shape.color, shape.place) for shape in reading.shapes] == [("blue", "top left")]


def test_full_strength_follows_the_prompt_alone(studio: Studio) -> None:
    picture = render(Scene("white", (ColoredShape("star", "red"),), "small", "top left"), SIDE)
    asked = [redrawn(picture, caption(scene), 1.0, seed=seed) for seed, scene in enumerate(SCENES)]
    assert sum(map(right, drawn(studio, asked), SCENES)) >= 3


# What is done with the picture


def test_an_upscaled_edge_is_sharper_than_a_bicubic_one(studio: Studio) -> None:
    plain, upscaled = (images[0] for images in studio.draw([request(), request(upscaler="small-x2")]))
    size = (2 * SIDE, 2 * SIDE)
    assert (upscaled.width, upscaled.height) == size
    bicubic = from_pil(to_pil(plain).resize(size, Image.Resampling.BICUBIC))
    assert steepest(upscaled) > 1.2 * steepest(bicubic)


def steepest(image: RGBImage) -> float:
    """The largest change from one pixel to the next, averaged over rows through the middle."""
    middle = pixels(image)[2 * image.height // 5 : 3 * image.height // 5]
    return float(np.abs(np.diff(middle, axis=1)).sum(axis=-1).max(axis=1).mean())


def test_the_safety_checker_flags_the_one_scene(studio: Studio) -> None:
    asked = [
        request(caption(scene), seed, safety_checker=True)
        for seed, scene in enumerate([FLAGGED, *SCENES[:2]])
    ]
    drawings = studio.drawings(asked)
    assert [drawing.flagged for drawing in drawings] == [(True,), (False,), (False,)]
    assert not pixels(drawings[0].images[0]).any()


def test_merged_tokens_and_self_attention_change_the_picture_but_not_its_meaning(studio: Studio) -> None:
    plain = drawn(studio, [request(caption(scene)) for scene in SCENES[:2]])
    for change in ({"token_merging_ratio": 0.5}, {"self_attention": True}):
        changed = drawn(studio, [request(caption(scene), **change) for scene in SCENES[:2]])
        assert not set(plain) & set(changed), change
        assert sum(map(right, changed, SCENES)) >= 1, change


def test_a_panorama_is_of_one_ground_all_around(studio: Studio) -> None:
    (image,) = drawn(studio, [request(width=2 * SIDE, panorama=True)])
    seam = np.abs(pixels(image)[:, 0] - pixels(image)[:, -1]).mean()
    assert seam < 4
    assert np.abs(np.median(pixels(image)[:8], axis=(0, 1)) - PALETTE[RED_ON_BLUE.ground]).max() < 30
