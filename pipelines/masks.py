"""Masks: which part of a picture is to be repainted, whatever tool exported the mask; torch-free."""

from __future__ import annotations

from collections import Counter
from typing import cast

from PIL import Image

from pipelines.errors import InvalidImage

Colour = tuple[int, int, int]

_OPAQUE, _CLEAR = 250, 8
"""The alpha from which on a pixel counts as opaque, and below which as transparent."""

_SAMPLED_SIDE = 256
"""The side in pixels of the sample by which one form of mask is told from another."""

_NEARLY_ALL, _HARDLY_ANY = 0.98, 0.01
_SAME = 40
"""The difference in any of the three channels, of 255, up to which two colours are one."""

_COLOURS_OF_STROKES = 8
"""The most colours of strokes; a picture has more."""

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def read_mask(picture: Image.Image) -> Image.Image:
    """The part of a picture that is to be repainted, as a mask says it in one of three forms.

    Without transparency, white is repainted. Of strokes on a transparent canvas, as drawing tools export
    them, the painted part is; where the strokes are black and white, the white ones. Of a picture with a
    transparent hole (the form of OpenAI's image edits) the hole is.

    Args:
        picture: the mask as it was decoded, of any mode of 8 bits.
    Returns:
        A picture of mode L and of the same size: 255 is repainted, 0 kept, between them both are mixed.
    Raises:
        InvalidImage: transparent everywhere, or partly transparent and of neither form.
    """
    picture = picture.convert("RGBA")
    alpha, grey = picture.getchannel("A"), picture.convert("RGB").convert("L")
    lowest, highest = cast("tuple[int, int]", alpha.getextrema())
    if lowest >= _OPAQUE:
        return grey
    if highest < _CLEAR:
        raise InvalidImage("image", "is transparent everywhere: nothing was painted")
    # A brush may be half transparent throughout: its strongest stroke counts as painted.
    solid = alpha.point([255 * (value >= 0.9 * highest) for value in range(256)])
    colours = _colours(picture, solid)
    if _is_hole(colours, _share_of_edge(solid)):
        return alpha.point([255 - value for value in range(256)])
    painted = alpha.point([min(255, round(value * 255 / highest)) for value in range(256)])
    if _are_black_and_white(colours) and _share(colours, _BLACK) > _HARDLY_ANY:
        return Image.composite(grey, Image.new("L", picture.size, 0), painted)
    return painted


def _is_hole(colours: Counter[Colour], edge: float) -> bool:
    """Whether what is opaque is a picture around a hole; else it is strokes.

    Args:
        colours: how often each colour is among the opaque pixels.
        edge: the opaque share of the picture's outermost pixels, 0 to 1.
    Raises:
        InvalidImage: it is neither.
    """
    most_common, _ = colours.most_common(1)[0]
    if _are_black_and_white(colours):
        hole, strokes = False, edge < 0.9  # white around a hole would say two things
    elif _share(colours, most_common) >= _NEARLY_ALL:
        hole, strokes = edge > 0.75, edge < 0.25
    else:
        hole, strokes = edge > 0.1 or not _are_few(colours), False
    if not hole and not strokes:
        raise InvalidImage(
            "image",
            "is partly transparent, and neither strokes on a transparent canvas nor a picture with a"
            " transparent hole; make white what is to be repainted, and black the rest",
        )
    return hole


def _are_black_and_white(colours: Counter[Colour]) -> bool:
    """Whether the colours are a mask's own: white, perhaps with black."""
    white = _share(colours, _WHITE)
    return white > _HARDLY_ANY and white + _share(colours, _BLACK) >= _NEARLY_ALL


def _are_few(colours: Counter[Colour]) -> bool:
    rounded: Counter[Colour] = Counter()
    for (red, green, blue), count in colours.items():
        rounded[red // _SAME, green // _SAME, blue // _SAME] += count
    return (
        sum(count for _, count in rounded.most_common(_COLOURS_OF_STROKES)) >= _NEARLY_ALL * rounded.total()
    )


def _share(colours: Counter[Colour], wanted: Colour) -> float:
    """The share of the pixels, 0 to 1, that have the wanted colour or one that counts as it."""
    same = (
        count
        for colour, count in colours.items()
        if all(abs(ours - theirs) <= _SAME for ours, theirs in zip(colour, wanted, strict=True))
    )
    return sum(same) / colours.total()


def _colours(picture: Image.Image, solid: Image.Image) -> Counter[Colour]:
    """How often each colour is among the solid pixels, of which there is at least one; in a sample."""
    left, top, right, bottom = cast("tuple[int, int, int, int]", solid.getbbox())
    pixels = Image.merge("RGBA", (*picture.convert("RGB").split(), solid))
    size = (min(right - left, _SAMPLED_SIDE), min(bottom - top, _SAMPLED_SIDE))
    sample = pixels.resize(size, Image.Resampling.NEAREST, box=(left, top, right, bottom))
    colours: Counter[Colour] = Counter()
    # The uppermost row has solid pixels for certain: a sample of thin lines may have missed them all.
    for part in (sample, pixels.crop((left, top, right, top + 1))):
        listed = cast("list[tuple[int, tuple[int, int, int, int]]]", part.getcolors(part.width * part.height))
        for count, (red, green, blue, seen) in listed:
            colours[red, green, blue] += count if seen else 0
    return +colours


def _share_of_edge(solid: Image.Image) -> float:
    """The solid share, 0 to 1, of the outermost pixels."""
    width, height = solid.size
    edges = (
        (0, 0, width, 1),
        (0, height - 1, width, height),
        (0, 0, 1, height),
        (width - 1, 0, width, height),
    )
    counts = [solid.crop(edge).histogram() for edge in edges]
    return sum(count[255] for count in counts) / sum(sum(count) for count in counts)
