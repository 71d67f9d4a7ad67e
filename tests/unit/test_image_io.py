"""What decode accepts and refuses, and what encode and cover give back."""

from __future__ import annotations

import base64
import contextlib
import random
import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import pytest
from PIL import Image, ImageChops, PngImagePlugin

from pipelines.errors import ImageTooLarge, InvalidImage, InvalidInput
from pipelines.image_io import (
    MAX_JPEG_SCANS,
    Limits,
    RGBImage,
    base64_bytes,
    content_type,
    cover,
    decode,
    encode,
    from_pil,
    to_pil,
)

LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def drawing(width: int = 48, height: int = 32) -> Image.Image:
    """Red left half, blue right half, a green band along the top quarter."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    picture.paste(GREEN, (0, 0, width, height // 4))
    return picture


def file_of(picture: Image.Image, picture_format: str, **options: object) -> bytes:
    file = BytesIO()
    picture.save(file, picture_format, **options)
    return file.getvalue()


def pixel(image: RGBImage, x: int, y: int) -> tuple[int, ...]:
    start = (y * image.width + x) * 3
    return tuple(image.pixels[start : start + 3])


def near(seen: tuple[int, ...], wanted: tuple[int, ...], tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(seen, wanted, strict=True))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int, *between: bytes) -> bytes:
    """A PNG whose header states any size, with chunks of one's own and hardly any pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(between) + data + png_chunk(b"IEND", b"")


FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]


@pytest.mark.parametrize("picture_format", FORMATS)
def test_every_listed_format_is_read_with_its_pixels_in_place(picture_format: str) -> None:
    options = {"quality": 95} if picture_format in ("JPEG", "WEBP") else {}
    image = decode(file_of(drawing(), picture_format, **options), LIMITS)
    assert (image.width, image.height, len(image.pixels)) == (48, 32, 48 * 32 * 3)
    tolerance = 40 if options else 0
    assert near(pixel(image, 4, 28), RED, tolerance)
    assert near(pixel(image, 44, 28), BLUE, tolerance)
    assert near(pixel(image, 20, 2), GREEN, tolerance)


@pytest.mark.parametrize("picture_format", ["PPM", "ICO", "TGA", "SGI", "JPEG2000"])
def test_a_format_off_the_list_is_refused_although_pillow_could_read_it(picture_format: str) -> None:
    with pytest.raises(InvalidImage, match="image: is not a PNG, JPEG"):
        decode(file_of(drawing(), picture_format), LIMITS)


@pytest.mark.parametrize("picture_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_drawn(picture_format: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if picture_format == "WEBP" else {}
    data = file_of(frames[0], picture_format, save_all=True, append_images=frames[1:], **options)
    assert pixel(decode(data, LIMITS), 8, 8) == RED


def test_later_frames_of_an_animation_are_not_even_looked_at() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN)]
    data = file_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    second_frame = data.rindex(b"\x21\xf9\x04")
    damaged = data[:second_frame] + b"\xff" * (len(data) - second_frame)
    assert pixel(decode(damaged, LIMITS), 8, 8) == RED


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = drawing().transpose(undo[orientation]) if orientation in undo else drawing()
    exif = Image.Exif()
    exif[0x0112] = orientation
    for picture_format, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        image = decode(file_of(stored, picture_format, exif=exif, **options), LIMITS)
        assert image.pixels == drawing().tobytes(), picture_format
        assert (image.width, image.height) == (48, 32), picture_format


@pytest.mark.parametrize("orientation", [0, 9, 4711])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode(file_of(drawing(), "PNG", exif=exif), LIMITS).pixels == drawing().tobytes()


