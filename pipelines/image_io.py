"""Decode, encode and resize pictures, with limits; torch-free."""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import ClassVar
from zlib import Z_RLE

from PIL import Image, ImageChops, PngImagePlugin, TiffImagePlugin
from pydantic import ConfigDict

from pipelines.errors import ImageTooLarge, InvalidImage, InvalidInput
from pipelines.image_metadata import ORIENTATION_TAG, orientation, without_metadata
from pipelines.masks import read_mask


@dataclass(frozen=True, slots=True)
class RGBImage:
    """A decoded picture: 8 bits per channel, rows from the top, ``width * height * 3`` bytes."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    width: int
    height: int
    pixels: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a caller's picture.

    Attributes:
        max_bytes: the most bytes of the encoded file.
        max_pixels: the largest width times height, as the file's header states them. Pillow's own bound of
            178 million pixels holds whatever is given here.
    """

    max_bytes: int
    max_pixels: int


READABLE = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""The formats that `decode` reads, in Pillow's names; no other decoder ever sees a caller's bytes."""

MAX_JPEG_SCANS = 100
"""The most scans of a progressive JPEG, each over the whole picture: encoders write ten, attackers more."""

CONTENT_TYPES = {"jpeg": "image/jpeg", "webp": "image/webp", "png": "image/png"}
"""The media types of the formats that `encode` writes."""

_JPEG_END = b"\xff\xd9"
_OTHER_PIXELS = bytes(range(254, 0, -1)) * 8
"""Bytes that a JPEG decoder takes for large coefficients; where there are none, it fills with small ones."""
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIGNATURES = (
    (b"\x89PNG", "png", "image/png"),
    (b"\xff\xd8", "jpg", "image/jpeg"),
    (b"RIFF", "webp", "image/webp"),
    (b"GIF8", "gif", "image/gif"),
    (b"BM", "bmp", "image/bmp"),
    (b"", "tiff", "image/tiff"),
)
"""The first bytes, file suffix and media type of each format, for files that the decoder has taken."""

_TILE_WIDTH_TAG, _TILE_HEIGHT_TAG = 322, 323

_BASE64 = re.compile(r"[A-Za-z0-9+/]*")
_URL_SAFE = str.maketrans("-_", "+/")


def decode(data: bytes, limits: Limits) -> RGBImage:
    """Read a picture as a person would see it.

    PNG, JPEG, WebP, GIF, BMP and TIFF. Of an animation the first frame is drawn and the others are never
    looked at. The EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled to
    8 bits; colour profiles are ignored, and damage outside the pixels is. Blocking: a large picture takes
    about a second.

    Raises:
        ImageTooLarge: more bytes or pixels than ``limits``, found out before any pixel is decoded.
        InvalidImage: not a picture of these formats, damaged or cut off. Nothing else, whatever the bytes.
    """
    return _read(data, limits, from_pil)


def decode_mask(data: bytes, limits: Limits) -> RGBImage:
    """Read a mask, in any of the forms of `read_mask`, from a file that `decode` takes: white is repainted.

    Raises:
        ImageTooLarge, InvalidImage: for the reasons of `decode` and `read_mask`.
    """
    return _read(data, limits, lambda picture: from_pil(read_mask(_eight_bits(picture))))


def _read(data: bytes, limits: Limits, finish: Callable[[Image.Image], RGBImage]) -> RGBImage:
    if len(data) > limits.max_bytes:
        raise ImageTooLarge("image", f"is larger than {_megabytes(limits.max_bytes)} MB")
    try:
        return finish(_upright(data, limits.max_pixels))
    except InvalidInput:
        raise
    except Image.UnidentifiedImageError as error:
        raise InvalidImage("image", "is not a PNG, JPEG, WebP, GIF, BMP or TIFF picture") from error
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(limits.max_pixels) from error
    except Exception as error:
        # Pillow's plugins let a dozen types escape on damaged files, from struct.error to MemoryError.
        raise InvalidImage("image", "is damaged or cut off") from error


def base64_bytes(text: str, limits: Limits) -> bytes:
    """The bytes of base64 text or of a base64 ``data:`` URI.

    White space, absent padding and the URL-safe alphabet are accepted.

    Raises:
        ImageTooLarge: too many bytes, noticed before the base64 is decoded.
        InvalidImage: the text is not base64.
    """
    if text[:5].lower() == "data:":
        header, comma, text = text.partition(",")
        if not comma or not header.lower().endswith(";base64"):
            raise InvalidImage("image", "is a data URI without base64 data")
    text = "".join(text.split()).rstrip("=")
    if len(text) > math.ceil(limits.max_bytes * 4 / 3):
        raise ImageTooLarge("image", f"is larger than {_megabytes(limits.max_bytes)} MB")
    text = text.translate(_URL_SAFE)
    if not text or not _BASE64.fullmatch(text) or len(text) % 4 == 1:
        raise InvalidImage("image", "is not base64 text")
    return binascii.a2b_base64(text + "=" * (-len(text) % 4))


def kind(data: bytes) -> tuple[str, str]:
    """The file suffix and media type of bytes that `decode` has taken."""
    return next((suffix, media_type) for start, suffix, media_type in _SIGNATURES if data.startswith(start))


def encode(
    image: RGBImage, picture_format: str, quality: int = 95, text: Mapping[str, str] | None = None
) -> bytes:
    """Write a picture file. Blocking: 3 ms (JPEG) to 150 ms (WebP) per megapixel.

    Args:
        picture_format: "jpeg", "webp" or "png".
        quality: 0 (smallest) .. 100 (best) for JPEG and WebP, both lossy at every value. From 90 on, JPEG
            keeps colour at full resolution: drawn pictures have saturated edges that half resolution visibly
            blurs; below, who asks for small files gets the usual 4:2:0.
        text: written into a PNG as text chunks (keys: 1 to 79 Latin-1 characters); left out elsewhere.

    Raises:
        ValueError: another format, or ``quality`` out of range.
    """
    if not 0 <= quality <= 100:
        raise ValueError(f"quality must be between 0 and 100, not {quality}")
    picture, file = to_pil(image), BytesIO()
    match picture_format:
        case "jpeg":
            picture.save(file, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2)
        case "webp":
            picture.save(file, "WEBP", quality=quality)
        case "png":
            # Filtered rows repeat bytes, hardly ever strings: as small as level 6 in a third of its time.
            picture.save(file, "PNG", compress_level=1, compress_type=Z_RLE, pnginfo=_text_chunks(text or {}))
        case _:
            raise ValueError(f"{picture_format!r} is not one of {', '.join(CONTENT_TYPES)}")
    return file.getvalue()


def content_type(picture_format: str) -> str:
    """The media type, without parameters, of a file that `encode` writes in that format.

    Raises:
        KeyError: not a format of `encode`.
    """
    return CONTENT_TYPES[picture_format]


def cover(image: RGBImage, width: int, height: int) -> RGBImage:
    """Resize so that ``width`` x ``height`` pixels are covered, and cut the rest off evenly on both sides."""
    if (image.width, image.height) == (width, height):
        return image
    scale = max(width / image.width, height / image.height)
    box_width, box_height = min(width / scale, image.width), min(height / scale, image.height)
    left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
    # Cropped while resizing: a long thin picture never exists at the size that covers.
    box = (left, top, min(left + box_width, image.width), min(top + box_height, image.height))
    return from_pil(to_pil(image).resize((width, height), Image.Resampling.LANCZOS, box=box))


def resized(image: RGBImage, width: int, height: int) -> RGBImage:
    """The picture in that size, whatever that does to its shape, by Lanczos' filter."""
    if (image.width, image.height) == (width, height):
        return image
    return from_pil(to_pil(image).resize((width, height), Image.Resampling.LANCZOS))


