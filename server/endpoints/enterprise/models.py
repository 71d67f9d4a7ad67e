"""POST get_all_models, verify_model: what can be drawn with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar

from fastapi import APIRouter, Request
from pydantic import Field

from server.accounts.accounts import Account
from server.endpoints.enterprise.drawing.checkpoints import checkpoints
from server.endpoints.enterprise.routes import post
from server.endpoints.enterprise.wire import Operation, message
from server.endpoints.fields import Text
from server.errors import NotFound
from server.http.services import services
from server.loading.loads import Loads


class GetAllModelsOperation(Operation):
    slug: ClassVar[str] = "get_all_models"
    summary: ClassVar[str] = "All checkpoints"
    description: ClassVar[str | None] = (
        "Also what was loaded since the start. A checkpoint with several names is listed under each."
    )
    answer: ClassVar[Mapping[str, object]] = {
        "models": [{"load_data": "01/25/2023 11:52:22", "model_id": "stable-diffusion-v1-5"}],
        "status": "success",
    }


class VerifyModel(Operation):
    """The fields of verify_model."""

    slug: ClassVar[str] = "verify_model"
    summary: ClassVar[str] = "Whether a checkpoint exists"
    example: ClassVar[Mapping[str, object]] = {
        "key": "enterprise_api_key",
        "model_id": "stable-diffusion-v1-5",
    }
    answer: ClassVar[Mapping[str, object]] = {"status": "success", "message": "Model exists on server"}

    model_id: Text = Field(description="Which checkpoint, LoRA, textual inversion or VAE.")


async def get_all_models(
    request: Request, account: Account, fields: GetAllModelsOperation
) -> dict[str, object]:
    catalogue = services(request).catalogue
    known_since = datetime.fromtimestamp(catalogue.own.path.stat().st_mtime, UTC)
    loaded_at = {name: item.loaded_at for name, item in catalogue.loaded().items()}
    known = checkpoints(catalogue.manifest)
    names = [each for name, entry in known.items() for each in (name, *entry.also)] + list(loaded_at)
    models = [
        {"load_data": loaded_at.get(name, known_since).strftime("%m/%d/%Y %H:%M:%S"), "model_id": name}
        for name in dict.fromkeys(names)
    ]
    return {"models": models, "status": "success"}


async def verify_model(request: Request, account: Account, fields: VerifyModel) -> dict[str, object]:
    server = services(request)
    name = fields.model_id
    known = {*checkpoints(server.manifest), *(name for name, _ in server.manifest.adapters())}
    if server.manifest.id_of(name) not in known:
        raise NotFound(f"Model id not found{_why_not(server.loads, name)}")
    item = server.catalogue.loaded().get(name)
    warned = {"warning": item.warning} if item is not None and item.warning else {}
    return {"status": "success", **message("Model exists on server"), **warned}


def _why_not(loads: Loads, name: str) -> str:
    """The words about a load that failed, or has not ended yet; empty where there is none of this name."""
    found = loads.find(name)
    if found is None:
        return ""
    load, progress = found
    if load.problem is not None:
        return f": loading failed: {load.problem}"
    return f": it is being loaded, {progress.done} of {progress.total or 'an unknown number of'} bytes"


router = APIRouter()
post(router, GetAllModelsOperation, get_all_models)
post(router, VerifyModel, verify_model)
