"""The OpenAPI document, fit for programs that write clients: names, schemas, headers, keys.

The framework makes the document of the routes; this adds what follows from a route's place and from the
samples that it shows. So a new page has it all without a word of its own.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from fastapi import FastAPI

from server.endpoints.enterprise import families
from server.endpoints.enterprise import schemas as enterprise
from server.endpoints.enterprise.wire import PREFIX, ROOT
from server.endpoints.samples import Schema, reference, schema_of
from server.endpoints.segmind import schemas as segmind

JSON_TYPE = "application/json"

TAGS = [
    {
        "name": "segmind",
        "description": "The dialect of Segmind: `/v1/{slug}` answers with the picture, `/v2/{slug}` queues"
        ' and says where to ask. The key is in the header `x-api-key`; errors are `{"error": ...}`.',
    },
    {
        "name": "enterprise",
        "description": "The dialect of stablediffusionapi.com and ModelsLab: everything is POST, answers are"
        " JSON with the URLs of the pictures. The key is in the body's `key` or in a header. Unless the"
        " server is set otherwise, errors have the status 200 too: look at `status`. Every body may be a form"
        " too, in which a picture may be a file.",
    },
    *({"name": name, "description": text} for name, text in families.TAGS if name != "enterprise"),
    {
        "name": "administration",
        "description": "For administrators: what the server has and does. The key is in a header.",
    },
    {"name": "outputs", "description": "Stored pictures. They open without a key."},
    {"name": "health", "description": "For monitors: is the process up, can it draw, what has it done?"},
]
"""The groups of operations, in the order in which they are shown."""

HEADERS: Mapping[str, dict[str, Any]] = {
    "x-request-id": {
        "description": "The id of the call; the log has it too.",
        "schema": {"type": "string"},
    },
    "x-remaining-credits": {"description": "What is left on the account.", "schema": {"type": "number"}},
    "x-cost": {"description": "Credits that the call has cost.", "schema": {"type": "number"}},
    "x-generation-time": {"description": "Seconds of drawing.", "schema": {"type": "number"}},
    "x-seed-value": {
        "description": "The seed of each picture, with commas between them.",
        "schema": {"type": "string"},
    },
    "x-output-metadata": {
        "description": "JSON: height, width, samples, evaluations.",
        "schema": {"type": "string"},
    },
    "x-output-urls": {
        "description": "A JSON array of the URLs of all pictures, where there are several.",
        "schema": {"type": "string"},
    },
    "x-warnings": {"description": "What was not drawn as asked, if anything.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds after which to come back.", "schema": {"type": "integer"}},
    "x-rate-limit-reset-at-utc": {
        "description": "The moment after which to come back.",
        "schema": {"type": "string", "format": "date-time"},
    },
    "ETag": {
        "description": "These bytes, for If-None-Match and If-Range.",
        "schema": {"type": "string"},
    },
    "Content-Range": {"description": "Which part this is of how much.", "schema": {"type": "string"}},
}
"""The headers of answers."""

_PICTURE_HEADERS = (
    "x-cost", "x-generation-time", "x-seed-value", "x-output-metadata", "x-output-urls", "x-warnings",
)  # fmt: skip
_KEY_SCHEMES: Mapping[str, dict[str, str]] = {
    "BearerAuth": {"type": "http", "scheme": "bearer", "description": "The API key as a bearer token."},
    "KeyHeader": {"type": "apiKey", "in": "header", "name": "key", "description": "The API key."},
}
_HEADER_KEYS: list[dict[str, list[str]]] = [{"APIKeyHeader": []}, {"BearerAuth": []}, {"KeyHeader": []}]
_ENTERPRISE_KEYS: list[dict[str, list[str]]] = [*reversed(_HEADER_KEYS), {}]
"""The ways of a key to an operation of enterprise; the last one is the body's own field."""


class DocumentedAPI(FastAPI):
    """An application whose OpenAPI document programs can write clients from."""

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
        if self.openapi_schema is None:
            finish(super().openapi())
        assert self.openapi_schema is not None
        return self.openapi_schema


def finish(document: dict[str, Any]) -> None:
    """Complete the framework's document, in place."""
    components = document.setdefault("components", {})
    components["headers"] = {**HEADERS}
    components.setdefault("securitySchemes", {}).update(_KEY_SCHEMES)
    known: dict[str, Schema] = components.setdefault("schemas", {})
    known.update(enterprise.SCHEMAS)
    known.update(segmind.SCHEMAS)
    taken: set[str] = set()
    for path, method, operation in _operations(document):
        operation["operationId"] = _unused(operation_id(path), method, taken)
        if f"{path}/".startswith(ROOT):
            _finish_enterprise(path, operation, known)
        else:
            _finish_other(path, operation)
        for status, answer in operation["responses"].items():
            names = _headers(status, answer, operation)
            answer.setdefault("headers", {}).update(
                {name: {"$ref": f"#/components/headers/{name}"} for name in names}
            )


