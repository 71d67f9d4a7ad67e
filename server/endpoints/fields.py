"""Field types of both dialects: every notation that clients use, limits declared once and shown in /docs."""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from server.errors import FieldError, MissingField, NotInEnum

LARGEST_SEED = 2**64 - 1
RANDOM_SEED = -1
LONGEST_PROMPT = 10_000
_WHOLE = re.compile(r"([+-]?[0-9]{1,40})(\.0{0,40})?", re.ASCII)
_DECIMAL = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?", re.ASCII)
_TRUE = frozenset({"true", "1", "yes", "y", "on"})
_FALSE = frozenset({"false", "0", "no", "n", "off"})


def _whole_number(value: object) -> int:
    match value:
        case bool():
            pass
        case int():
            return value
        case float() if value.is_integer():
            return int(value)
        case str() if found := _WHOLE.fullmatch(value.strip()):
            return int(found[1])
        case _:
            pass
    raise PydanticCustomError("whole_number", "must be a whole number")


def _number(value: object) -> float:
    number = math.nan
    match value:
        case bool():
            pass
        case int():
            # Beyond what a float holds: infinite, hence refused below like every other infinity.
            number = float(value) if abs(value) < 10**300 else math.inf
        case float():
            number = value
        case str() if _DECIMAL.fullmatch(value.strip()):
            number = float(value)
        case _:
            pass
    if not math.isfinite(number):
        raise PydanticCustomError("number", "must be a number")
    return number


