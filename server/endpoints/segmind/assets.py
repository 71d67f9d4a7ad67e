"""POST /upload-asset (also under /v1): pictures go into storage, to be named by URL in later calls."""

from __future__ import annotations

import asyncio
import base64
import binascii
import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from pipelines import image_io
from server.endpoints.fields import Fields, read
from server.endpoints.segmind.body import read_body
from server.endpoints.segmind.routes import api_key, error_responses
from server.errors import InvalidInputImage
from server.http import caller
from server.http.pictures import read_picture
from server.http.services import services
from server.http.urls import output_url, public_url

router = APIRouter(tags=["segmind"], dependencies=[Depends(api_key)])

MOST_FILES = 20


def _data_urls(value: object) -> list[str]:
    given: list[object] = [*value] if isinstance(value, list | tuple) else [value]
    urls = [url for url in given if isinstance(url, str) and url[:5].lower() == "data:"]
    if len(urls) != len(given) or not 1 <= len(urls) <= MOST_FILES:
        raise PydanticCustomError("data_urls", "must be 1 to {most} data URLs", {"most": MOST_FILES})
    return urls


class Upload(Fields):
    data_urls: Annotated[
        list[str],
        BeforeValidator(_data_urls),
        WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MOST_FILES}),
    ] = Field(description="Pictures as base64 data URLs.")


_example = {"data_urls": ["data:image/png;base64,iVBORw0KGgo..."]}
_content = {"application/json": {"schema": Upload.model_json_schema(), "example": _example}}
_documented = {"requestBody": {"required": True, "content": _content}}


@router.post("/v1/upload-asset", include_in_schema=False)
@router.post(
    "/upload-asset",
    summary="Upload pictures",
    responses=error_responses(400, 401, 406, 413),
    openapi_extra=_documented,
)
async def upload_asset(request: Request) -> dict[str, object]:
    await caller.authenticate_by_header(request)
    upload = read(Upload, await read_body(request))
    # All are looked at before the first is stored.
    files = [await _picture_file(request, url) for url in upload.data_urls]
    urls = [await _store(request, file) for file in files]
    return {"file_urls": urls, "urls": urls, "message": "Files uploaded successfully"}


async def _picture_file(request: Request, data_url: str) -> bytes:
    encoded = data_url.partition(",")[2]
    try:
        file = await asyncio.to_thread(base64.b64decode, encoded)
    except (binascii.Error, ValueError):
        raise InvalidInputImage from None
    await read_picture(request, file, "data_urls")
    return file


async def _store(request: Request, file: bytes) -> str:
    suffix, content_type = image_io.kind(file)
    name = f"{uuid.uuid4()}.{suffix}"
    await services(request).storage.put(name, file, content_type)
    return output_url(public_url(request), name)
