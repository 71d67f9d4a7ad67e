"""The vendor's path families: under which paths each operation answers, and what differs there.

The table below has no field of its own: a path leads to a page, and a family names the defaults and limits in
which its documentation differs from the page's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, NamedTuple

from annotated_types import Le
from fastapi import Request
from pydantic import Field, create_model

from server.endpoints.enterprise.wire import PREFIX, Operation, OperationT

_SAME = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What the documentation of a family says otherwise about one field.

    Attributes:
        default: the field's default there.
        most: the largest number that may be sent there; None: the same as on the page.
        description: the field's words in /docs; None: the same as on the page.
    """

    default: object = _SAME
    most: int | None = None
    description: str | None = None


Differences = Mapping[str, Mapping[str, Difference]]
"""Differences by the operation's slug and the field's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFamily:
    """Paths below one prefix.

    Attributes:
        name: the family's tag in /docs.
        prefix: the part that its paths begin with.
        operations: the path below the prefix -> the operation's slug; None: every operation of the enterprise
            documentation under its own name.
        differences: what is documented otherwise here.
        source: where the paths are from: documented, seen in a client, or inferred.
        shown: whether /docs shows the paths.
        lists: whether an enlarged picture is answered as every other, in a list of one URL.
    """

    name: str
    prefix: str
    operations: Mapping[str, str] | None = None
    differences: Differences = field(default_factory=dict[str, Mapping[str, Difference]])
    source: str
    shown: bool = True
    lists: bool = False


def _same(*slugs: str) -> dict[str, str]:
    """Paths that are called as their operations are."""
    return {slug: slug for slug in slugs}


def _each(slugs: tuple[str, ...], **differences: Difference) -> dict[str, Mapping[str, Difference]]:
    return dict.fromkeys(slugs, differences)


ELSEWHERE = ("model_list", "base64_crop", "base64_to_url")
"""The operations that the enterprise documentation does not have."""

DRAWING = ("text2img", "img2img", "inpaint")
FETCH = {"fetch": "fetch", "fetch/{id}": "fetch"}
UPKEEP = _same("system_details", "restart_server", "update_server", "update", "clear_cache", "clear_queue")

NO, YES = Difference(default=False), Difference(default=True)

DEFAULT_CHECKPOINT = Difference(
    default="",
    description="Not documented here: without it, the first checkpoint of this server's manifest that is"
    " loaded at the start, else the first one.",
)

SENSITIVE = Difference(default="sensitive_content_text")

REALTIME: Differences = _each(
    DRAWING,
    model_id=DEFAULT_CHECKPOINT,
    # How few is not documented; the server's default scheduler needs about these for a whole picture.
    num_inference_steps=Difference(default=8),
    safety_checker=NO,
    enhance_prompt=NO,
)
"""Documented in the OpenAPI file of the realtime pages, but for the number of steps."""

CONTROLNET_V5: Differences = {
    "controlnet": {
        "auto_hint": YES,
        "num_inference_steps": Difference(default=30),
        "safety_checker": NO,
        "strength": Difference(default=0.55),
    }
}
"""Documented in the OpenAPI file of ControlNet Main."""

COMMUNITY: Differences = {
    **_each(DRAWING, safety_checker=NO, safety_checker_type=SENSITIVE, clip_skip=Difference(default=2)),
    **CONTROLNET_V5,
}
"""Documented in the OpenAPI file of the community models. Its steps are 31 by default, capped at 20."""

DREAMBOOTH: Differences = _each(DRAWING, safety_checker_type=SENSITIVE)
"""Documented on the pages of Dreambooth V4."""

V3: Differences = _each(DRAWING, model_id=DEFAULT_CHECKPOINT, num_inference_steps=Difference(most=51))
"""Documented on the V3 pages: no model_id; 21, 31, 41 or 51 steps, while their samples send 20 and 30."""

_DREAMBOOTH_PATHS = {
    "": "text2img",
    **_same("img2img", "inpaint", "model_list"),
    **FETCH,
    "model_reload": "verify_model",
}

FAMILIES = (
    PathFamily(name="enterprise", prefix=PREFIX, source="documented"),
    PathFamily(name="enterprise", prefix=f"{PREFIX}/images", source="seen in a client", shown=False),
    PathFamily(name="enterprise", prefix=f"{PREFIX}/images/text2img", source="seen in a client", shown=False),
    PathFamily(
        name="enterprise",
        prefix=f"{PREFIX}/image_editing",
        lists=True,
        differences=_each(("inpaint",), model_id=DEFAULT_CHECKPOINT),
        source="seen in a client",
        shown=False,
    ),
    PathFamily(name="enterprise", prefix=f"{PREFIX}/community", source="seen in a client", shown=False),
    PathFamily(name="enterprise", prefix=f"{PREFIX}/txt2img", source="seen in a client", shown=False),
    PathFamily(
        name="realtime",
        prefix=f"{PREFIX}/realtime",
        operations={**_same(*DRAWING), **FETCH, **UPKEEP},
        differences=REALTIME,
        source="documented",
        shown=False,
    ),
    PathFamily(
        name="enterprise",
        prefix=f"{PREFIX}/super_resolution",
        operations={"make": "super_resolution", **FETCH, **UPKEEP},
        source="documented",
        shown=False,
    ),
    PathFamily(
        name="v6",
        prefix="/api/v6/images",
        operations={**_same(*DRAWING, "controlnet"), **FETCH, "model_reload": "verify_model"},
        differences=COMMUNITY,
        source="documented; controlnet seen in a client",
    ),
    PathFamily(
        name="v6",
        prefix="/api/v6/images/text2img",
        operations={**_same(*DRAWING, "controlnet"), **FETCH},
        differences=COMMUNITY,
        source="seen in a client",
        shown=False,
    ),
    PathFamily(
        name="v6",
        prefix="/api/v7/images",
        operations={"text-to-image": "text2img", "image-to-image": "img2img", **_same("inpaint"), **FETCH},
        differences=COMMUNITY,
        source="seen in a client, whose defaults are inferred from v6",
        shown=False,
    ),
    PathFamily(
        name="v6",
        prefix="/api/v6",
        operations={**_same("controlnet", "base64_to_url"), **FETCH},
        differences=CONTROLNET_V5,
        source="seen in a client; base64_to_url documented; fetch inferred",
    ),
    PathFamily(
        name="v6",
        prefix="/api/v6/image_editing",
        operations={**_same("super_resolution", "inpaint", "base64_to_url"), **FETCH},
        lists=True,
        differences={
            "super_resolution": {"scale": Difference(default=3)},
            "inpaint": {
                "model_id": DEFAULT_CHECKPOINT,
                "num_inference_steps": Difference(default=30),
                "guidance_scale": Difference(default=5.0),
                "safety_checker": NO,
            },
        },
        source="documented",
    ),
    PathFamily(
        name="realtime",
        prefix="/api/v6/realtime",
        operations={**_same(*DRAWING), **FETCH},
        differences=REALTIME,
        source="documented",
    ),
    PathFamily(
        name="v5",
        prefix="/api/v5",
        operations={**_same("controlnet", "super_resolution"), **FETCH},
        differences=CONTROLNET_V5,
        source="documented; fetch inferred",
    ),
    PathFamily(
        name="dreambooth",
        prefix="/api/v4/dreambooth",
        operations=_DREAMBOOTH_PATHS,
        differences=DREAMBOOTH,
        source="documented",
    ),
    PathFamily(
        name="dreambooth",
        prefix="/api/v3/dreambooth",
        operations=_DREAMBOOTH_PATHS,
        differences=DREAMBOOTH,
        source="documented",
    ),
    PathFamily(
        name="v3",
        prefix="/api/v3",
        operations={
            **_same(*DRAWING, "super_resolution", "base64_crop", "nsfw_image_check", "load_model"),
            **FETCH,
            "system_load": "system_details",
        },
        differences=V3,
        source="documented; super_resolution seen in a client",
    ),
)
"""All path families; a caller is told to fetch in the one that it has called."""

TAGS = (
    (
        "enterprise",
        "The dedicated server of stablediffusionapi.com / ModelsLab, as its documentation has it.",
    ),
    ("v6", "The vendor's present paths for community models and picture tools, over the same pages."),
    ("realtime", "Text and picture to picture with the default checkpoint, at few steps."),
    ("v5", "ControlNet and enlarging, over the same pages."),
    ("dreambooth", "The community models of v3 and v4, over the same pages."),
    ("v3", "The vendor's first paths, which name no checkpoint, over the same pages."),
)
"""The families' tags in /docs, each with its description."""


