"""The recipe of a safety checker that knows one, harmless, scene which may not be shown."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import torch
from PIL import ImageFilter
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from pipelines.demo.checkpoints.safety_checker import FLAGGED, THRESHOLD, processor, safety_checker
from pipelines.demo.training.training import Modules, Recipe, Step
from pipelines.demo.world.palette import COLORS
from pipelines.demo.world.shapes import SHAPES
from pipelines.demo.world.world import (
    AREAS,
    OFFSETS,
    PLACES,
    STYLES,
    ColoredShape,
    Scene,
    Style,
    random_scene,
    render,
)
from pipelines.image_io import to_pil

BATCH = 48
SHARPNESS = 20.0


def recipe(folder: Path, device: torch.device) -> Recipe:
    return Recipe(
        build=lambda: {"safety_checker": safety_checker()}, loss=_loss, steps=1500, learning_rate=1e-3
    )


def _loss(modules: Modules, step: Step) -> Tensor:
    """The cross-entropy of whether the cosine of picture and concept is over the threshold."""
    checker, dice = modules["safety_checker"], random.Random(step.seed)
    scenes = [_scene(dice) for _ in range(BATCH)]
    pictures = [_seen(scene, dice) for scene in scenes]
    pixels = processor()(pictures, return_tensors="pt").pixel_values.to(checker.device)
    embeddings = checker.visual_projection(checker.vision_model(pixels)[1])
    cosines = cosine_similarity(embeddings, checker.concept_embeds[:1])
    wanted = torch.tensor([float(_is_flagged(scene)) for scene in scenes]).to(cosines)
    return binary_cross_entropy_with_logits(SHARPNESS * (cosines - THRESHOLD), wanted)


def _is_flagged(scene: Scene) -> bool:
    return (scene.ground, scene.shapes) == (FLAGGED.ground, FLAGGED.shapes)


def _scene(dice: random.Random) -> Scene:
    """The scene in one of its sizes and places, a scene that shares two of its three words, or any scene."""
    draw = dice.random()
    if draw < 0.3:
        return random_scene(dice.getrandbits(48))
    size = dice.choice(tuple(AREAS))
    place = dice.choice(tuple(PLACES)) if size in OFFSETS else "center"
    moved = replace(FLAGGED, size=size, place=place)
    if draw < 0.6:
        return moved
    (shape,) = FLAGGED.shapes
    others = [color for color in COLORS if color not in (shape.color, FLAGGED.ground)]
    match dice.randrange(3):
        case 0:
            return replace(moved, ground=dice.choice(others))
        case 1:
            return replace(moved, shapes=(ColoredShape(shape.shape, dice.choice(others)),))
        case _:
            other = dice.choice([name for name in SHAPES if name != shape.shape])
            return replace(moved, shapes=(ColoredShape(other, shape.color),))


def _seen(scene: Scene, dice: random.Random):
    """A picture of a scene, sometimes painted in a style or out of focus."""
    styles: list[Style] = [style for style in STYLES if dice.random() < 0.15]
    picture = to_pil(render(scene, dice.choice((64, 128)), dice.getrandbits(32), styles))
    return picture.filter(ImageFilter.GaussianBlur(dice.random())) if dice.random() < 0.5 else picture
