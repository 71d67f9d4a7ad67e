"""POST get_all_models, model_list, verify_model: what can be drawn with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar

from fastapi import APIRouter, Request
from pydantic import AliasChoices, Field

from pipelines.weights.entries import PipelineEntry
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


class ModelListOperation(Operation):
    """model_list, documented for v4; v3's is seen in clients."""

    slug: ClassVar[str] = "model_list"
    summary: ClassVar[str] = "All checkpoints, as a bare list"
    answer: ClassVar[Sequence[Mapping[str, object]]] = [
        {
            "model_id": "stable-diffusion-v1-5",
            "status": "model_ready",
            "created_at": "2023-01-25T11:52:22Z",
            "instance_prompt": None,
            "model_name": "stable-diffusion-v1-5",
            "description": "An SD1.5 checkpoint; CreativeML OpenRAIL-M",
            "screenshots": "",
        }
    ]


class VerifyModel(Operation):
    """The fields of verify_model."""

    slug: ClassVar[str] = "verify_model"
    summary: ClassVar[str] = "Whether a checkpoint exists"
    example: ClassVar[Mapping[str, object]] = {
        "key": "enterprise_api_key",
        "model_id": "stable-diffusion-v1-5",
    }
    answer: ClassVar[Mapping[str, object]] = {"status": "success", **message("Model exists on server")}

    model_id: Text = Field(
        validation_alias=AliasChoices("model_id", "model"),
        description="Which checkpoint, LoRA, textual inversion or VAE. Also as `model`.",
    )


async def get_all_models(
    request: Request, account: Account, fields: GetAllModelsOperation
) -> dict[str, object]:
    models = [
        {"load_data": loaded_at.strftime("%m/%d/%Y %H:%M:%S"), "model_id": name}
        for name, loaded_at in _known_since(request).items()
    ]
    return {"models": models, "status": "success"}


async def model_list(
    request: Request, account: Account, fields: ModelListOperation
) -> Sequence[Mapping[str, object]]:
    manifest = services(request).manifest
    entries = checkpoints(manifest)
    return [
        {
            "model_id": name,
            "status": "model_ready",
            "created_at": known_since.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "instance_prompt": None,
            "model_name": name,
            "description": _described(entries.get(manifest.id_of(name))),
            "screenshots": "",
        }
        for name, known_since in _known_since(request).items()
    ]


async def verify_model(request: Request, account: Account, fields: VerifyModel) -> dict[str, object]:
    server = services(request)
    name = fields.model_id.strip()
    known = {*checkpoints(server.manifest), *(name for name, _ in server.manifest.adapters())}
    if server.manifest.id_of(name) not in known:
        raise NotFound(f"Model id not found{_why_not(server.loads, name)}")
    item = server.catalogue.loaded().get(name)
    warned = {"warning": item.warning} if item is not None and item.warning else {}
    return {"status": "success", **message("Model exists on server"), **warned}


def _known_since(request: Request) -> dict[str, datetime]:
    """When each checkpoint, and everything else that was loaded, came here."""
    catalogue = services(request).catalogue
    from_the_start = datetime.fromtimestamp(catalogue.own.path.stat().st_mtime, UTC)
    entries = checkpoints(catalogue.manifest)
    names = [each for name, entry in entries.items() for each in (name, *entry.also)]
    known = dict.fromkeys(names, from_the_start)
    return known | {name: item.loaded_at for name, item in catalogue.loaded().items()}


def _described(entry: PipelineEntry | None) -> str:
    if entry is None:
        return "Loaded while the server runs"
    kind = {"sd15": "An SD1.5 checkpoint", "sdxl": "An SDXL checkpoint"}[entry.family]
    return f"{kind}; {entry.license}" if entry.license else kind


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
post(router, ModelListOperation, model_list)
post(router, VerifyModel, verify_model)