def test_damaged_exif_does_not_spoil_a_good_picture() -> None:
    data = file_of(drawing(), "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert near(pixel(decode(data, LIMITS), 4, 28), RED, 40)


def test_transparency_is_laid_on_white() -> None:
    glass = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    assert near(pixel(decode(file_of(glass, "PNG"), LIMITS), 4, 4), (255, 127, 127), 1)
    grey = Image.new("LA", (8, 8), (0, 0))
    assert pixel(decode(file_of(grey, "PNG"), LIMITS), 4, 4) == WHITE
    assert pixel(decode(file_of(glass, "WEBP", lossless=True), LIMITS), 4, 4)[0] == 255


def test_a_palette_keeps_its_colours_and_its_transparent_entry_becomes_white() -> None:
    picture = drawing().quantize(8)
    assert pixel(decode(file_of(picture, "PNG"), LIMITS), 44, 28) == BLUE
    index = picture.getpixel((44, 28))
    for picture_format in ("PNG", "GIF"):
        image = decode(file_of(picture, picture_format, transparency=index), LIMITS)
        assert pixel(image, 44, 28) == WHITE
        assert pixel(image, 4, 28) == RED


def test_one_colour_of_an_rgb_png_can_be_transparent() -> None:
    image = decode(file_of(drawing(), "PNG", transparency=BLUE), LIMITS)
    assert (pixel(image, 44, 28), pixel(image, 4, 28)) == (WHITE, RED)


@pytest.mark.parametrize("picture_format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_to_eight(picture_format: str) -> None:
    picture = Image.frombytes("I;16", (4, 1), struct.pack("<4H", 0, 0x1234, 0x8000, 0xFFFF))
    image = decode(file_of(picture, picture_format), LIMITS)
    assert [pixel(image, x, 0)[0] for x in range(4)] == [0, 0x12, 0x80, 0xFF]


def test_sixteen_bit_grey_of_the_other_byte_order_is_scaled_to_eight() -> None:
    picture = Image.frombytes("I;16B", (4, 1), struct.pack(">4H", 0, 0x1234, 0x8000, 0xFFFF))
    image = decode(file_of(picture, "TIFF"), LIMITS)
    assert [pixel(image, x, 0)[0] for x in range(4)] == [0, 0x12, 0x80, 0xFF]


def test_one_bit_pictures_become_black_and_white() -> None:
    picture = Image.new("1", (16, 8), 0)
    picture.paste(1, (8, 0, 16, 8))
    for picture_format in ("PNG", "BMP", "TIFF", "GIF"):
        image = decode(file_of(picture, picture_format), LIMITS)
        assert (pixel(image, 2, 2), pixel(image, 12, 2)) == ((0, 0, 0), WHITE), picture_format


def test_floating_point_pictures_are_refused_in_words() -> None:
    with pytest.raises(InvalidImage, match="32 bits per channel"):
        decode(file_of(Image.new("F", (4, 4), 0.5), "TIFF"), LIMITS)


def test_cmyk_keeps_its_colours_with_and_without_the_adobe_marker() -> None:
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    adobe = file_of(inks, "JPEG", quality=95)
    assert b"Adobe" in adobe
    assert near(pixel(decode(adobe, LIMITS), 8, 8), RED)

    stored_as_they_are = file_of(ImageChops.invert(inks), "JPEG", quality=95)
    marker = stored_as_they_are.index(b"\xff\xee")
    length = struct.unpack_from(">H", stored_as_they_are, marker + 2)[0]
    plain = stored_as_they_are[:marker] + stored_as_they_are[marker + 2 + length :]
    assert near(pixel(decode(plain, LIMITS), 8, 8), RED)

    assert near(pixel(decode(file_of(inks, "TIFF"), LIMITS), 8, 8), RED)


def test_more_bytes_than_allowed_are_refused() -> None:
    data = file_of(drawing(), "PNG")
    assert decode(data, Limits(len(data), 10_000)).width == 48
    with pytest.raises(ImageTooLarge, match="image: is larger than"):
        decode(data, Limits(len(data) - 1, 10_000))


def test_more_pixels_than_allowed_are_refused() -> None:
    data = file_of(drawing(), "PNG")
    assert decode(data, Limits(10_000, 48 * 32)).height == 32
    with pytest.raises(ImageTooLarge, match=r"has more than 0\.001535 megapixels"):
        decode(data, Limits(10_000, 48 * 32 - 1))


@pytest.mark.parametrize("side", [20_000, 60_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_from_its_header(side: int) -> None:
    generous = Limits(max_bytes=10_000, max_pixels=200_000_000)
    webp = bytearray(file_of(drawing(), "WEBP", save_all=True, append_images=[Image.new("RGB", (48, 32))]))
    assert webp[12:16] == b"VP8X"
    size = struct.pack("<I", min(side, 2**24) - 1)[:3]
    webp[24:30] = size + size
    bmp = bytearray(file_of(drawing(), "BMP"))
    struct.pack_into("<ii", bmp, 18, side, side)
    for bomb in (png_of(side, side), bytes(webp), bytes(bmp)):
        with pytest.raises(ImageTooLarge, match="megapixels"):
            decode(bomb, generous)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_png_whose_text_or_profile_explodes_is_refused(kind: bytes) -> None:
    explosive = zlib.compress(b"\0" * 60_000_000, 9)
    head = b"name\0\x01\0\0\0" if kind == b"iTXt" else b"name\0\0"
    with pytest.raises(InvalidImage, match="unpack to more than 32 MB"):
        decode(png_of(4, 4, png_chunk(kind, head + explosive)), LIMITS)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = file_of(drawing(), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(InvalidImage, match="more than 100 scans"):
        decode(data[:-2] + scan * MAX_JPEG_SCANS + data[-2:], LIMITS)


def test_a_tiff_with_a_gigantic_tile_is_refused() -> None:
    entries = {256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 277: 1, 322: 2**15, 323: 2**15, 324: 8, 325: 16}
    ifd = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + ifd + bytes(4 + 16)
    with pytest.raises(ImageTooLarge, match="megapixels"):
        decode(data, LIMITS)


@pytest.mark.parametrize("picture_format", FORMATS)
def test_a_truncated_picture_is_refused(picture_format: str) -> None:
    noise = Image.frombytes("RGB", (64, 64), random.Random(1).randbytes(64 * 64 * 3))
    data = file_of(noise, picture_format)
    for length in (len(data) // 2, len(data) // 10, 12):
        with pytest.raises(InvalidImage):
            decode(data[:length], LIMITS)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"A cat, please.", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0", b"{}"]
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidImage, match="image: is not a PNG, JPEG, WebP, GIF, BMP or TIFF picture"):
        decode(data, LIMITS)


def seeds_of_the_fuzz() -> list[bytes]:
    picture = drawing(24, 16)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [file_of(picture, name) for name in FORMATS]
    files += [file_of(picture, name, exif=exif) for name in ("PNG", "JPEG", "WEBP")]
    files += [file_of(picture.quantize(4), "PNG", transparency=0), file_of(picture.convert("CMYK"), "JPEG")]
    files += [file_of(picture, "JPEG", progressive=True), file_of(picture.convert("1"), "TIFF")]
    files += [
        file_of(picture, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")
    ]
    files += [file_of(picture, "GIF", save_all=True, append_images=[picture.rotate(90)])]
    return files


def flip_bits(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def overwrite(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + chance.choice([b"\0", b"\xff", chance.randbytes(1)]) * 4 + data[start + 4 :]


DAMAGES: list[Callable[[bytes, random.Random], bytes]] = [
    flip_bits,
    overwrite,
    lambda data, chance: data[: chance.randrange(len(data))],
    lambda data, chance: data[:16] + chance.randbytes(len(data) - 16),
    lambda data, chance: chance.randbytes(len(data)),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", range(len(DAMAGES)))
def test_damaged_bytes_give_a_picture_or_an_invalid_input_and_nothing_else(damage: int) -> None:
    chance = random.Random(damage)
    for data in seeds_of_the_fuzz():
        for _ in range(150):
            attempt = DAMAGES[damage](data, chance)
            with contextlib.suppress(InvalidInput):
                image = decode(attempt, LIMITS)
                assert len(image.pixels) == image.width * image.height * 3 <= LIMITS.max_pixels * 3


@pytest.fixture(scope="module")
def png() -> bytes:
    """A PNG whose base64 uses + and / and whose length is no multiple of three."""
    for width in range(17, 60):
        data = file_of(drawing(width, 20), "PNG", compress_level=0)
        plain = base64.b64encode(data)
        if b"+" in plain and b"/" in plain and plain.endswith(b"="):
            return data
    raise AssertionError("no such picture")


def decode_text(text: str, limits: Limits) -> RGBImage:
    return decode(base64_bytes(text, limits), limits)


def test_base64_is_read_in_all_its_spellings(png: bytes) -> None:
    plain = base64.b64encode(png).decode()
    expected = decode(png, LIMITS)
    spellings = {
        "plain": plain,
        "no padding": plain.rstrip("="),
        "wrapped": base64.encodebytes(png).decode(),
        "windows line ends": base64.encodebytes(png).decode().replace("\n", "\r\n"),
        "white space around": f"  \n{plain}\t ",
        "url-safe": base64.urlsafe_b64encode(png).decode(),
        "data URI": f"data:image/png;base64,{plain}",
        "data URI with parameters": f"DATA:image/png;charset=utf-8;BASE64,{plain}",
        "data URI without a type": f"data:;base64,{plain}",
    }
    for name, text in spellings.items():
        assert decode_text(text, LIMITS) == expected, name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "=",
        "toB64('https://example.com/cat.png')",
        "abcde",
        "äöü",
        "data:image/png,abc",
        "data:image/png;base64",
        "data:image/png;base64,",
        "\ud800",
        "abc\0",
    ],
)
def test_text_that_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(InvalidImage, match="base64"):
        decode_text(text, LIMITS)


def test_base64_of_something_else_is_refused_as_a_picture() -> None:
    with pytest.raises(InvalidImage, match="is not a PNG"):
        decode_text(base64.b64encode(b"A cat, please.").decode(), LIMITS)


def test_base64_over_the_limit_is_refused_before_it_is_decoded(png: bytes) -> None:
    text = base64.b64encode(png).decode()
    assert decode_text(text, Limits(len(png), 10_000)).height == 20
    with pytest.raises(ImageTooLarge):
        decode_text(text, Limits(len(png) - 3, 10_000))
    with pytest.raises(ImageTooLarge):
        decode_text("!" * 2000, Limits(1000, 10_000))


@pytest.mark.parametrize(
    ("picture_format", "pillow_name"), [("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")]
)
def test_what_is_encoded_is_of_the_format_and_can_be_decoded(picture_format: str, pillow_name: str) -> None:
    image = from_pil(drawing())
    data = encode(image, picture_format)
    assert Image.open(BytesIO(data)).format == pillow_name
    assert content_type(picture_format) == f"image/{picture_format}"
    again = decode(data, LIMITS)
    assert (again.width, again.height) == (48, 32)
    assert near(pixel(again, 4, 28), RED)
    if picture_format == "png":
        assert again == image


@pytest.mark.parametrize("picture_format", ["jpeg", "webp"])
def test_quality_goes_from_0_to_100_and_is_obeyed(picture_format: str) -> None:
    noise = RGBImage(64, 64, random.Random(2).randbytes(64 * 64 * 3))
    sizes = [len(encode(noise, picture_format, quality)) for quality in (0, 50, 80, 95, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] * 4 < sizes[-1]
    for quality in (-1, 101):
        with pytest.raises(ValueError, match="between 0 and 100"):
            encode(noise, picture_format, quality)


def test_another_format_cannot_be_encoded() -> None:
    with pytest.raises(ValueError, match="'gif' is not one of jpeg, webp, png"):
        encode(from_pil(drawing()), "gif")


def test_a_png_carries_its_text_in_every_script() -> None:
    text = {"prompt": "一只猫, ünïcode", "parameters": "Steps: 20", "odd": "nul\0 and \ud800 lone"}
    data = encode(from_pil(drawing()), "png", text=text)
    with Image.open(BytesIO(data)) as picture:
        assert isinstance(picture, PngImagePlugin.PngImageFile)
        assert picture.text["prompt"] == "一只猫, ünïcode"
        assert picture.text["parameters"] == "Steps: 20"
        assert picture.text["odd"] == "nul and ? lone"
    assert decode(data, LIMITS) == from_pil(drawing())


def test_cover_fills_the_size_and_cuts_off_both_sides_evenly() -> None:
    thirds = Image.new("RGB", (300, 100), GREEN)
    thirds.paste(RED, (0, 0, 100, 100))
    thirds.paste(BLUE, (200, 0, 300, 100))
    square = cover(from_pil(thirds), 50, 50)
    assert (square.width, square.height) == (50, 50)
    assert all(near(pixel(square, x, 25), GREEN) for x in (3, 25, 46))
    wide = cover(from_pil(thirds), 150, 50)
    assert near(pixel(wide, 5, 25), RED)
    assert near(pixel(wide, 145, 25), BLUE)


def test_cover_leaves_a_picture_of_that_size_alone() -> None:
    image = from_pil(drawing())
    assert cover(image, 48, 32) is image


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (7, 3), (333, 777)])
def test_cover_works_from_any_shape(size: tuple[int, int]) -> None:
    image = cover(from_pil(Image.new("RGB", size, RED)), 512, 640)
    assert (image.width, image.height) == (512, 640)
    assert to_pil(image).getcolors() == [(512 * 640, RED)]
