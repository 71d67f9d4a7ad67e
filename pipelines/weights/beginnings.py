"""What the first bytes of a download tell: whether it is a .safetensors file, or what else, and how long."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from pipelines.weights.formats import NO_PICKLES

ENOUGH = 512
"""The most first bytes that are looked at to tell what a file is."""

MAX_HEADER_BYTES = 100_000_000
"""The most bytes that the header of a .safetensors file may have; the format's own reader takes no more."""

_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
"""The beginnings of bare pickles, from protocol 2 on."""
_ZIP = b"PK\x03\x04"
"""The beginning of a ZIP archive, and so of what torch saves."""

_MAGIC = (
    (b"version https://git-lfs", "is a pointer into git's large-file storage, not the file itself"),
    (b"GGUF", "is a GGUF file; give a .safetensors"),
    (b"# xet version", "is a pointer into the hub's large-file storage, not the file itself"),
    (b"GGML", "is a GGML file; give a .safetensors"),
    (b"ftrt", "is a TensorRT engine, built for one kind of GPU; give a .safetensors"),
    (b"ptrt", "is a TensorRT engine, built for one kind of GPU; give a .safetensors"),
    (b"BZh", "is compressed with bzip2; give the .safetensors in it"),
    (b"\xfd7zXZ", "is compressed with xz; give the .safetensors in it"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; give the .safetensors in it"),
    (b"GIF8", "is a picture"),
    (b"RIFF", "is a picture, or sound"),
    (b"%PDF", "is a PDF document"),
    (b"\x89HDF", "is an HDF5 file; give a .safetensors"),
    (b"\x1f\x8b", "is compressed with gzip; give the .safetensors in it"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive; give the .safetensors in it"),
    (b"Rar!", "is a RAR archive; give the .safetensors in it"),
    (b"\x89PNG", "is a picture"),
    (b"\xff\xd8\xff", "is a picture"),
)
"""The first bytes of other kinds of files, and the words for them, to follow the name of a file."""

_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<title", b"<!--")


def length_of_header(start: bytes) -> int | None:
    """The bytes of a .safetensors file's header by its first nine; None if they are no such file's."""
    if len(start) < 9 or start[8:9] != b"{":
        return None
    length: int = struct.unpack("<Q", start[:8])[0]
    return length if 2 <= length <= MAX_HEADER_BYTES else None


def foreign(start: bytes) -> str | None:
    """What a file is by its first bytes, in words that follow its name; None for a .safetensors file."""
    if length_of_header(start) is not None:
        return None
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_HTML):
        return (
            "is an HTML page, not a file: its address leads to a login, to terms to agree to, or to a page"
            " that only shows the file; give the address of the download itself"
        )
    if start.startswith(_ZIP):
        name = start[30 : 30 + int.from_bytes(start[26:28], "little")]
        is_torch = not name or name.endswith((b".pkl", b"/version", b".data/serialization_id"))
        return NO_PICKLES if is_torch else "is a ZIP archive; give the .safetensors in it"
    if start.startswith(_PICKLES):
        return NO_PICKLES
    for magic, words in _MAGIC:
        if start.startswith(magic):
            return words
    if start[257:262] == b"ustar":
        return "is a tar archive; give the .safetensors in it"
    if start[:1] == b"\x08" and (b"pytorch" in start[:64] or b"onnx" in start.lower()):
        return "is an ONNX model; give a .safetensors"
    if text.startswith((b"<?xml", b"<error")):
        return f"is an XML text, not a file: {_excerpt(start)}"
    if text.startswith((b"{", b"[")) and b"\0" not in start:
        return f"is a JSON text, not a file: {_excerpt(start)}"
    if start and all(byte >= 0x20 or byte in b"\t\r\n" for byte in start):
        return f"is a text, not a file: {_excerpt(start)}"
    return "is not a .safetensors file"


def whole_size(path: Path) -> int | None:
    """The bytes of the whole file of which the first ones are here, by its header; None before that is here.

    Raises:
        ValueError: the header is none.
    """
    with path.open("rb") as file:
        start = file.read(9)
        length = length_of_header(start)
        if length is None:
            return None
        file.seek(8)
        text = file.read(length)
    if len(text) < length:
        return None
    try:
        header: dict[str, Any] = json.loads(text)
        ends = [int(value["data_offsets"][1]) for name, value in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError("is not a .safetensors file") from error
    return 8 + length + max(ends, default=0)


def _excerpt(start: bytes) -> str:
    """The first characters of a text, on one line."""
    return repr(" ".join(start[:100].decode(errors="replace").split()))