def to_pil(image: RGBImage) -> Image.Image:
    """The same pixels as a Pillow picture of mode RGB."""
    return Image.frombytes("RGB", (image.width, image.height), image.pixels)


def from_pil(picture: Image.Image) -> RGBImage:
    """The pixels of a Pillow picture of any mode; transparency is laid on white."""
    rgb = _flatten(picture)
    return RGBImage(rgb.width, rgb.height, rgb.tobytes())


def _upright(data: bytes, max_pixels: int) -> Image.Image:
    """The decoded picture, turned as its EXIF block says, in the mode of its file."""
    plain, exif = without_metadata(data)
    try:
        picture = _loaded(plain, max_pixels)
    except OSError:
        if not plain.startswith(b"\xff\xd8"):
            raise
        picture = _jpeg_without_end(plain, max_pixels)
    turn = orientation(exif) if exif else picture.info.get("orientation")
    if picture.mode == "CMYK" and picture.format in ("JPEG", "MPO") and "adobe" not in picture.info:
        # Pillow takes every CMYK JPEG for one of Adobe's, who store ink inverted.
        picture = ImageChops.invert(picture)
    return picture.transpose(_TRANSPOSITIONS[turn]) if turn in _TRANSPOSITIONS else picture


def _loaded(data: bytes, max_pixels: int) -> Image.Image:
    with Image.open(BytesIO(data), formats=READABLE) as picture:
        if picture.width * picture.height > max_pixels:
            raise _too_many_pixels(max_pixels)
        _refuse_costly_structure(picture, data, max_pixels)
        picture.load()
        if isinstance(picture, TiffImagePlugin.TiffImageFile):
            picture.info["orientation"] = picture.tag_v2.get(ORIENTATION_TAG)
        return picture


