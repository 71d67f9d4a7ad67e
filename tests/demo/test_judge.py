"""The judge reads what is drawn, sees what is wrong, and does not guess."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from pipelines.demo.judging.judge import Reading, Verdict, compare, read
from pipelines.demo.world.palette import COLORS, PALETTE, mix
from pipelines.demo.world.shapes import OUTLINES, SHAPES, draw_mask
from pipelines.demo.world.world import (
    AREAS,
    ColoredShape,
    Scene,
    combinations,
    random_scene,
    render,
    simple_scene,
)
from pipelines.image_io import RGBImage, from_pil, to_pil
from tests.demo.spoiled import SPOILED, Change, noise

SCENES = tuple(random_scene(seed) for seed in range(24))
RIGHT = Verdict(ground=True, colors=True, shapes=True, size=True, place=True)
SIDE = 256


def share_read(size: int | tuple[int, int], spoil: Change | None = None) -> float:
    """Parts of `SCENES` that are read back in every word."""
    some = SCENES if size == 256 else SCENES[::4]
    pictures = (render(scene, size, seed) for seed, scene in enumerate(some))
    spoiled = (from_pil(spoil(to_pil(picture))) if spoil else picture for picture in pictures)
    return float(
        np.mean([read(picture).scene == scene for picture, scene in zip(spoiled, some, strict=True)])
    )


def silhouette(shape: str, area: float = AREAS["medium"]) -> np.ndarray:
    """A shape around the middle, of `SIDE` pixels a side, 0 .. 1."""
    outline, scale = OUTLINES[shape], math.sqrt(area) * SIDE
    x, y = (SIDE / 2 - part * scale for part in outline.centroid)
    return np.asarray(draw_mask(outline, (x, y), scale, SIDE, SIDE)) / 255


def colored(coverage: np.ndarray, color: str = "red", ground: str = "white") -> RGBImage:
    share = coverage[..., None]
    pixels = share * PALETTE[color] + (1 - share) * PALETTE[ground]
    return RGBImage(SIDE, SIDE, pixels.round().astype(np.uint8).tobytes())


def named(coverage: np.ndarray) -> list[str | None]:
    return [seen.shape for seen in read(colored(coverage)).shapes]


class TestWhatIsDrawnIsRead:
    @pytest.mark.parametrize("size", [256, 512, 1024, (512, 768), (448, 256)])
    def test_at_every_size(self, size: int | tuple[int, int]) -> None:
        assert share_read(size) == 1.0

    @pytest.mark.parametrize("spoil", SPOILED)
    def test_after_what_pictures_suffer(self, spoil: Change) -> None:
        assert share_read(256, spoil) >= 0.97

    def test_hundreds_of_scenes(self) -> None:
        scenes = [random_scene(1000 + seed) for seed in range(200)]
        read_back = [read(render(scene, 256, seed)).scene == scene for seed, scene in enumerate(scenes)]
        assert sum(read_back) >= 0.99 * len(scenes)

    @pytest.mark.parametrize("held_out", [False, True])
    def test_every_combination(self, held_out: bool) -> None:
        scenes = list(combinations(held_out=held_out))
        read_back = [read(render(scene, 128)).scene == scene for scene in scenes]
        assert sum(read_back) >= 0.99 * len(scenes)

    def test_colours_are_named_although_a_network_only_comes_close(self) -> None:
        for color, ground in itertools.islice(itertools.permutations(COLORS, 2), 0, None, 5):
            coverage = silhouette("cross")[..., None]
            near = [mix(PALETTE[name], (128, 128, 128), 0.08) for name in (color, ground)]
            pixels = (coverage * near[0] + (1 - coverage) * near[1]).round().astype(np.uint8)
            reading = read(RGBImage(SIDE, SIDE, pixels.tobytes()))
            assert reading.scene == simple_scene("cross", color, ground)

    def test_a_verdict_on_the_right_scene_is_right(self) -> None:
        assert all(compare(read(render(scene, 128, 1)), scene) == RIGHT for scene in SCENES[:30])


class TestWhatIsWrongIsSaid:
    SCENE = Scene("blue", (ColoredShape("star", "yellow"),), "small", "top")

    @pytest.mark.parametrize(
        ("drawn", "wrong"),
        [
            (Scene("yellow", (ColoredShape("star", "blue"),), "small", "top"), {"ground", "colors"}),
            (Scene("blue", (ColoredShape("star", "red"),), "small", "top"), {"colors"}),
            (Scene("green", (ColoredShape("star", "yellow"),), "small", "top"), {"ground"}),
            (Scene("blue", (ColoredShape("cross", "yellow"),), "small", "top"), {"shapes"}),
            (Scene("blue", (ColoredShape("star", "yellow"),), "medium", "top"), {"size"}),
            (Scene("blue", (ColoredShape("star", "yellow"),), "small", "top left"), {"place"}),
            (Scene("blue", (ColoredShape("star", "yellow"),), "large"), {"size", "place"}),
            (
                Scene("blue", (ColoredShape("star", "yellow"), ColoredShape("star", "red"))),
                {"colors", "shapes", "size", "place"},
            ),
        ],
    )
    def test_another_scene(self, drawn: Scene, wrong: set[str]) -> None:
        verdict = compare(read(render(drawn, 256)), self.SCENE)
        assert {word for word in Verdict.__slots__ if not getattr(verdict, word)} == wrong

    def test_a_pair_the_wrong_way_round(self) -> None:
        circle, square = ColoredShape("circle", "red"), ColoredShape("square", "green")
        verdict = compare(
            read(render(Scene("white", (circle, square)), 256)), Scene("white", (square, circle))
        )
        assert verdict == Verdict(ground=True, colors=False, shapes=False, size=True, place=True)

    def test_every_other_shape(self) -> None:
        for asked, drawn in itertools.permutations(SHAPES, 2):
            reading = read(render(simple_scene(drawn, "red", "white"), 128))
            assert not compare(reading, simple_scene(asked, "red", "white")).shapes

    @pytest.mark.parametrize("color", COLORS)
    def test_an_empty_ground(self, color: str) -> None:
        picture = from_pil(noise(Image.new("RGB", (256, 256), PALETTE[color])))
        assert read(picture) == Reading(color, ())


class TestWhatIsUnclearIsNotGuessed:
    def test_noise(self) -> None:
        dice = np.random.default_rng(0)
        for _ in range(5):
            pixels = dice.integers(0, 256, (256, 256, 3), dtype=np.uint8)
            assert read(RGBImage(256, 256, pixels.tobytes())) == Reading(None, ())

    def test_a_ground_of_two_colours(self) -> None:
        picture = to_pil(render(simple_scene("star", "red", "white"), 256))
        picture.paste(PALETTE["blue"], (0, 0, 100, 256))
        assert read(from_pil(picture)).ground is None

    def test_a_ground_that_fades(self) -> None:
        fading = np.linspace(PALETTE["red"], PALETTE["blue"], 256).astype(np.uint8)
        assert read(RGBImage(256, 256, np.tile(fading, (256, 1, 1)).tobytes())).scene is None

    def test_colours_that_have_no_name(self) -> None:
        picture = Image.new("RGB", (256, 256), (128, 128, 128))
        picture.paste((150, 200, 150), (90, 90, 180, 180))
        reading = read(from_pil(picture))
        assert (reading.ground, [seen.color for seen in reading.shapes]) == (None, [None])

    def test_a_shape_of_two_colours(self) -> None:
        picture = to_pil(colored(silhouette("square")))
        picture.paste(PALETTE["blue"], (128, 90, 160, 166))
        assert all(seen.color is None or seen.shape is None for seen in read(from_pil(picture)).shapes)
        assert read(from_pil(picture)).scene is None

    def test_a_shape_that_another_one_begins_to_be(self) -> None:
        """Half way between the distances from two outlines."""

        def distance(shape: str) -> np.ndarray:
            inside = silhouette(shape) > 0.5
            return ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)

        between = [named(distance(a) + distance(b) > 0) for a, b in itertools.combinations(SHAPES, 2)]
        # Half of a ring's hole is a full circle, half of a square's way to a cross has round corners.
        assert sum(names != [None] for names in between) <= 2

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("part", [0.15, 0.25, 0.5])
    def test_a_shape_that_melted(self, shape: str, part: float) -> None:
        radius = part * math.sqrt(AREAS["medium"]) * SIDE
        reading = read(colored(ndimage.gaussian_filter(silhouette(shape), radius)))
        assert reading.ground == "white"
        assert not any(seen.shape and seen.color for seen in reading.shapes)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_shape_whose_lower_half_ran_down(self, shape: str) -> None:
        rows, columns = np.indices((SIDE, SIDE), dtype=float)
        slipped = 1 + 1.5 * np.abs(np.sin(columns / 9))
        source = np.where(rows > SIDE / 2, SIDE / 2 + (rows - SIDE / 2) / slipped, rows)
        assert named(ndimage.map_coordinates(silhouette(shape), [source, columns], order=1)) == [None]

    def test_blots(self) -> None:
        dice = np.random.default_rng(0)
        away = np.hypot(*(np.indices((SIDE, SIDE)) - SIDE / 2))
        said = Counter[str | None]()
        for _ in range(25):
            height = ndimage.gaussian_filter(dice.standard_normal((SIDE, SIDE)), 18)
            blot = (height / height.std() + 1.2 - away / 50 > 0).astype(float)
            said.update(named(blot))
        # By chance some are round.
        assert said[None] >= 24
        assert said.total() - said[None] <= 1

    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_shape_in_dirt(self, shape: str) -> None:
        spots = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((SIDE, SIDE)), 2)
        dirt = (spots > 1.8 * spots.std()) & (silhouette("circle", 0.5) < 0.5)
        assert None in named(np.maximum(silhouette(shape), dirt))

    @pytest.mark.parametrize(
        "corners",
        [
            [(60, 104), (196, 104), (196, 152), (60, 152)],
            [(128, 60), (196, 128), (128, 196), (60, 128)],
            [(60, 190), (196, 190), (60, 60)],
            [(100, 70), (156, 70), (196, 190), (60, 190)],
            [(90, 90), (166, 90), (166, 115), (115, 115), (115, 166), (90, 166)],
        ],
    )
    def test_other_shapes_than_ours(self, corners: list[tuple[int, int]]) -> None:
        mask = Image.new("L", (SIDE, SIDE))
        ImageDraw.Draw(mask).polygon(corners, 1)
        assert named(np.asarray(mask, dtype=float)) == [None]

    def test_a_wavy_shape_is_itself_or_unclear(self) -> None:
        dice, said = np.random.default_rng(0), Counter[str]()
        for shape, pixels in itertools.product(SHAPES, (2, 4, 6)):
            waves = [ndimage.gaussian_filter(dice.standard_normal((SIDE, SIDE)), 10) for _ in range(2)]
            moved = [
                axis + wave / wave.std() * pixels
                for axis, wave in zip(np.indices((SIDE, SIDE)), waves, strict=True)
            ]
            names = named(ndimage.map_coordinates(silhouette(shape), moved, order=1))
            said[
                f"{pixels}: {'itself' if names == [shape] else 'unclear' if None in names else 'other'}"
            ] += 1
        assert said["2: itself"] == len(SHAPES)
        assert not {words for words in said if words.endswith("other")}

    @pytest.mark.parametrize(
        ("area", "size"), [(0.05, "small"), (0.08, None), (0.12, "medium"), (0.24, "large")]
    )
    def test_sizes_between_sizes(self, area: float, size: str | None) -> None:
        assert [seen.size for seen in read(colored(silhouette("heart", area))).shapes] == [size]

    @pytest.mark.parametrize(("moved", "place"), [(0, "center"), (24, None), (45, "bottom right")])
    def test_places_between_places(self, moved: int, place: str | None) -> None:
        coverage = np.roll(silhouette("ring"), (moved, moved), axis=(0, 1))
        assert [seen.place for seen in read(colored(coverage)).shapes] == [place]
