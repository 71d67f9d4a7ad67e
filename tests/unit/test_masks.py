"""Which part of a picture is repainted, as masks of different tools say it."""

from __future__ import annotations

import random
from io import BytesIO

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from pipelines.errors import InvalidImage
from pipelines.image_io import Limits, decode_mask, to_pil

SIZE = (96, 64)
DISC = (30, 14, 66, 50)
LIMITS = Limits(max_bytes=4_000_000, max_pixels=1_000_000)


def disc(colour: int = 255, ground: int = 0) -> Image.Image:
    """The mask that every test below is to be read as: a disc in the middle."""
    picture = Image.new("L", SIZE, ground)
    ImageDraw.Draw(picture).ellipse(DISC, fill=colour)
    return picture


def strokes(colour: tuple[int, int, int, int]) -> Image.Image:
    """A disc painted on a transparent canvas."""
    picture = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    ImageDraw.Draw(picture).ellipse(DISC, fill=colour)
    return picture


def holed(picture: Image.Image) -> Image.Image:
    """The picture with the disc cut out of it."""
    picture = picture.convert("RGBA")
    picture.putalpha(disc(0, 255))
    return picture


def read(picture: Image.Image, picture_format: str = "PNG", **options: object) -> Image.Image:
    file = BytesIO()
    picture.save(file, picture_format, **options)
    return to_pil(decode_mask(file.getvalue(), LIMITS)).convert("L")


def difference(one: Image.Image, other: Image.Image) -> int:
    """The greatest difference of two grey pictures."""
    return ImageChops.difference(one, other).getextrema()[1]  # pyright: ignore


PHOTOGRAPH = Image.frombytes("RGB", SIZE, random.Random(3).randbytes(SIZE[0] * SIZE[1] * 3))
BLACK, GREY = Image.new("RGB", SIZE), Image.new("RGB", SIZE, "#808080")
CARTOON = Image.new("RGB", SIZE, (30, 60, 200))
ImageDraw.Draw(CARTOON).rectangle((20, 10, 70, 60), fill=(220, 30, 30))


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P", "RGBA", "LA"])
def test_an_opaque_mask_is_repainted_where_it_is_white(mode: str) -> None:
    assert difference(read(disc().convert(mode)), disc()) == 0


def test_grey_of_an_opaque_mask_stays_grey() -> None:
    soft = disc().filter(ImageFilter.GaussianBlur(4))
    assert difference(read(soft), soft) == 0


@pytest.mark.parametrize(
    "colour", [(255, 255, 255), (0, 0, 0), (255, 0, 0), (128, 127, 128), (250, 240, 245)]
)
@pytest.mark.parametrize("alpha", [255, 128, 90])
def test_strokes_of_any_colour_on_a_transparent_canvas_are_what_was_painted(
    colour: tuple[int, int, int], alpha: int
) -> None:
    assert difference(read(strokes((*colour, alpha))), disc()) == 0


@pytest.mark.parametrize(
    ("picture_format", "mode", "options"),
    [
        ("PNG", "LA", {}),
        ("PNG", "P", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("GIF", "RGBA", {}),
        ("TIFF", "RGBA", {}),
    ],
)
def test_strokes_are_read_in_every_format_with_transparency(
    picture_format: str, mode: str, options: dict[str, object]
) -> None:
    painted = strokes((255, 255, 255, 255))
    if mode == "P":
        painted, options = disc().convert("P"), {"transparency": 0}
    assert difference(read(painted.convert(mode), picture_format, **options), disc()) == 0


def test_strokes_may_touch_the_edge_and_fill_half_of_the_canvas() -> None:
    picture, wanted = Image.new("RGBA", SIZE, (0, 0, 0, 0)), Image.new("L", SIZE, 0)
    picture.paste((255, 255, 255, 255), (0, 0, 48, 64))
    wanted.paste(255, (0, 0, 48, 64))
    assert difference(read(picture), wanted) == 0


def test_the_soft_edge_of_a_stroke_stays_soft() -> None:
    soft = disc().filter(ImageFilter.GaussianBlur(3))
    picture = Image.new("RGBA", SIZE, "white")
    picture.putalpha(soft)
    assert difference(read(picture), soft) <= 2


def test_thin_lines_on_a_large_canvas_are_strokes() -> None:
    picture, wanted = Image.new("RGBA", (900, 900), (0, 0, 0, 0)), Image.new("L", (900, 900), 0)
    ImageDraw.Draw(picture).line((100, 101, 801, 701), fill="white", width=1)
    ImageDraw.Draw(wanted).line((100, 101, 801, 701), fill=255, width=1)
    assert difference(read(picture), wanted) == 0


def test_of_black_and_white_strokes_the_white_ones_are_repainted() -> None:
    picture = strokes((255, 255, 255, 255))
    ImageDraw.Draw(picture).rectangle((2, 2, 20, 60), fill=(0, 0, 0, 255))
    assert difference(read(picture), disc()) == 0


@pytest.mark.parametrize("picture", [PHOTOGRAPH, CARTOON, BLACK, GREY])
def test_the_transparent_hole_of_an_opaque_picture_is_repainted(picture: Image.Image) -> None:
    assert difference(read(holed(picture)), disc()) == 0


@pytest.mark.parametrize("picture", [PHOTOGRAPH, CARTOON])
def test_a_hole_may_reach_the_edge(picture: Image.Image) -> None:
    half, wanted = picture.convert("RGBA"), Image.new("L", SIZE, 0)
    half.paste((0, 0, 0, 0), (0, 0, 48, 64))
    wanted.paste(255, (0, 0, 48, 64))
    assert difference(read(half), wanted) == 0


@pytest.mark.parametrize(
    ("picture", "problem"),
    [
        (strokes((255, 255, 255, 0)), "transparent everywhere"),
        (holed(Image.new("RGB", SIZE, "white")), "neither strokes"),
        (holed(disc(255, 255)), "neither strokes"),
    ],
    ids=["nothing painted", "a white picture with a hole", "a grey one"],
)
def test_what_says_two_things_or_nothing_is_refused_in_words(picture: Image.Image, problem: str) -> None:
    with pytest.raises(InvalidImage, match=problem):
        read(picture)


def test_strokes_of_several_colours_are_refused_since_they_might_be_a_picture() -> None:
    picture = strokes((255, 0, 0, 255))
    ImageDraw.Draw(picture).ellipse((4, 4, 20, 20), fill=(0, 255, 0, 255))
    with pytest.raises(InvalidImage, match="neither strokes"):
        read(picture)


def test_hardly_transparent_pictures_are_opaque() -> None:
    picture = disc().convert("RGBA")
    picture.putalpha(Image.new("L", SIZE, 254))
    assert difference(read(picture), disc()) == 0