def _jpeg_without_end(data: bytes, max_pixels: int) -> Image.Image:
    """Decode a JPEG that has all its pixels, but whose end marker is cut off; browsers show those.

    Pillow does not tell where a decoder ran out of data, so the file is finished in two ways: what differs
    was not in the file.

    Raises:
        OSError: pixels are cut off too.
    """
    data = data.rstrip(b"\xff")
    ended = _loaded(data + _JPEG_END, max_pixels)
    if ended.tobytes() != _loaded(data + _OTHER_PIXELS + _JPEG_END, max_pixels).tobytes():
        raise OSError("pixels are cut off")
    return ended


def _refuse_costly_structure(picture: Image.Image, data: bytes, max_pixels: int) -> None:
    """Refuse few pixels that are dear to decode: JPEGs of thousands of scans, TIFFs of one gigantic tile."""
    if picture.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise InvalidImage("image", f"is a JPEG of more than {MAX_JPEG_SCANS} scans")
    if picture.format == "TIFF":
        tags = picture.getexif()
        if int(tags.get(_TILE_WIDTH_TAG, 0)) * int(tags.get(_TILE_HEIGHT_TAG, 0)) > max_pixels:
            raise _too_many_pixels(max_pixels)


def _flatten(picture: Image.Image) -> Image.Image:
    """The picture in mode RGB, whatever mode it had."""
    picture = _eight_bits(picture)
    if not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    paper = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(paper, picture.convert("RGBA")).convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """The picture with 8 bits per channel.

    Raises:
        InvalidImage: it has 32.
    """
    match picture.mode:
        case "I;16" | "I;16L" | "I;16N":
            return Image.frombytes("L", picture.size, picture.tobytes()[1::2])
        case "I;16B":
            return Image.frombytes("L", picture.size, picture.tobytes()[0::2])
        case "I" | "F":
            raise InvalidImage("image", "has 32 bits per channel; 8 and 16 are supported")
        case _:
            return picture


def _text_chunks(text: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for name, value in text.items():
        # Prompts may hold lone surrogates and NULs, which JSON can say and PNG cannot.
        chunks.add_text(name, value.encode("utf-8", "replace").decode().replace("\0", ""))
    return chunks


def _too_many_pixels(max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge("image", f"has more than {max_pixels / 1e6:g} megapixels")


def _megabytes(count: int) -> str:
    return f"{count / 1e6:g}"