class Route(NamedTuple, Generic[OperationT]):
    """A path of an operation, with the fields as this family documents them."""

    path: str
    family: PathFamily
    operation: type[OperationT]


def routes_of(operation: type[OperationT]) -> Iterator[Route[OperationT]]:
    """Every path of an operation, the enterprise documentation's own first."""
    for family in FAMILIES:
        for name in _names(family, operation):
            path = f"{family.prefix}/{name}" if name else family.prefix
            yield Route(path, family, differing(operation, family))


def family_of(path: str) -> PathFamily:
    """The family that a path belongs to: the one with the longest prefix of it."""
    belongs = [
        each
        for each in FAMILIES
        if path.startswith(f"{each.prefix}/") or (path == each.prefix and "" in (each.operations or {}))
    ]
    return max(belongs, key=lambda family: len(family.prefix), default=FAMILIES[0])


def fetch_path(request: Request, job_id: int) -> str:
    """The path under which the caller of this request, in the same family, gets what has been drawn later."""
    return f"{family_of(request.url.path).prefix}/fetch/{job_id}"


def differing(operation: type[OperationT], family: PathFamily) -> type[OperationT]:
    """The operation's fields with the defaults and limits of a family; the same class where none differ."""
    differences = family.differences.get(operation.slug, {})
    if not differences:
        return operation
    fields: dict[str, Any] = {
        name: _declared_otherwise(operation, name, difference) for name, difference in differences.items()
    }
    # A name of its own: documents and generated clients call the body's schema so.
    words = re.findall(r"[a-z0-9]+", family.prefix.removeprefix("/api"))
    name = "".join(word.capitalize() for word in words) + operation.__name__
    created = create_model(name, __base__=operation, __module__=__name__, **fields)
    if differences.get("model_id") is DEFAULT_CHECKPOINT:
        created.example = {name: value for name, value in operation.example.items() if name != "model_id"}
    return created


def _names(family: PathFamily, operation: type[Operation]) -> list[str]:
    """The operation's paths below the family's prefix."""
    if family.operations is not None:
        return [name for name, slug in family.operations.items() if slug == operation.slug]
    return [] if operation.slug in ELSEWHERE else [operation.slug, *operation.also]


def _declared_otherwise(operation: type[Operation], name: str, difference: Difference) -> tuple[Any, Any]:
    declared = operation.model_fields[name].asdict()
    attributes: dict[str, Any] = dict(declared["attributes"])
    metadata = list(declared["metadata"])
    if difference.default is not _SAME:
        attributes["default"] = difference.default
    if difference.description is not None:
        attributes["description"] = difference.description
    if difference.most is not None:
        metadata = [item for item in metadata if not isinstance(item, Le)]
        attributes["le"] = difference.most
    annotation: Any = declared["annotation"]
    if metadata:
        annotation = Annotated[(annotation, *metadata)]
    return annotation, Field(**attributes)
