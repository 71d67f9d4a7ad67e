"""The little world: what its captions mean, what training never shows, and what its pictures look like."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, median_filter

from pipelines.control.skeletons import Person, Point
from pipelines.demo.world.captions import (
    CHINESE,
    LANGUAGES,
    Language,
    caption,
    open_wordings,
    parse,
    wordings,
)
from pipelines.demo.world.figure import FIGURE_COLORS, Figure, figure_height, render_figure
from pipelines.demo.world.palette import COLORS, PALETTE, Color, lab
from pipelines.demo.world.poses import random_figure
from pipelines.demo.world.shapes import OUTLINES, SHAPES, draw_mask
from pipelines.demo.world.world import (
    AREAS,
    LINE,
    OFFSETS,
    PLACES,
    STRIPE,
    STYLES,
    ColoredShape,
    Scene,
    Style,
    combinations,
    is_held_out,
    line_color,
    random_scene,
    render,
    simple_scene,
    stripe_color,
)
from pipelines.image_io import RGBImage

STAR = Scene("white", (ColoredShape("star", "green"),), "small", "top left")
PAIR = Scene("white", (ColoredShape("circle", "red"), ColoredShape("square", "blue")))
EVERY_PLACE = [
    Scene("red", (ColoredShape("heart", "white"),), size, place)
    for size in AREAS
    for place in (PLACES if size in OFFSETS else ["center"])
]


def pixels(image: RGBImage) -> np.ndarray:
    return np.frombuffer(image.pixels, np.uint8).reshape(image.height, image.width, 3)


def covered(scene: Scene, size: int | tuple[int, int], seed: int | None = None) -> np.ndarray:
    """Where the picture is not ground."""
    return (pixels(render(scene, size, seed)) != PALETTE[scene.ground]).any(axis=-1)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class TestStyles:
    SCENES = (simple_scene("circle", "red", "blue"), simple_scene("cross", "black", "white"), PAIR)

    def painted(
        self, scene: Scene, style: Style, color_of: Callable[[str], Color]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where the shapes are, and where of that the style's own colours are."""
        inside = covered(scene, 512)
        picture = pixels(render(scene, 512, styles=(style,)))
        own = [(picture == color_of(shape.color)).all(axis=-1) for shape in scene.shapes]
        return inside, inside & np.logical_or.reduce(own)

    @pytest.mark.parametrize("style", STYLES)
    @pytest.mark.parametrize("scene", SCENES)
    def test_the_ground_and_the_shape_itself_stay(self, scene: Scene, style: Style) -> None:
        plain, painted = pixels(render(scene, 256)), pixels(render(scene, 256, styles=(style,)))
        ground = (plain == PALETTE[scene.ground]).all(axis=-1)
        assert (painted[ground] == PALETTE[scene.ground]).all()
        for shape in scene.shapes:
            own = [(picture == PALETTE[shape.color]).all(axis=-1) for picture in (plain, painted)]
            assert 0.3 < own[1].sum() / own[0].sum() < 0.9
            assert not (own[1] & ~own[0]).any()

    @pytest.mark.parametrize("scene", SCENES)
    def test_stripes_lie_across_and_are_as_wide_as_what_is_between_them(self, scene: Scene) -> None:
        inside, striped = self.painted(scene, "striped", stripe_color)
        part = (striped.sum(axis=1) / inside.sum(axis=1).clip(1))[inside.any(axis=1)]
        assert ((part < 0.1) | (part > 0.9)).mean() > 0.9
        # Smoothed edges are neither: a row or two of them belong to what is around.
        whole = np.diff(np.flatnonzero(np.diff((median_filter(part, 5) > 0.5).astype(int))))
        assert len(whole) >= 2
        assert all(abs(height - STRIPE * 512) <= 3 for height in whole)

    @pytest.mark.parametrize("scene", SCENES)
    def test_an_outline_is_the_shapes_border_inside(self, scene: Scene) -> None:
        inside, line = self.painted(scene, "outlined", lambda color: line_color(color, scene.ground))
        border = inside & ~np.asarray(binary_erosion(inside, iterations=round(LINE * 512 * 0.7)))
        depth = round(LINE * 512 * 2.5)
        inner = np.asarray(binary_erosion(inside, iterations=depth))
        assert line[border].mean() > 0.85
        assert not line[inner].any()

    def test_lines_differ_from_shape_and_ground(self) -> None:
        for color, ground in itertools.permutations(COLORS, 2):
            line = lab(line_color(color, ground))
            assert all(math.dist(line, lab(PALETTE[name])) > 25 for name in (color, ground)), (color, ground)

    def test_both_at_once_are_both(self) -> None:
        scene = simple_scene("square", "yellow", "purple")
        striped, outlined, both = (
            pixels(render(scene, 256, 7, styles)) for styles in (("striped",), ("outlined",), STYLES)
        )
        line = (outlined == line_color("yellow", "purple")).all(axis=-1)
        assert (both[line] == outlined[line]).all()
        assert (both[~line] == striped[~line]).mean() > 0.97


