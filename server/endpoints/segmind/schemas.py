"""The schemas of this dialect's answers, for the OpenAPI document: programs that write clients read them."""

from __future__ import annotations

from collections.abc import Mapping

from server.endpoints.samples import Schema, reference, schema_of

_TEXT: Schema = {"type": "string"}
_URL: Schema = {"type": "string", "format": "uri"}
_NUMBER: Schema = {"type": "number"}

SCHEMAS: Mapping[str, Schema] = {
    "SegmindError": {
        "type": "object",
        "properties": {
            "error": _TEXT,
            "request_id": {
                **_TEXT,
                "description": "The call's name in the log, where we are at fault.",
            },
        },
        "required": ["error"],
    },
    "SegmindPictures": {
        "type": "object",
        "description": "The answer where `base64` is true.",
        "properties": {
            "status": {"type": "string", "enum": ["Success"]},
            "image": {
                "anyOf": [_TEXT, {"type": "array", "items": _TEXT}],
                "description": "Base64; a list where several pictures were asked for.",
            },
            "infer_time": _NUMBER,
            "outputs": {"type": "integer"},
            "image_format": _TEXT,
        },
        "required": ["status", "image", "infer_time", "outputs", "image_format"],
    },
    "SegmindQueued": {
        "type": "object",
        "properties": {
            "request_id": _TEXT,
            "status": {"type": "string", "enum": ["QUEUED"]},
            "poll_url": _URL,
            "status_url": _URL,
            "response_url": _URL,
        },
        "required": ["request_id", "status", "poll_url", "status_url", "response_url"],
    },
    "SegmindMetrics": {
        "type": "object",
        "description": "Seconds and credits; empty until the pictures are drawn.",
        "properties": {
            "inference_time": _NUMBER,
            "queue_time": _NUMBER,
            "total_time": _NUMBER,
            "cost": _NUMBER,
            "remaining_credits": _NUMBER,
            "evaluations": {"type": "integer"},
        },
    },
    "SegmindStatus": {
        "type": "object",
        "properties": {
            "status": {"type": "string", "enum": ["QUEUED", "PROCESSING", "COMPLETED", "FAILED"]},
            "request_id": _TEXT,
            "status_url": _URL,
            "response_url": _URL,
            "metrics": reference("SegmindMetrics"),
            "error": {**_TEXT, "description": "Why the request failed."},
        },
        "required": ["status", "request_id", "status_url", "response_url", "metrics"],
    },
    "SegmindFile": {
        "type": "object",
        "properties": {
            "url": _URL,
            "content_type": _TEXT,
            "file_name": _TEXT,
            "file_size": {"type": "integer"},
        },
        "required": ["url", "content_type", "file_name", "file_size"],
    },
    "SegmindResult": {
        "type": "object",
        "properties": {
            "status": {"type": "string", "enum": ["COMPLETED"]},
            "output": _URL,
            "images": {"type": "array", "items": reference("SegmindFile")},
            "seed": {"type": "integer"},
            "seeds": {"type": "array", "items": {"type": "integer"}},
            "prompt": _TEXT,
            "metrics": reference("SegmindMetrics"),
            "request_id": _TEXT,
        },
        "required": ["status", "output", "images", "seed", "seeds", "prompt", "metrics", "request_id"],
    },
    "SegmindUpload": {
        "type": "object",
        "properties": {
            "file_urls": {"type": "array", "items": _URL},
            "urls": {"type": "array", "items": _URL},
            "message": _TEXT,
        },
        "required": ["file_urls", "urls", "message"],
    },
    "SegmindCredits": {
        "type": "object",
        "properties": {"credits": _NUMBER, "free-credits": _NUMBER},
        "required": ["credits", "free-credits"],
    },
}
"""The schemas of all answers in JSON."""

_BY_NAMES = {
    frozenset(SCHEMAS[name]["required"]): name
    for name in ("SegmindPictures", "SegmindQueued", "SegmindStatus", "SegmindResult")
}
"""The names of the schemas by the names that a sample of each has."""

FAILED: Schema = {"anyOf": [reference("SegmindStatus"), reference("SegmindError")]}
"""The schema of an answer about a request that failed, or could not be drawn."""


def answer_schema(path: str, sample: object) -> Schema | None:
    """The schema of a page's answer in JSON; None where a sample tells no known one.

    Args:
        sample: the page's sample of that answer.
    """
    if path.endswith("/get-user-credits"):
        return reference("SegmindCredits")
    if path.endswith("/upload-asset"):
        return reference("SegmindUpload")
    name = _BY_NAMES.get(frozenset(schema_of(sample).get("properties", ())))
    if name == "SegmindResult":
        return {"anyOf": [reference("SegmindResult"), reference("SegmindStatus")]}
    return reference(name) if name else None
