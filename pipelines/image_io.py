"""Bytes to image and back, with limits; torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict


@dataclass(frozen=True, slots=True)
class RGBImage:
    """A decoded picture: 8 bits per channel, rows from the top, ``width * height * 3`` bytes."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    width: int
    height: int
    pixels: bytes