class TestCaptions:
    @pytest.mark.parametrize(
        ("scene", "english", "chinese"),
        [
            (
                simple_scene("circle", "red", "blue"),
                "a red circle on a blue background",
                "蓝色背景上的红色圆形",
            ),
            (
                simple_scene("star", "green", "yellow"),
                "a green star on a yellow background",
                "黄色背景上的绿色星星",
            ),
            (STAR, "a small green star at the top left of a white background", "白色背景左上角的绿色小星星"),
            (
                Scene("orange", (ColoredShape("ring", "black"),), "large"),
                "a large black ring on an orange background",
                "橙色背景上的黑色大圆环",
            ),
            (
                PAIR,
                "a red circle and a blue square on a white background",
                "白色背景上的红色圆形和蓝色正方形",
            ),
        ],
    )
    def test_a_scene_is_said_like_this(self, scene: Scene, english: str, chinese: str) -> None:
        assert (caption(scene, "en"), caption(scene, "zh")) == (english, chinese)

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_every_canonical_caption_is_read_back(self, language: Language) -> None:
        scenes = [random_scene(seed) for seed in range(300)] + EVERY_PLACE
        scenes += list(combinations(held_out=True))
        assert [parse(caption(scene, language)) for scene in scenes] == scenes

    @pytest.mark.parametrize("language", LANGUAGES)
    def test_no_two_scenes_are_said_with_the_same_words(self, language: Language) -> None:
        scenes = {*EVERY_PLACE, PAIR, STAR, *(random_scene(seed) for seed in range(300))}
        said = Counter(words for scene in scenes for words in wordings(scene, language))
        assert max(said.values()) == 1
        assert {len(wordings(scene, language)) for scene in scenes} == {5}

    @pytest.mark.parametrize(
        "text",
        [
            "a red circle",
            "a red circle on a red background",
            "a red circle on a grey background",
            "a large red circle at the top of a blue background",
            "a red circle on a blue background, please",
            "蓝色背景上的圆形",
        ],
    )
    def test_what_is_no_caption_of_a_scene_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError):
            parse(text)

    def test_what_a_caption_leaves_open_is_not_in_it(self) -> None:
        assert open_wordings(STAR) == (
            "a small green star at the top left",
            "a small star at the top left of a white background",
            "a small star at the top left",
            "a small green shape at the top left of a white background",
            "a white background",
        )
        assert open_wordings(PAIR, "zh")[1] == "白色背景上的圆形和正方形"

    def test_a_figure_is_said_like_a_shape(self) -> None:
        figure = next(figure for figure in map(random_figure, range(999)) if figure.color == "blue")
        assert caption(figure) == f"a blue figure on a {figure.ground} background".replace("a o", "an o")
        assert caption(figure, "zh") == f"{CHINESE[figure.ground]}背景上的蓝色小人"
        assert len(open_wordings(figure)) == 4