def operation_id(path: str) -> str:
    """The name of a path's operation, as programs name functions: ``/v1/kolors`` is kolors, ``fetch/{id}``
    fetch_by_id."""
    for prefix in (f"{PREFIX}/", ROOT, "/v1/", "/"):
        if path.startswith(prefix):
            path = path.removeprefix(prefix)
            break
    words = re.sub(r"{(?:\w+_)?(\w+)}", r"by_\1", path)
    name = re.sub(r"\W+", "_", words, flags=re.ASCII).strip("_").lower()
    return f"{name}_" if keyword.iskeyword(name) else name if name.isidentifier() else f"op_{name}"


def _unused(name: str, method: str, taken: set[str]) -> str:
    if name in taken:
        name = f"{method}_{name}"
    taken.add(name)
    return name


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _finish_enterprise(path: str, operation: dict[str, Any], known: dict[str, Schema]) -> None:
    operation["security"] = _ENTERPRISE_KEYS
    content = operation["responses"]["200"]["content"][JSON_TYPE]
    sample = content.get("examples", {}).get("success", {}).get("value", content.get("example"))
    name = "".join(word.capitalize() for word in operation["operationId"].split("_")) + "Answer"
    needed = enterprise.answer_schema(
        name,
        sample,
        may_be_processing=_draws(operation),
        fetches="/fetch" in path,
    )
    schema = deepcopy(needed[""])
    for own_name, own in needed.items():
        if own_name:
            _replace(schema, own_name, _add(known, own_name, own))
    content["schema"] = schema
    for status, answer in operation["responses"].items():
        if status != "200" and "content" in answer:
            answer["content"][JSON_TYPE]["schema"] = reference("EnterpriseError")
    # Some generators write broken code for several bodies without an optional parameter beside them.
    if _draws(operation):
        _add_forms(operation["requestBody"]["content"])


def _draws(operation: Mapping[str, Any]) -> bool:
    """Whether an operation is paid for, and may be answered before it is done."""
    return any(each["name"] == "Idempotency-Key" for each in operation.get("parameters", ()))


def _add(known: dict[str, Schema], name: str, schema: Schema) -> str:
    """Put a schema among the known ones, unless there is the same one; return the name it has there."""
    said = json.dumps(schema, sort_keys=True)
    same = (other for other in known if json.dumps(known[other], sort_keys=True) == said)
    found = next(same, name)
    known[found] = schema
    return found


def _replace(schema: Schema, name: str, found: str) -> None:
    schema["anyOf"] = [reference(found) if each == reference(name) else each for each in schema["anyOf"]]


def _add_forms(content: dict[str, Any]) -> None:
    """Show that a body may be a form too, in which a picture may be a file."""
    schema = content[JSON_TYPE]["schema"]
    file = deepcopy(schema)
    for field in file.get("properties", {}).values():
        if field.get("contentMediaType") == "image/*":
            field["format"] = "binary"
    content.setdefault("multipart/form-data", {"schema": file})
    content.setdefault("application/x-www-form-urlencoded", {"schema": schema})


def _finish_other(path: str, operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    if {"segmind", "administration"} & {*operation.get("tags", ())}:
        operation["security"] = _HEADER_KEYS
        if "requestBody" in operation:
            answers["415"] = {"description": "The body is compressed", "content": {JSON_TYPE: {}}}
    for status, answer in answers.items():
        content = answer.get("content", {}).get(JSON_TYPE)
        if content is None:
            continue
        if status == "422":
            content["schema"] = segmind.FAILED
        elif not status.startswith("2"):
            content["schema"] = reference("SegmindError") if _is_error(content) else content["schema"]
        else:
            said = segmind.answer_schema(path, content.get("example"))
            if said is not None:
                content["schema"] = said
            elif not content.get("schema"):
                content["schema"] = schema_of(content.get("example"))


def _is_error(content: Mapping[str, Any]) -> bool:
    return "schema" not in content or "error" in content["schema"].get("properties", {})


def _headers(status: str, answer: Mapping[str, Any], operation: Mapping[str, Any]) -> list[str]:
    names = ["x-request-id"]
    is_enterprise = operation.get("security") == _ENTERPRISE_KEYS
    if status != "401" and (is_enterprise or "segmind" in operation.get("tags", ())):
        names.append("x-remaining-credits")
    pictures = any(each.startswith("image/") for each in answer.get("content", {}))
    if pictures and operation.get("security"):
        names += _PICTURE_HEADERS
    elif pictures or status == "304":
        names.append("ETag")
    if status in ("206", "416"):
        names.append("Content-Range")
    if is_enterprise or status in ("429", "503"):
        names.append("Retry-After")
    if status == "429":
        names.append("x-rate-limit-reset-at-utc")
    return names
