"""What a parameter can lead to: in what the engine or the loader is asked for, in the answer, in webhooks."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from io import BytesIO
from typing import Any

from PIL import Image

from pipelines.image_io import RGBImage
from pipelines.request import Rewriting
from server.errors import NotFound
from server.storage import open_storage
from tests.contract.parameters.stage import Outcome


class Special(Enum):
    """Words in a table that stand for something else.

    Attributes:
        nothing: the parameter is not sent; or what is looked for is not there.
        sent: the value that was sent.
    """

    nothing = auto()
    sent = auto()


NOTHING, SENT = Special.nothing, Special.sent


@dataclass(frozen=True, slots=True)
class Effect:
    """Values that have to be found, by name, at one place of an outcome."""

    place: Callable[[Outcome], Mapping[str, Any]]
    values: Mapping[str, object]

    def expected(self, sent: object) -> dict[str, object]:
        """The values, with what was sent in the place of `SENT`."""
        return {name: sent if value is SENT else value for name, value in self.values.items()}

    def found_in(self, outcome: Outcome) -> dict[str, object]:
        """What the outcome has under the same names."""
        place = self.place(outcome)
        return {name: place.get(name, NOTHING) for name in self.values}


def drawn(**fields: object) -> Effect:
    """The engine is asked for pictures with these fields, in the words of `pipelines.request`.

    A picture in them is `shown`: only its size and its first pixel are looked at.
    """
    return Effect(_request, fields)


def drawings(count: int) -> Effect:
    """The engine is asked so many times."""
    return Effect(lambda outcome: {"drawings": len(outcome.requests)}, {"drawings": count})


def answer(**fields: object) -> Effect:
    """The answer is JSON with these fields."""
    return Effect(_json, fields)


def warned(*texts: str) -> Effect:
    """The answer warns of exactly this in its header."""

    def found(outcome: Outcome) -> dict[str, object]:
        return {"warnings": json.loads(outcome.answer.headers.get("x-warnings", "[]"))}

    return Effect(found, {"warnings": [*texts]})


def refusal(parameter: str, problem: str) -> Effect:
    """The enterprise answer says that this is wrong with the parameter."""
    return answer(status="error", message={parameter: [f"{parameter} {problem}"]})


def names_models(*names: str) -> Effect:
    """The answer is a bare list that has these models, each ready."""
    return Effect(_models, dict.fromkeys(names, "model_ready"))


def status(code: int) -> Effect:
    """The answer has this HTTP status."""
    return Effect(lambda outcome: {"status": outcome.answer.status_code}, {"status": code})


def picture(**qualities: object) -> Effect:
    """The first picture of the answer, or the one that its first URL leads to, has these qualities.

    ``format`` and ``size`` are Pillow's, ``colour`` is that of the first pixel, ``quantizer`` is the first
    number of a JPEG's first table, ``content_type`` is what it is served as.
    """
    return Effect(_picture, qualities)


def outputs(count: int) -> Effect:
    """The answer has so many pictures, or URLs of pictures."""
    return Effect(lambda outcome: {"outputs": len(_outputs(outcome))}, {"outputs": count})


def kept_for_two_days(kept: bool) -> Effect:
    """Whether the first output can still be opened when two days have gone by."""
    return Effect(_after_two_days, {"kept": kept})


def announced(**payload: object) -> Effect:
    """A webhook is recorded, with its ``url`` or with these fields of its payload."""
    return Effect(lambda outcome: outcome.announced[-1] if outcome.announced else {}, payload)


def wanted(**arguments: object) -> Effect:
    """The loader is asked with these arguments."""
    return Effect(lambda outcome: outcome.wanted[-1] if outcome.wanted else {}, arguments)


def thrown_away(problem: str) -> Effect:
    """What came is not loaded, for this reason."""
    return Effect(lambda outcome: {"problem": outcome.problem}, {"problem": problem})


def shown(colour: tuple[int, int, int], width: int, height: int) -> RGBImage:
    """A picture in one colour, as it stands in what the engine was asked for."""
    return RGBImage(width, height, bytes(colour))


def sent_picture(
    colour: tuple[int, int, int], file_format: str = "PNG", size: tuple[int, int] = (8, 8)
) -> str:
    """A picture in one colour, as base64."""
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, file_format)
    return base64.b64encode(file.getvalue()).decode()


def _request(outcome: Outcome) -> dict[str, Any]:
    asked = [request for request in outcome.requests if not isinstance(request, Rewriting)]
    if not asked:
        return {}
    return {name: getattr(asked[-1], name) for name in type(asked[-1]).__dataclass_fields__}


def _json(outcome: Outcome) -> dict[str, Any]:
    if "json" not in outcome.answer.headers.get("content-type", ""):
        return {}
    said = outcome.answer.json()
    return {"list": said} if isinstance(said, list) else said


def _models(outcome: Outcome) -> dict[str, Any]:
    return {each["model_id"]: each["status"] for each in _json(outcome).get("list", [])}


def _picture(outcome: Outcome) -> dict[str, Any]:
    found = next(iter(_outputs(outcome)), None)
    if found is None:
        return {}
    content_type, data = found
    if content_type == "text/plain":
        data = base64.b64decode(data)
    opened = Image.open(BytesIO(data))
    tables: Mapping[int, list[int]] = getattr(opened, "quantization", {})
    return {
        "format": opened.format,
        "size": opened.size,
        "colour": opened.convert("RGB").getpixel((0, 0)),
        "quantizer": tables[0][0] if tables else NOTHING,
        "content_type": content_type,
    }


def _outputs(outcome: Outcome) -> list[tuple[str, bytes]]:
    """Content type and bytes of every picture of an answer; none of a refusal."""
    answered = outcome.answer
    content_type = answered.headers.get("content-type", "").partition(";")[0]
    if answered.status_code == 200 and content_type.startswith("image/"):
        return [(content_type, answered.content)]
    said = _json(outcome)
    if said.get("status") == "Success":
        texts = said["image"] if isinstance(said["image"], list) else [said["image"]]
        return [("application/json", base64.b64decode(text)) for text in texts]
    stored = [outcome.stage.stored(url) for url in _urls(said)]
    return [(found.headers["content-type"].partition(";")[0], found.content) for found in stored]


def _urls(said: Mapping[str, Any]) -> Iterator[str]:
    """The URLs of outputs, under all the names that answers have for them."""
    for name in ("output", "images", "image_url", "link", "file_urls"):
        urls = said.get(name, [])
        yield from [urls] if isinstance(urls, str) else urls


def _after_two_days(outcome: Outcome) -> dict[str, bool]:
    stage = outcome.stage
    later = open_storage(stage.services.settings, clock=lambda: datetime.now(UTC) + timedelta(days=2))
    url = next(_urls(_json(outcome)))
    try:
        stage.run(later.get, url.rpartition("/")[2])
    except NotFound:
        return {"kept": False}
    return {"kept": True}
