"""The schema that a sample answer stands for: what a page shows of its answers, as programs read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

Schema = dict[str, Any]

_SOMETIMES = frozenset({"warning", "track_id", "tips", "retry_after", "future_links", "nsfw"})
"""The names in answers that are there only where there is something to say."""


def schema_of(sample: object) -> Schema:
    """The schema of all answers like this one: each of its names is promised, and more may come.

    What is null in the sample may be anything.
    """
    match sample:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case float():
            return {"type": "number"}
        case str():
            return {"type": "string"}
        case list() | tuple():
            items = cast("list[object]", sample)
            return {"type": "array", "items": schema_of(items[0]) if items else {}}
        case Mapping():
            values = cast("Mapping[str, object]", sample)
            properties = {name: schema_of(value) for name, value in values.items()}
            if values.get("status") == "success":  # tells the answer from others; programs ask for it
                properties["status"] = {"type": "string", "enum": ["success"]}
            required = [name for name in values if name not in _SOMETIMES]
            return {
                "type": "object",
                "properties": properties,
                **({"required": required} if required else {}),
            }
        case _:
            return {}


def reference(name: str) -> Schema:
    """The reference to a schema of the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}
