"""The shape of Segmind's model pages: documented fields with their request, price, example and delivery."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import AliasChoices, Field

from pipelines.image_io import RGBImage
from pipelines.request import PictureRequest
from pipelines.weights.manifest import Manifest
from server.endpoints.fields import Fields, PictureField, whole_number
from server.endpoints.pricing import Priced
from server.endpoints.segmind.body import MASK_NAMES, PICTURE_NAMES
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
InputMask: TypeAlias = Annotated[
    PictureField,
    Field(
        validation_alias=AliasChoices(*MASK_NAMES),
        description="White is repainted, black is kept. Base64, a data URI, an http(s) URL, or a file part"
        " named mask. It is cut to fit like the picture.",
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
        sources: for /docs: what of it the vendor documents, what was seen in clients, what is inferred.
        media_types: the types that the picture may have.
        example: the page's own sample body.
    """

    slug: ClassVar[str]
    summary: ClassVar[str]
    sources: ClassVar[str]
    media_types: ClassVar[tuple[str, ...]] = ("image/jpeg",)
    example: ClassVar[Mapping[str, object]]

    @abstractmethod
    def delivery(self) -> Delivery: ...

    def sent_pictures(self) -> Mapping[str, str | bytes]:
        """The caller's pictures as they came, by the names of their fields."""
        return {}

    def validate_names(self, manifest: Manifest) -> None:
        """Look whether this server has what the page draws with, before any picture is fetched.

        Raises:
            NotFound: the manifest lacks it.
        """

    def warnings(self, manifest: Manifest) -> Sequence[str]:
        """Sentences for the caller: what was sent and has no effect here."""
        return ()

    @abstractmethod
    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> PictureRequest:
        """The request that the fields ask for, in canonical names and with explicit seeds.

        It blocks while it resizes a picture.

        Args:
            manifest: what this server draws with; the names in it were validated.
            pictures: those of `sent_pictures`, in their own sizes.
        Raises:
            FieldError: the pictures are too large, or do not go together.
        """


def delivery_warnings(fields: Page, format_field: str, quality_field: str) -> list[str]:
    """Sentences on what was sent and does not matter to the way of the pictures.

    Args:
        format_field, quality_field: the names of the fields that choose a format and its quality.
    """
    delivery, sent = fields.delivery(), fields.model_fields_set
    asked = getattr(fields, format_field)
    found: list[str] = []
    if format_field in sent and delivery.as_json and asked != delivery.picture_format:
        found.append(f"{format_field}: has no effect beside base64, whose pictures are PNGs")
    if quality_field in sent and delivery.picture_format == "png":
        found.append(f"{quality_field}: has no effect on a PNG")
    return found


def json_or_jpeg(as_json: bool) -> Delivery:
    """The delivery that ``base64`` chooses: PNGs in JSON, or a JPEG."""
    return PNG_IN_JSON if as_json else Delivery("jpeg")
