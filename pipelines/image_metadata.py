"""The metadata of picture files, taken off: nothing beside its pixels may fail a picture; torch-free."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from pipelines.errors import InvalidImage

MAX_UNPACKED_MB = 32
"""The most megabytes that the compressed texts and profiles of one PNG unpack to."""

ORIENTATION_TAG = 0x0112
"""The number of the tag, in EXIF and TIFF, that says how a picture is to be turned."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
"""The chunks that say what a PNG's pixels are. Pillow takes an animation's first frame from the same ones."""

_PNG_PACKED = (b"zTXt", b"iTXt", b"iCCP")
"""The chunks of a PNG that may be compressed."""

_JPEG_START = b"\xff\xd8"
_JPEG_COMMENT, _JPEG_SCAN = 0xFE, 0xDA
_JPEG_KEPT = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}
"""The application segments that say how a JPEG stores colour: marker, head, and least size in bytes."""

_WEBP_KEPT = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")
"""The chunks that hold a WebP's pixels."""

_WEBP_FLAGS = 0b0001_0010
"""The flags of a WebP's head for alpha and animation; the others announce metadata."""

_EXIF_HEAD = b"Exif\0\0"


def without_metadata(data: bytes) -> tuple[bytes, bytes]:
    """Take texts, profiles, EXIF and comments off a PNG, JPEG or WebP file.

    Returns:
        The file with nothing but what its pixels need, and its EXIF block, empty where there is none. Other
        formats, and files whose parts cannot be told apart, come back as they are.
    Raises:
        InvalidImage: compressed texts or profiles unpack to more than `MAX_UNPACKED_MB`.
    """
    if data.startswith(_PNG_SIGNATURE):
        return _plain_png(data)
    if data.startswith(_JPEG_START):
        return _plain_jpeg(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _plain_webp(data)
    return data, b""


def orientation(exif: bytes) -> int | None:
    """The orientation that an EXIF block states, 1 to 8 by its standard; None where it cannot be read."""
    if not exif:
        return None
    tags = Image.Exif()
    try:
        tags.load(exif)
        return tags.get(ORIENTATION_TAG)
    except Exception:
        # Whatever a damaged block does to Pillow's reader, the picture's pixels are not concerned.
        return None


def _plain_png(data: bytes) -> tuple[bytes, bytes]:
    kept, exif, room = bytearray(_PNG_SIGNATURE), b"", MAX_UNPACKED_MB * 1_000_000
    position = len(_PNG_SIGNATURE)
    while position + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, position)
        kind, end = data[position + 4 : position + 8], position + 12 + size
        if kind == b"IEND":
            break
        if kind == b"IDAT" and end > len(data):
            kept += _png_chunk(
                kind, data[position + 8 : position + 8 + size]
            )  # decoding tells if it is enough
        elif kind in _PNG_KEPT:
            kept += data[position:end]
        elif kind == b"eXIf":
            exif = data[position + 8 : position + 8 + size]
        elif kind in _PNG_PACKED:
            room -= _unpacked_size(kind, data[position + 8 : position + 8 + size], room)
        position = end
    return bytes(kept + _png_chunk(b"IEND", b"")), exif


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _unpacked_size(kind: bytes, chunk: bytes, room: int) -> int:
    """The number of bytes that a chunk of `_PNG_PACKED` unpacks to; 0 where it is damaged.

    Raises:
        InvalidImage: it is more than ``room``.
    """
    packed = chunk.split(b"\0", 1)[-1][1:]
    if kind == b"iTXt":
        if chunk.split(b"\0", 1)[-1][:1] != b"\1":
            return 0
        packed = packed[1:].split(b"\0", 2)[-1]
    unpacker = zlib.decompressobj()
    try:
        size = len(unpacker.decompress(packed, room + 1))
    except zlib.error:
        return 0
    if size > room:
        raise InvalidImage("image", f"has texts or a profile that unpack to more than {MAX_UNPACKED_MB} MB")
    return size


def _plain_jpeg(data: bytes) -> tuple[bytes, bytes]:
    kept, exif, position = bytearray(_JPEG_START), b"", 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a filling byte
            position += 1
            continue
        if marker == _JPEG_SCAN:
            return bytes(kept) + data[position:], exif
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : end]
        if marker == 0xE1 and body.startswith(_EXIF_HEAD):
            exif = exif or body
        head, least = _JPEG_KEPT.get(marker, (b"", 0))
        metadata = (0xE0 <= marker <= 0xEF and marker not in _JPEG_KEPT) or marker == _JPEG_COMMENT
        if not metadata and body.startswith(head) and len(body) >= least:
            kept += data[position:end]
        position = end
    return data, exif


def _plain_webp(data: bytes) -> tuple[bytes, bytes]:
    kept, exif = bytearray(), b""
    for kind, body, size in _riff_chunks(data):
        if kind == b"EXIF":
            exif = body
        if kind not in _WEBP_KEPT:
            continue
        if len(body) < size:
            return data, exif  # pixels are cut off: the decoder says so
        if kind == b"VP8X" and body:
            body = bytes([body[0] & _WEBP_FLAGS]) + body[1:]
        kept += _riff_chunk(kind, body)
    return b"RIFF" + struct.pack("<I", len(kept) + 4) + b"WEBP" + bytes(kept), exif


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """The chunks of a RIFF file, each with the size that its head states, which may be more than is there."""
    position = 12
    while position + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, position)
        yield kind, data[position + 8 : position + 8 + size], size
        position += 8 + size + size % 2


def _riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
