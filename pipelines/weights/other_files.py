"""Name a file that is no .safetensors file by its first bytes. Torch-free."""

from __future__ import annotations

SEEN_BYTES = 4096
"""The bytes at a file's beginning by which it is told."""

_POINTER = "a pointer of {} instead of the file; give the address of the file itself"
_PAGE = "a web page instead of a file; give the address of the file itself"

_STARTS = (
    (b"GGUF", "a GGUF file, whose weights are quantised"),
    (b"GGML", "a GGML file, whose weights are quantised"),
    (b"ftrt", "a TensorRT engine, built for one kind of GPU"),
    (b"ptrt", "a TensorRT engine, built for one kind of GPU"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x80", "a pickle, which can run code when it is opened"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\x89HDF", "an HDF5 file (Keras, TensorFlow)"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"RIFF", "a WebP picture, or sound"),
    (b"%PDF", "a PDF document"),
    (
        b"version https://git-lfs",
        _POINTER.format("Git LFS"),
    ),
    (b"# xet version", _POINTER.format("Xet")),
)
"""The first bytes of kinds of files, and what such a file is."""

_TEXTS = (
    ("<!doctype html", _PAGE),
    ("<html", _PAGE),
    ("<head", _PAGE),
    ("<?xml", "an XML document, as a storage answers when it refuses a file"),
    ("{", "a JSON document"),
    ("[", "a JSON document"),
)
"""How texts begin, in small letters, and what such a text is."""


_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""The first bytes of a bare pickle from protocol 2 on."""

_FIRST_OF_TORCH = (b"/data.pkl", b"/byteorder", b"/.format_version", b"/version")
"""The ends of the name of the first file in torch's zip archives."""


def is_pickle(start: bytes) -> bool:
    """Whether a file is a pickle, a bare one or one in torch's zip archive.

    Args:
        start: its first bytes.
    """
    if start.startswith(_PICKLES):
        return True
    if not start.startswith(b"PK\x03\x04"):
        return False
    length = int.from_bytes(start[26:28], "little")
    named = 0 < length <= len(start) - 30
    return not named or start[30 : 30 + length].endswith(_FIRST_OF_TORCH)


def described(start: bytes) -> str:
    """Say what a file is that is no .safetensors file.

    Args:
        start: its first bytes.
    """
    known = next((name for mark, name in _STARTS if start.startswith(mark)), None) or _by_its_middle(start)
    refusal = "it is not a .safetensors file"
    return f"{refusal}: it is {known}" if known else refusal


def _by_its_middle(start: bytes) -> str | None:
    if start[257:262] == b"ustar":
        return "a tar archive"
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if start[:1] == b"\x08" and (b"pytorch" in start[:64] or b"onnx" in start[:512].lower()):
        return "an ONNX model"
    text = start.decode("utf-8", "replace").lstrip("\ufeff \t\r\n").lower()
    return next((name for mark, name in _TEXTS if text.startswith(mark)), None)
