"""The shape of Segmind's model pages: documented fields with their request, price, example and delivery."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import AliasChoices, Field

from pipelines.image_io import RGBImage
from pipelines.request import PictureRequest
from server.endpoints.fields import Fields, PictureField, whole_number
from server.endpoints.pricing import Priced
from server.endpoints.segmind.body import PICTURE_NAMES
from server.jobs.order import PictureFormat

Side = Annotated[Literal[512, 576, 640, 704, 768, 832, 896, 960, 1024], whole_number]
"""A width or height in pixels. Each page documents two of them; clients send all of these."""

InputImage: TypeAlias = Annotated[
    PictureField,
    Field(
        validation_alias=AliasChoices(*PICTURE_NAMES),
        description="Base64, a data URI, an http(s) URL, or a file part named image or file.",
    ),
]


@dataclass(frozen=True, slots=True)
class Delivery:
    """The way of drawn pictures to the caller: the first one's bytes, or all of them as base64 in JSON."""

    picture_format: PictureFormat
    quality: int = 95
    as_json: bool = False


PNG_IN_JSON = Delivery("png", as_json=True)
"""The delivery of a call whose ``base64`` is true."""


class Page(Fields, Priced):
    """One documented model page: its fields, and what they mean.

    Attributes:
        slug: the page's name in its path, in the records of jobs, in the metrics and in the price list.
        media_types: the types that the picture may have.
        example: the page's own sample body.
    """

    slug: ClassVar[str]
    summary: ClassVar[str]
    media_types: ClassVar[tuple[str, ...]] = ("image/jpeg",)
    example: ClassVar[Mapping[str, object]]

    @abstractmethod
    def delivery(self) -> Delivery: ...

    def source(self) -> str | bytes | None:
        """The caller's picture as it came, on pages that need one."""
        return None

    def warnings(self) -> Sequence[str]:
        """Sentences for the caller: what was sent and has no effect."""
        return ()

    @abstractmethod
    def to_request(self, picture: RGBImage | None) -> PictureRequest:
        """The request that the fields ask for, in canonical names and with explicit seeds.

        It blocks while it resizes a picture.

        Args:
            picture: the picture of `source`, in its own size.
        """


def json_or_jpeg(as_json: bool) -> Delivery:
    """The delivery that ``base64`` chooses: PNGs in JSON, or a JPEG."""
    return PNG_IN_JSON if as_json else Delivery("jpeg")