class TestScenes:
    @pytest.mark.parametrize(
        "wrong",
        [
            lambda: simple_scene("circle", "red", "red"),
            lambda: simple_scene("circle", "mauve", "red"),
            lambda: simple_scene("blob", "red", "blue"),
            lambda: simple_scene("circle", "red", "mauve"),
            lambda: Scene("blue", ()),
            lambda: Scene("blue", (ColoredShape("circle", "red"),), "huge"),
            lambda: Scene("blue", (ColoredShape("circle", "red"),), "large", "top"),
            lambda: Scene("white", PAIR.shapes, "small"),
            lambda: Scene("white", PAIR.shapes[:1] * 2),
            lambda: Scene("white", (*PAIR.shapes, ColoredShape("star", "red"))),
        ],
    )
    def test_a_scene_that_cannot_be_drawn_is_refused(self, wrong: object) -> None:
        assert callable(wrong)
        with pytest.raises(ValueError):
            wrong()

    def test_colours_are_far_apart(self) -> None:
        looks = lab(list(PALETTE.values()))
        assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(looks, 2)) >= 49
        assert lab((255, 0, 0)) == pytest.approx((53.24, 80.09, 67.20), abs=0.05)

    def test_a_random_scene_is_one_of_the_training_part_and_repeatable(self) -> None:
        scenes = [random_scene(seed) for seed in range(2000)]
        assert scenes == [random_scene(seed) for seed in range(2000)]
        assert not any(scene.held_out for scene in scenes)
        assert 0.2 < np.mean([len(scene.shapes) == 2 for scene in scenes]) < 0.3
        assert {(scene.size, scene.place) for scene in scenes} == {
            (scene.size, scene.place) for scene in EVERY_PLACE
        }


class TestHeldOutPart:
    def test_it_is_a_tenth_of_all_combinations(self) -> None:
        assert len(list(combinations(held_out=True))) == 88
        assert len(list(combinations(held_out=False))) == 792
        assert len(set(combinations(held_out=True)) | set(combinations(held_out=False))) == 8 * 11 * 10

    def test_every_pair_of_words_stays_in_training(self) -> None:
        trained = [(scene.shapes[0], scene.ground) for scene in combinations(held_out=False)]
        colored = Counter(shape for shape, _ in trained)
        grounded = Counter((shape.shape, ground) for shape, ground in trained)
        tinted = Counter((shape.color, ground) for shape, ground in trained)
        assert (len(colored), set(colored.values())) == (88, {9})
        assert (len(grounded), set(grounded.values())) == (88, {9})
        assert (len(tinted), set(tinted.values())) == (110, {7, 8})

    def test_a_pair_of_shapes_is_held_out_with_either_of_them(self) -> None:
        held_out = next(combinations(held_out=True))
        other = ColoredShape("heart", next(c for c in COLORS if not is_held_out("heart", c, held_out.ground)))
        assert Scene(held_out.ground, (other, *held_out.shapes)).held_out


class TestPictures:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_shapes_have_the_same_area(self, shape: str) -> None:
        outline = OUTLINES[shape]
        middle = [40 - part * 40 for part in outline.centroid]
        mask = np.asarray(draw_mask(outline, (middle[0], middle[1]), 40, 80, 80)) / 255
        ys, xs = np.indices(mask.shape) + 0.5
        assert mask.sum() == pytest.approx(40**2, rel=0.02)
        assert ((xs * mask).sum() / mask.sum(), (ys * mask).sum() / mask.sum()) == pytest.approx(
            (40, 40), abs=0.15
        )

    @pytest.mark.parametrize("size", [64, 256, 2048, (512, 768), (320, 200)])
    def test_every_size_shows_the_same(self, size: int | tuple[int, int]) -> None:
        image = render(STAR, size)
        width, height = (size, size) if isinstance(size, int) else size
        assert (image.width, image.height) == (width, height)
        greenness = (255 - pixels(image)[..., 0]) / 255
        assert greenness.sum() / min(width, height) ** 2 == pytest.approx(0.05, rel=0.05)
        left, top, right, bottom = box(covered(STAR, size))
        assert ((left + right) / 2 / width, (top + bottom) / 2 / height) == pytest.approx(
            (0.23, 0.23), abs=0.02
        )

    @pytest.mark.parametrize("scene", [*EVERY_PLACE, PAIR])
    def test_nothing_touches_the_border(self, scene: Scene) -> None:
        for shape in SHAPES:
            shapes = tuple(ColoredShape(shape, one.color) for one in scene.shapes)
            left, top, right, bottom = box(covered(Scene(scene.ground, shapes, scene.size, scene.place), 128))
            assert min(left, top, 128 - right, 128 - bottom) >= 4

    def test_edges_are_mixed_and_all_else_is_exact(self) -> None:
        colors = Counter(
            map(tuple, pixels(render(simple_scene("circle", "black", "white"), 128)).reshape(-1, 3))
        )
        greys = {red for (red, green, blue) in colors if red == green == blue}
        assert set(colors) == {(grey, grey, grey) for grey in greys}
        assert len(greys) > 8
        assert colors[0, 0, 0] + colors[255, 255, 255] > 0.98 * 128**2

    def test_two_shapes_stand_side_by_side(self) -> None:
        picture = pixels(render(PAIR, 256))
        rows, columns = np.nonzero((picture == PALETTE["red"]).all(axis=-1))
        assert columns.max() < 128
        assert rows.mean() == pytest.approx(128, abs=1)
        rows, columns = np.nonzero((picture == PALETTE["blue"]).all(axis=-1))
        assert columns.min() > 128

    def test_a_seed_moves_a_shape_a_little_and_always_alike(self) -> None:
        scene = simple_scene("star", "red", "white")
        assert render(scene, 128, 5) == render(scene, 128, 5)
        assert len({render(scene, 128, seed).pixels for seed in (None, 1, 2, 3)}) == 4
        moved = [box(covered(scene, 256, seed)) for seed in range(20)]
        assert np.ptp(moved, axis=0).max() <= 256 * 0.06


