"""POST get_all_models, verify_model: what can be drawn with."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from server.endpoints.enterprise.drawing.checkpoints import checkpoints
from server.endpoints.enterprise.wire import Operation, message, post, read
from server.endpoints.fields import Text
from server.errors import NotFound
from server.http.services import Services, services


class VerifyModel(Operation):
    """The documented fields."""

    model_id: Text = Field(description="Which checkpoint, LoRA, textual inversion or VAE.")


async def get_all_models(request: Request) -> JSONResponse:
    await read(request, Operation)
    catalogue = services(request).catalogue
    known_since = datetime.fromtimestamp(catalogue.own.path.stat().st_mtime, UTC)
    loaded_at = {name: item.loaded_at for name, item in catalogue.loaded().items()}
    names = [*checkpoints(catalogue.manifest), *loaded_at]
    models = [
        {"load_data": loaded_at.get(name, known_since).strftime("%m/%d/%Y %H:%M:%S"), "model_id": name}
        for name in dict.fromkeys(names)
    ]
    return JSONResponse({"models": models, "status": "success"})


async def verify_model(request: Request) -> JSONResponse:
    _, fields = await read(request, VerifyModel)
    parts = services(request)
    name = fields.model_id
    if name not in {*checkpoints(parts.manifest), *(name for name, _ in parts.manifest.adapters())}:
        raise NotFound(f"Model id not found{_why(parts, name)}")
    return JSONResponse({"status": "success", **message("Model exists on server")})


def _why(parts: Services, name: str) -> str:
    """Of a load that failed, or has not ended yet."""
    found = parts.loads.find(name)
    if found is None:
        return ""
    load, progress = found
    if load.problem is not None:
        return f": loading failed: {load.problem}"
    return f": it is being loaded, {progress.done} of {progress.total or 'an unknown number of'} bytes"


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