def _flag(value: object) -> bool:
    match value:
        case bool():
            return value
        case int() | float() if value in (0, 1):
            return value == 1
        case str() if (word := value.strip().lower()) in _TRUE | _FALSE:
            return word in _TRUE
        case _:
            raise PydanticCustomError("flag", "must be true or false")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("text", "must be text")
    # Neither PostgreSQL nor the text chunk of a PNG can hold these.
    if "\0" in value:
        raise PydanticCustomError("text", "must not contain NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("text", "must be valid Unicode") from None
    return value


def _picture(value: object) -> str | bytes:
    # Clients of pages that take several pictures send a list here too.
    if isinstance(value, list):
        pictures = cast("list[object]", value)
        if len(pictures) > 1:
            raise PydanticCustomError("picture", "must be one picture, not a list of several")
        value = pictures[0] if pictures else None
    if not isinstance(value, str | bytes):
        raise PydanticCustomError("picture", "must be base64 text, a URL or a file")
    return value


WholeNumber = Annotated[int, BeforeValidator(_whole_number)]
"""A whole number: 1, "1", 1.0 or "1.0". Limits come with ``Field(ge=..., le=..., multiple_of=...)``."""
Number = Annotated[float, BeforeValidator(_number)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Text = Annotated[str, Field(max_length=LONGEST_PROMPT), BeforeValidator(_text)]
Seed = Annotated[int, Field(ge=RANDOM_SEED, le=LARGEST_SEED), BeforeValidator(_whole_number)]
"""A seed, where -1 is random; `seeds` turns it into the numbers that are really used."""
_TAKES_PICTURES = BeforeValidator(_picture)
PictureField = Annotated[
    str | bytes,
    _TAKES_PICTURES,
    WithJsonSchema({"type": "string", "contentMediaType": "image/*"}),
]
"""A picture as it came, not looked into yet: text (base64, data URI or URL), or the bytes of a file."""

whole_number = BeforeValidator(_whole_number)
"""The validator of whole numbers, for enumerations, ``Annotated[Literal[512, 768], whole_number]``, and for
optional numbers with limits, ``Annotated[int, Field(ge=1, le=8), whole_number] | None``."""
number = BeforeValidator(_number)
"""The validator of decimal numbers, for the same uses."""


class Fields(BaseModel):
    """The fields of one page. Unknown keys are ignored; null, "" and an absent key mean the default."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_absent(cls, body: Mapping[str, object]) -> dict[str, object]:
        return {name: value for name, value in body.items() if value is not None and value != ""}


F = TypeVar("F", bound=Fields)


def read(model: type[F], body: Mapping[str, object]) -> F:
    """Validate a body against a page.

    Raises:
        FieldError: the first thing that is wrong, in the caller's words.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise field_errors(model, error)[0] from None


def field_errors(model: type[Fields], error: ValidationError) -> list[FieldError]:
    """The errors of all fields that are wrong, in the caller's words and in the order of the page."""
    details = error.errors(include_url=False, include_input=False)
    return [_field_error(model, detail) for detail in details]


def seeds(seed: int, count: int) -> tuple[int, ...]:
    """One seed per picture: the given one and its successors, or random ones when it is -1."""
    # 32 bits: exact in every client's number type and short enough to type in again.
    first = secrets.randbits(32) if seed == RANDOM_SEED else seed
    return tuple((first + index) % (LARGEST_SEED + 1) for index in range(count))


def body_digest(fields: Fields, slug: str | None = None) -> str:
    """The SHA-256 of what a body means, before random seeds are drawn and without the API key in it.

    It takes milliseconds where there are pictures among the fields. It is stored with idempotency keys: were
    it made in another way, a retry would not find the answer that an earlier version gave.

    Args:
        slug: the page, where several pages take the same fields.
    """
    said = sorted(fields.model_dump(exclude={"key"}).items())
    return hashlib.sha256(repr(said if slug is None else (slug, said)).encode()).hexdigest()


@cache
def picture_names(model: type[Fields]) -> frozenset[str]:
    """The wire's names of the fields of a page that hold a picture."""
    return frozenset(
        name
        for own_name, info in model.model_fields.items()
        if _TAKES_PICTURES in (*info.metadata, *_optional(info))
        for name in (own_name, *_also(info))
    )


def _field_error(model: type[Fields], detail: ErrorDetails) -> FieldError:
    name = str(detail["loc"][0])
    context = detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return MissingField(name)
        case "literal_error" | "string_unicode":
            return NotInEnum(name, f"must be one of {_listed(_choices(_declared(model, name).annotation))}")
        case "greater_than_equal" | "less_than_equal":
            return FieldError(name, _between(_declared(model, name)))
        case "multiple_of":
            return FieldError(name, f"must be divisible by {context['multiple_of']:g}")
        case "string_too_long":
            return FieldError(name, f"must be at most {context['max_length']} characters long")
        case "value_error":
            return FieldError(name, str(context["error"]))
        case _:
            return FieldError(name, detail["msg"])


def _declared(model: type[Fields], wire_name: str) -> FieldInfo:
    for name, info in model.model_fields.items():
        if wire_name == name or wire_name in _also(info):
            return info
    raise LookupError(wire_name)


def _also(info: FieldInfo) -> list[str]:
    """The further names of a field on the wire."""
    alias = info.validation_alias
    names = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [name for name in names if isinstance(name, str)]


def _choices(annotation: Any) -> Iterable[object]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _listed(choices: Iterable[object]) -> str:
    return ", ".join(str(choice) for choice in choices)


def _limits(info: FieldInfo) -> Iterator[object]:
    """The limits of a field, given beside its default or inside an optional type."""
    yield from info.metadata
    yield from _optional(info)


def _optional(info: FieldInfo) -> Iterator[object]:
    """What is said of a field inside of its optional type."""
    for part in get_args(info.annotation):
        if get_origin(part) is Annotated:
            yield from FieldInfo.from_annotation(part).metadata


def _between(info: FieldInfo) -> str:
    lowest = [item.ge for item in _limits(info) if isinstance(item, Ge)]
    highest = [item.le for item in _limits(info) if isinstance(item, Le)]
    if lowest and highest:
        return f"must be between {lowest[0]} and {highest[0]}"
    return f"must be at least {lowest[0]}" if lowest else f"must be at most {highest[0]}"
