"""Whether pictures are read whose pixels are all there, whatever is wrong beside them."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO

import pytest
from PIL import Image

from pipelines.errors import InvalidImage
from pipelines.image_io import Limits, decode

LIMITS = Limits(max_bytes=4_000_000, max_pixels=1_000_000)
NOISE = Image.frombytes("RGB", (61, 64), random.Random(1).randbytes(61 * 64 * 3))
SMOOTH = Image.radial_gradient("L").convert("RGB")

DAMAGED_EXIF = [
    b"Exif\0\0" + b"\x00\x08\x00\x02\x01\x12\x00\x03",  # no TIFF header
    b"MM\0\x2a\xff\xff\xff\xf0",
    b"II\x2a\0\x08\0\0\0\xff\xff",
    b"\0",
    b"Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x05\0\xff\xff\xff\xff\xff\xff\xff\xff",
]


def file_of(picture: Image.Image, picture_format: str, **options: object) -> bytes:
    file = BytesIO()
    picture.save(file, picture_format, **options)
    return file.getvalue()


def png_with(*chunks: tuple[bytes, bytes], checksum: Callable[[bytes], int] = zlib.crc32) -> bytes:
    """A PNG of noise with these chunks before its pixels."""
    between = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum(kind + body))
        for kind, body in chunks
    )
    data = file_of(NOISE, "PNG")
    return data[:33] + between + data[33:]


def webp_with(kind: bytes, body: bytes, stated: int | None = None) -> bytes:
    """A lossless WebP of noise with one more chunk behind its pixels, of another stated size perhaps."""
    whole = file_of(NOISE, "WEBP", lossless=True, exif=b"Exif\0\0II")
    pixels = whole[: whole.index(b"EXIF")] + kind + struct.pack("<I", stated or len(body)) + body
    return pixels[:4] + struct.pack("<I", len(pixels) - 8) + pixels[8:]


def jpeg_with(marker: int, body: bytes) -> bytes:
    """A JPEG of noise with one more segment before its pixels."""
    data = file_of(NOISE, "JPEG")
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + data[2:]


@pytest.mark.parametrize("exif", DAMAGED_EXIF)
def test_a_damaged_exif_block_does_not_fail_the_pixels_of_any_format(exif: bytes) -> None:
    assert decode(png_with((b"eXIf", exif)), LIMITS).pixels == NOISE.tobytes()
    assert decode(webp_with(b"EXIF", exif), LIMITS).pixels == NOISE.tobytes()
    plain = decode(file_of(NOISE, "JPEG"), LIMITS)
    assert decode(jpeg_with(0xE1, b"Exif\0\0" + exif), LIMITS) == plain


@pytest.mark.parametrize(
    "chunk",
    [
        (b"iCCP", b"name without an end"),
        (b"iCCP", b"name\0\0no zlib at all"),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"cut off" * 99)[:9]),
        (b"iTXt", b""),
        (b"tEXt", b"\xff" * 200),
        (b"gAMA", b""),
        (b"cHRM", b"\0"),
        (b"pHYs", b"\0\0"),
        (b"sRGB", b""),
        (b"acTL", b"\0\0\0\0\0\0\0\0"),
        (b"fcTL", b"\0"),
        (b"iDOT", b"\0"),
    ],
)
def test_a_damaged_chunk_beside_the_pixels_of_a_png_is_skipped(chunk: tuple[bytes, bytes]) -> None:
    assert decode(png_with(chunk), LIMITS).pixels == NOISE.tobytes()
    assert decode(png_with(chunk, checksum=lambda _: 7), LIMITS).pixels == NOISE.tobytes()


@pytest.mark.parametrize("megabytes", [1.6, 20])
@pytest.mark.parametrize(
    ("kind", "head"),
    [(b"zTXt", b"workflow\0\0"), (b"iTXt", b"workflow\0\1\0\0\0"), (b"iCCP", b"profile\0\0")],
)
def test_long_texts_and_profiles_are_skipped(kind: bytes, head: bytes, megabytes: float) -> None:
    packed = zlib.compress(b"{}" * int(megabytes * 500_000), 9)
    assert decode(png_with((kind, head + packed)), LIMITS).pixels == NOISE.tobytes()


def test_many_texts_may_not_unpack_to_more_than_the_one_bound_together() -> None:
    packed = b"workflow\0\0" + zlib.compress(b"\0" * 10_000_000, 9)
    assert decode(png_with(*[(b"zTXt", packed)] * 3), LIMITS).pixels == NOISE.tobytes()
    with pytest.raises(InvalidImage, match="texts or a profile that unpack to more than 32 MB"):
        decode(png_with(*[(b"zTXt", packed)] * 4), LIMITS)


@pytest.mark.parametrize(
    ("marker", "body"),
    [
        (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"ICC_PROFILE\0\1\1" + b"no profile"),
        (0xE2, b"MPF\0II\x2a\0\xff\xff\xff\xff"),
        (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\0"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta"),
        (0xE0, b"JFIF\0"),
        (0xE0, b"JFXX\0\x10"),
        (0xEE, b"Adobe"),
        (0xEA, b"AROT"),
        (0xFE, b"\xff\xfe"),
    ],
)
def test_a_damaged_segment_beside_the_pixels_of_a_jpeg_is_skipped(marker: int, body: bytes) -> None:
    assert decode(jpeg_with(marker, body), LIMITS) == decode(file_of(NOISE, "JPEG"), LIMITS)


@pytest.mark.parametrize("kind", [b"EXIF", b"XMP ", b"ICCP", b"what"])
def test_a_damaged_or_cut_chunk_beside_the_pixels_of_a_webp_is_skipped(kind: bytes) -> None:
    assert decode(webp_with(kind, b"\xff" * 7), LIMITS).pixels == NOISE.tobytes()
    assert decode(webp_with(kind, b"\xff" * 7, stated=4000), LIMITS).pixels == NOISE.tobytes()


def test_the_orientation_of_a_sound_exif_block_beside_a_damaged_text_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode(png_with((b"zTXt", b"\0"), (b"eXIf", exif.tobytes()[6:])), LIMITS)
    assert (image.width, image.height) == (64, 61)
    assert image.pixels == NOISE.transpose(Image.Transpose.ROTATE_270).tobytes()


@pytest.mark.parametrize("picture", [NOISE, SMOOTH])
@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"optimize": True}, {"quality": 95, "subsampling": 0}, {"quality": 30}],
)
def test_a_jpeg_lacks_nothing_but_its_end_marker_or_is_refused(
    picture: Image.Image, options: dict[str, object]
) -> None:
    data = file_of(picture, "JPEG", **options)
    whole = decode(data, LIMITS)
    assert decode(data[:-1], LIMITS) == decode(data[:-2], LIMITS) == whole
    for cut in (4, 6, 8, 10, 20, 40, 100, len(data) // 4, len(data) // 2):
        with suppress(InvalidImage):
            assert decode(data[:-cut], LIMITS) == whole
    with pytest.raises(InvalidImage, match="cut off"):
        decode(data[: -len(data) // 4], LIMITS)


def test_a_grey_and_a_cmyk_jpeg_without_their_end_markers_are_read() -> None:
    for mode in ("L", "CMYK"):
        data = file_of(SMOOTH.convert(mode), "JPEG")
        assert decode(data[:-2], LIMITS) == decode(data, LIMITS)


def test_a_png_may_lack_its_end_and_the_checksum_of_its_pixels() -> None:
    data = file_of(NOISE, "PNG")
    for cut in (1, 4, 12, 13, 16):
        assert decode(data[:-cut], LIMITS).pixels == NOISE.tobytes(), cut
    with pytest.raises(InvalidImage, match="cut off"):
        decode(data[:-60], LIMITS)


def test_a_gif_may_lack_its_trailer() -> None:
    data = file_of(NOISE.quantize(), "GIF")
    assert decode(data[:-1], LIMITS) == decode(data, LIMITS)


def test_what_follows_a_picture_is_not_looked_at() -> None:
    for picture_format in ("PNG", "JPEG", "GIF"):
        data = file_of(NOISE, picture_format)
        assert decode(data + b"<script>" * 9, LIMITS) == decode(data, LIMITS)