class TestFigures:
    FIGURES = tuple(random_figure(seed) for seed in range(200))

    def test_a_pose_fits_into_the_picture_and_differs_from_all_others(self) -> None:
        places = np.array([figure.person.body for figure in self.FIGURES])
        assert places.shape == (200, 18, 2)
        assert 0.04 < places.min() < places.max() < 0.96
        assert (places.std(axis=0)[[4, 7, 10, 13]] > 0.05).all()
        assert random_figure(3) == self.FIGURES[3]
        narrow = np.array([random_figure(seed, (512, 768)).person.body for seed in range(50)])
        assert 0.04 < narrow.min() < narrow.max() < 0.96

    def test_hands_and_feet_are_seen_before_the_ground(self) -> None:
        places = np.array([figure.person.body for figure in self.FIGURES])
        unit = np.linalg.norm(places[:, 1] - places[:, [8, 11]].mean(axis=1), axis=-1) / 0.3
        for hand, other in ((4, 0), (7, 0), (4, 7), (4, 10), (7, 13), (10, 13), (9, 13)):
            assert (np.linalg.norm(places[:, hand] - places[:, other], axis=-1) > 0.08 * unit).all()
        for hand in (4, 7):
            for part in (0.2, 0.5, 0.8):
                spine = places[:, 1] + part * (places[:, [8, 11]].mean(axis=1) - places[:, 1])
                assert (np.linalg.norm(places[:, hand] - spine, axis=-1) > 0.12 * unit).all()

    @pytest.mark.parametrize("figure", FIGURES[:20])
    def test_every_joint_has_the_tint_of_its_limb(self, figure: Figure) -> None:
        picture = pixels(render_figure(figure, 256))

        def at(joint: int) -> tuple[int, ...]:
            place = figure.person.body[joint]
            assert place is not None
            return tuple(map(int, picture[int(place[1] * 256), int(place[0] * 256)]))

        assert {at(0), at(4), at(7), at(10), at(13)} == {PALETTE[figure.color]}
        right, left = {at(3), at(9)}, {at(6), at(12)}
        assert (len(right), len(left)) == (1, 1)
        assert sum(*left) > sum(PALETTE[figure.color]) > sum(*right)

    def test_every_tint_is_seen_on_the_ground(self) -> None:
        assert len(FIGURE_COLORS) >= 60
        assert {ground for _, ground in FIGURE_COLORS} == set(COLORS)
        assert len({color for color, _ in FIGURE_COLORS}) == 8
        with pytest.raises(ValueError, match="no yellow figure on yellow"):
            Figure("yellow", "yellow", self.FIGURES[0].person)

    def test_a_figure_needs_its_joints(self) -> None:
        body = [None, *self.FIGURES[0].person.body[1:]]
        with pytest.raises(ValueError, match="needs all joints"):
            Figure("red", "white", Person(body=body))

    def test_its_height_is_that_of_a_standing_person(self) -> None:
        joints: list[Point] = [(0, 0)] * 14
        joints[8], joints[11] = (-5, 30), (5, 30)
        assert figure_height(joints) == pytest.approx(100)
        assert math.isclose(figure_height([(x * 2, y * 2) for x, y in joints]), 200)
