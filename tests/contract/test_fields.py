"""The lenient field types: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Literal

import pytest
from pydantic import AliasChoices, Field, ValidationError

from server.endpoints.body import MOST_VALUES, json_object
from server.endpoints.fields import (
    LARGEST_SEED,
    Fields,
    Flag,
    Number,
    PictureField,
    Seed,
    Text,
    WholeNumber,
    field_errors,
    read,
    seeds,
    whole_number,
)
from server.errors import FieldError, MalformedBody, MissingField, NotInEnum


class Form(Fields):
    prompt: Text
    samples: WholeNumber = Field(1, ge=1, le=4)
    side: Annotated[Literal[512, 768], whole_number] = 512
    scale: Number = Field(7.5, ge=0.1, le=25)
    seed: Seed = -1
    flag: Flag = False
    kind: Literal["DDIM", "Euler a"] = "DDIM"
    steps: WholeNumber = Field(20, ge=1, validation_alias=AliasChoices("num_inference_steps", "steps"))
    width: Annotated[int, Field(ge=8, le=64, multiple_of=8), whole_number] | None = None
    image: PictureField | None = None


def parsed(**body: object) -> Form:
    return read(Form, {"prompt": "a cat", **body})


def refusal(**body: object) -> FieldError:
    with pytest.raises(FieldError) as raised:
        parsed(**body)
    return raised.value


@pytest.mark.parametrize("three", [3, 3.0, "3", " 3 ", "3.0", "+3", "03"])
def test_a_whole_number_is_accepted_in_every_notation(three: object) -> None:
    assert parsed(samples=three).samples == 3


@pytest.mark.parametrize(
    "junk",
    [
        1.5,
        "1.5",
        math.nan,
        math.inf,
        "nan",
        "inf",
        True,
        False,
        "true",
        "three",
        "1e0",
        "0x1",
        "١",
        [1],
        {},
        " ",
    ],
)
def test_what_is_not_a_whole_number_is_refused(junk: object) -> None:
    assert str(refusal(samples=junk)) == "samples: must be a whole number"


@pytest.mark.parametrize("number", [0, 5, -1, "0", "5", 10**30, "9" * 40])
def test_a_whole_number_out_of_range_is_refused_with_the_range(number: object) -> None:
    assert str(refusal(samples=number)) == "samples: must be between 1 and 4"


def test_digits_without_end_are_refused_as_no_number() -> None:
    assert str(refusal(samples="9" * 10_000)) == "samples: must be a whole number"


@pytest.mark.parametrize("number", [2.5, "2.5", "2.50", "25e-1", "+2.5"])
def test_a_decimal_number_is_accepted_in_every_notation(number: object) -> None:
    assert parsed(scale=number).scale == 2.5


def test_a_whole_number_is_a_decimal_number_too() -> None:
    assert parsed(scale=3).scale == 3.0
    assert parsed(scale="3").scale == 3.0


@pytest.mark.parametrize(
    "junk", [math.nan, math.inf, "nan", "-inf", "1e999", 10**400, True, "x", [2.5], "1_0"]
)
def test_what_is_not_a_decimal_number_is_refused(junk: object) -> None:
    assert str(refusal(scale=junk)) == "scale: must be a number"


@pytest.mark.parametrize("number", [0.09, 25.01, "0", -3])
def test_a_decimal_number_out_of_range_is_refused_with_the_range(number: object) -> None:
    assert str(refusal(scale=number)) == "scale: must be between 0.1 and 25"


@pytest.mark.parametrize("yes", [True, 1, 1.0, "true", "True", "TRUE", "yes", "Yes", "y", "on", "1", " yes "])
def test_a_flag_is_set_by_every_word_for_yes(yes: object) -> None:
    assert parsed(flag=yes).flag is True


@pytest.mark.parametrize("no", [False, 0, 0.0, "false", "False", "no", "No", "n", "off", "0"])
def test_a_flag_is_unset_by_every_word_for_no(no: object) -> None:
    assert read(Form, {"prompt": "x", "flag": no}).flag is False


@pytest.mark.parametrize("junk", [2, -1, 0.5, "maybe", "2", [True]])
def test_what_is_not_a_flag_is_refused(junk: object) -> None:
    assert str(refusal(flag=junk)) == "flag: must be true or false"


@pytest.mark.parametrize("nothing", [None, ""])
def test_nothing_means_the_default(nothing: object) -> None:
    names = ("samples", "side", "scale", "seed", "flag", "kind", "num_inference_steps", "width", "image")
    assert parsed(**dict.fromkeys(names, nothing)) == parsed()


@pytest.mark.parametrize("body", [{}, {"prompt": None}, {"prompt": ""}])
def test_a_required_field_that_is_nothing_is_missing(body: dict[str, object]) -> None:
    with pytest.raises(MissingField, match=r"^prompt: field is required$"):
        read(Form, body)


def test_unknown_keys_are_ignored() -> None:
    assert parsed(style="anime", negativePrompt=["x"], **{"\ud800": 1}) == parsed()


@pytest.mark.parametrize("other", ["ddim", "Euler", 5, True, [], {}, "\ud800"])
def test_a_value_outside_an_enumeration_is_refused_with_the_list(other: object) -> None:
    error = refusal(kind=other)
    assert isinstance(error, NotInEnum)
    assert (error.status, str(error)) == (406, "kind: must be one of DDIM, Euler a")


def test_a_number_outside_an_enumeration_of_numbers_is_refused_with_the_list() -> None:
    assert parsed(side="768").side == 768
    assert str(refusal(side=513)) == "side: must be one of 512, 768"
    assert refusal(side=513).status == 406
    assert refusal(side="wide").status == 400


def test_an_alias_is_read_and_named_in_its_error() -> None:
    assert parsed(steps="7").steps == 7
    assert str(refusal(steps=0)) == "steps: must be at least 1"
    assert str(refusal(num_inference_steps=0)) == "num_inference_steps: must be at least 1"


def test_an_optional_number_keeps_its_limits() -> None:
    assert parsed(width="16").width == 16
    assert str(refusal(width=128)) == "width: must be between 8 and 64"
    assert str(refusal(width=12)) == "width: must be divisible by 8"


@pytest.mark.parametrize("junk", [5, ["a"], {"a": 1}, True, b"bytes"])
def test_a_prompt_that_is_no_text_is_refused(junk: object) -> None:
    assert str(refusal(prompt=junk)) == "prompt: must be text"


def test_a_prompt_that_no_database_can_hold_is_refused() -> None:
    assert str(refusal(prompt="a\0b")) == "prompt: must not contain NUL characters"
    assert str(refusal(prompt="a\ud83db")) == "prompt: must be valid Unicode"


def test_prompts_are_bounded_in_length() -> None:
    assert parsed(prompt="雪" * 10_000).prompt == "雪" * 10_000
    assert str(refusal(prompt="x" * 10_001)) == "prompt: must be at most 10000 characters long"


def test_a_picture_is_text_or_bytes_as_they_came() -> None:
    assert parsed(image="data:image/png;base64,AAAA").image == "data:image/png;base64,AAAA"
    assert parsed(image=b"\xff\xd8").image == b"\xff\xd8"
    assert str(refusal(image=7)) == "image: must be base64 text, a URL or a file"


def test_every_wrong_field_is_listed_in_the_order_of_the_page() -> None:
    with pytest.raises(ValidationError) as raised:
        Form.model_validate({"samples": 9, "scale": "x", "kind": "?"})
    assert [str(error) for error in field_errors(Form, raised.value)] == [
        "prompt: field is required",
        "samples: must be between 1 and 4",
        "scale: must be a number",
        "kind: must be one of DDIM, Euler a",
    ]


@pytest.mark.parametrize("seed", [0, 1, 98877465625, LARGEST_SEED, str(LARGEST_SEED)])
def test_a_seed_is_64_bits_wide(seed: object) -> None:
    assert seeds(parsed(seed=seed).seed, 1) == (int(str(seed)),)


@pytest.mark.parametrize("seed", [-2, LARGEST_SEED + 1, "-2"])
def test_other_seeds_are_refused(seed: object) -> None:
    assert str(refusal(seed=seed)) == f"seed: must be between -1 and {LARGEST_SEED}"


def test_several_samples_use_successive_seeds_around_the_end_of_the_range() -> None:
    assert seeds(7, 3) == (7, 8, 9)
    assert seeds(LARGEST_SEED, 3) == (LARGEST_SEED, 0, 1)


@pytest.mark.parametrize("nothing", [-1, "-1", None, ""])
def test_a_seed_that_is_not_given_is_random(nothing: object) -> None:
    drawn = {seeds(parsed(seed=nothing).seed, 2) for _ in range(20)}
    assert len(drawn) == 20
    assert all(first >= 0 and second == first + 1 for first, second in drawn)


def test_the_schema_shows_limits_and_choices() -> None:
    properties = Form.model_json_schema()["properties"]
    assert (properties["samples"]["minimum"], properties["samples"]["maximum"]) == (1, 4)
    assert (properties["scale"]["minimum"], properties["scale"]["maximum"]) == (0.1, 25)
    assert (properties["seed"]["minimum"], properties["seed"]["maximum"]) == (-1, LARGEST_SEED)
    assert properties["side"]["enum"] == [512, 768]
    assert properties["kind"]["enum"] == ["DDIM", "Euler a"]
    assert properties["prompt"]["maxLength"] == 10_000
    assert properties["flag"]["type"] == "boolean"


def test_a_body_may_have_many_values_but_not_millions() -> None:
    def body(values: int) -> bytes:
        return json.dumps({str(number): number for number in range(values)}).encode()

    assert len(json_object(body(MOST_VALUES))) == MOST_VALUES
    refusal = f"^body: must have at most {MOST_VALUES} commas and brackets$"
    for too_many in (
        body(MOST_VALUES + 1),
        b'{"a": [' + b"[]," * (MOST_VALUES // 2) + b"[]]}",
        b'{"a": [' + b"{}," * (MOST_VALUES // 2) + b"{}]}",
    ):
        with pytest.raises(MalformedBody, match=refusal):
            json_object(too_many)


def test_what_is_refused_as_too_many_values_is_not_parsed_first() -> None:
    millions = b"{" + b",".join(b'"%x":1' % number for number in range(1_000_000)) + b"}"

    def seconds_of(work: Callable[[bytes], object]) -> float:
        began = time.thread_time()
        with suppress(MalformedBody):
            work(millions)
        return time.thread_time() - began

    assert 5 * seconds_of(json_object) < seconds_of(json.loads)


def test_long_texts_are_not_many_values() -> None:
    said = {"image": "A" * 20_000_000, "prompt": "[a], {b}, " * 1000}
    assert json_object(json.dumps(said).encode()) == said


def test_a_json_object_is_read_in_every_unicode_encoding() -> None:
    said = {"prompt": "雪"}
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert json_object(json.dumps(said, ensure_ascii=False).encode(encoding)) == said


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nope", b'{"a": }', b"\xff\xfe\x00", b"[" * MOST_VALUES, b'{"a": ' + b"9" * 10_000 + b"}"],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody, match=r"^body: must be valid JSON$"):
        json_object(body)


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"text"'])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody, match=r"^body: must be a JSON object$"):
        json_object(body)
