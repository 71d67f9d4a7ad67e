"""The schemas of this dialect's answers, for the OpenAPI document: programs that write clients read them."""

from __future__ import annotations

from collections.abc import Mapping

from server.endpoints.samples import Schema, reference, schema_of

_TEXT: Schema = {"type": "string"}
_TEXTS_BY_FIELD: Schema = {"type": "object", "additionalProperties": {"type": "array", "items": _TEXT}}
_MESSAGE: Schema = {
    "anyOf": [_TEXT, _TEXTS_BY_FIELD],
    "description": "A text, or the texts about each field that is wrong.",
}
_URLS: Schema = {"type": "array", "items": {"type": "string", "format": "uri"}}
_TRACK_ID: Schema = {
    "anyOf": [_TEXT, {"type": "number"}],
    "description": "The caller's own name for the call.",
}


def _word(*words: str) -> Schema:
    return {"type": "string", "enum": [*words]}


SCHEMAS: Mapping[str, Schema] = {
    "EnterpriseError": {
        "type": "object",
        "description": "The call was refused or failed; nothing was charged.",
        "properties": {
            "status": _word("error"),
            "message": _MESSAGE,
            "messege": {**_MESSAGE, "description": "As `message`; absent where the key is wrong."},
            "tip": _TEXT,
            "tips": _TEXT,
            "retry_after": {"type": "integer", "description": "Seconds."},
            "request_id": _TEXT,
        },
        "required": ["status", "message"],
    },
    "EnterpriseMeta": {
        "type": "object",
        "description": "The parameters that were really used.",
        "properties": {
            "prompt": _TEXT,
            "negative_prompt": {"anyOf": [_TEXT, {"type": "null"}]},
            "model_id": _TEXT,
            "scheduler": _TEXT,
            "safetychecker": _TEXT,
            "W": {"type": "integer"},
            "H": {"type": "integer"},
            "guidance_scale": {"type": "number"},
            "seed": {"type": "integer"},
            "steps": {"type": "integer"},
            "n_samples": {"type": "integer"},
            "file_prefix": _TEXT,
        },
        "required": [
            "prompt",
            "model_id",
            "scheduler",
            "W",
            "H",
            "seed",
            "steps",
            "n_samples",
            "file_prefix",
        ],
    },
    "EnterprisePictures": {
        "type": "object",
        "description": "The pictures are drawn.",
        "properties": {
            "status": _word("success"),
            "generationTime": {"type": "number", "description": "Seconds."},
            "id": {"type": "integer"},
            "output": _URLS,
            "nsfw_content_detected": {"type": "boolean"},
            "warning": _TEXT,
            "meta": reference("EnterpriseMeta"),
            "track_id": _TRACK_ID,
        },
        "required": ["status", "generationTime", "id", "output", "nsfw_content_detected", "meta"],
    },
    "EnterpriseProcessing": {
        "type": "object",
        "description": "The pictures are being drawn: fetch them after `eta` seconds.",
        "properties": {
            "status": _word("processing"),
            "id": {"type": "integer"},
            "output": _URLS,
            "message": _TEXT,
            "messege": _TEXT,
            "tip": _TEXT,
            "eta": {"type": "number"},
            "fetch_result": {"type": "string", "format": "uri"},
            "future_links": _URLS,
            "warning": _TEXT,
            "meta": {"type": "object"},
            "track_id": _TRACK_ID,
        },
        "required": ["status", "id", "output", "message", "messege", "tip"],
    },
    "EnterpriseFailed": {
        "type": "object",
        "description": "Drawing has failed; what was held is refunded.",
        "properties": {
            "status": _word("failed"),
            "id": {"type": "integer"},
            "message": _TEXT,
            "messege": _TEXT,
            "output": _URLS,
            "track_id": _TRACK_ID,
        },
        "required": ["status", "id", "message", "messege", "output"],
    },
    "EnterpriseDone": {
        "type": "object",
        "description": "It was done, or has begun.",
        "properties": {
            "status": _word("success"),
            "message": _TEXT,
            "messege": _TEXT,
            "track_id": _TRACK_ID,
        },
        "required": ["status", "message", "messege"],
    },
}
"""The schemas that several operations share."""


def answer_schema(
    own_name: str, sample: object, *, may_be_processing: bool, fetches: bool
) -> Mapping[str, Schema]:
    """The schemas that an operation's answers need: under "" what may come, under names what that refers to.

    Args:
        own_name: a name for what no other operation answers.
        sample: the operation's sample of a success.
        may_be_processing: the answer may come before the pictures do.
        fetches: the operation asks for an earlier call, which may have failed.
    """
    success, added = _success(own_name, sample)
    others = ["EnterpriseProcessing"] if may_be_processing or fetches else []
    others += ["EnterpriseFailed"] if fetches else []
    names = [success, *others, "EnterpriseError"]
    return {**added, "": {"anyOf": [reference(name) for name in names]}}


def _success(own_name: str, sample: object) -> tuple[str, Mapping[str, Schema]]:
    """The name of a success's schema, and the schema where it is not one of the shared ones."""
    own = schema_of(sample)
    names = own.get("properties", {})
    pictures = names.keys() >= {*SCHEMAS["EnterprisePictures"]["required"]}
    if pictures and names["output"]["type"] == "array":
        return "EnterprisePictures", {}
    if names.keys() == {*SCHEMAS["EnterpriseDone"]["required"]}:
        return "EnterpriseDone", {}
    return own_name, {own_name: own}
