"""POST get_all_models, verify_model: which checkpoints can be drawn with."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from server import caller
from server.endpoints.enterprise.catalogue import checkpoint, checkpoints
from server.endpoints.enterprise.wire import Operation, both, post, read
from server.endpoints.fields import Text


class VerifyModel(Operation):
    """The documented fields."""

    model_id: Text = Field(description="Which checkpoint.")


async def get_all_models(request: Request) -> JSONResponse:
    await read(request, Operation)
    manifest = caller.services(request).manifest
    known_since = datetime.fromtimestamp(manifest.path.stat().st_mtime, UTC)
    models = [
        {"load_data": known_since.strftime("%m/%d/%Y %H:%M:%S"), "model_id": name}
        for name in checkpoints(manifest)
    ]
    return JSONResponse({"models": models, "status": "success"})


async def verify_model(request: Request) -> JSONResponse:
    _, fields = await read(request, VerifyModel)
    checkpoint(caller.services(request).manifest, fields.model_id)
    return JSONResponse({"status": "success", **both("Model exists on server")})


router = APIRouter()
post(
    router,
    "get_all_models",
    get_all_models,
    Operation,
    summary="All checkpoints",
    example={"key": "enterprise_api_key"},
    answer={
        "models": [{"load_data": "01/25/2023 11:52:22", "model_id": "stable-diffusion-v1-5"}],
        "status": "success",
    },
)
post(
    router,
    "verify_model",
    verify_model,
    VerifyModel,
    summary="Whether a checkpoint exists",
    example={"key": "enterprise_api_key", "model_id": "stable-diffusion-v1-5"},
    answer={"status": "success", "message": "Model exists on server"},
)
