"""POST load_model, load_model_v2, load_vae, delete_model: what can be drawn with comes and goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fastapi import APIRouter, Request
from pydantic import AliasChoices, Field

from server.accounts.accounts import Account
from server.endpoints.enterprise.load_words import (
    MODEL_TYPES,
    VAE_FAMILIES,
    Meaning,
    ModelFormat,
    ModelType,
    VaeType,
    read_revision,
)
from server.endpoints.enterprise.origins import MAIN, check_name, one_revision, read_origin
from server.endpoints.enterprise.routes import post
from server.endpoints.enterprise.webhook import WebhookFields
from server.endpoints.enterprise.wire import Operation, message
from server.endpoints.fields import Flag, Text
from server.errors import FieldError, NotFound
from server.http.services import services
from server.loading.loads import Load


class LoadModel(WebhookFields):
    """The fields of load_model; the vendor's newer page has `model_category` instead of `model_type`."""

    slug: ClassVar[str] = "load_model"
    also: ClassVar[tuple[str, ...]] = ("load_model_v2",)
    administrators_only: ClassVar[bool] = True
    summary: ClassVar[str] = "Load a checkpoint, LoRA, textual inversion, VAE or ControlNet"
    description: ClassVar[str | None] = (
        "Needs an administrator's key. The download goes on after this answer and survives a "
        "restart of the server; system_details shows its progress, verify_model its end, and the webhook is "
        "told. What was loaded is recorded in the weights folder, never in weights.yaml."
    )
    example: ClassVar[Mapping[str, object]] = {
        "key": "enterprise_api_key",
        "url": "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0",
        "model_id": "my-sdxl",
        "model_type": "stable_diffusion",
        "webhook": None,
    }
    answer: ClassVar[Mapping[str, object]] = {"status": "success", **message("model load started")}

    url: Text = Field(
        description="URL of a `.safetensors` file, or a repository of the model hub as `owner/name`. The "
        "address of a page that shows one file (the hub's, Civitai's with `modelVersionId`, GitHub's, a "
        "share link of Google Drive or Dropbox) is taken for that file; other pages are refused. Paths on "
        "the server are not read; `.ckpt`, `.bin`, `.pt` and `.pth` are refused, since they can run code "
        "when they are opened."
    )
    model_id: Text = Field(
        description="The name for `model_id`, `lora_model`, `embeddings_model` or `vae`: letters, digits, "
        "dot, dash and underscore. One that this server has already is refused."
    )
    model_type: ModelType | None = Field(
        None,
        validation_alias=AliasChoices("model_type", "model_category"),
        description="What it is. What really came is told from its tensors; loading fails when it is another "
        "kind of thing than said here, and warns when it is for another family. `huggingface`, "
        "`custom_ckpt`, `api_trained` and `dreambooth` say where it comes from, and anything may come. Also "
        "as `model_category`.",
    )
    model_format: ModelFormat | None = Field(
        None, description="`diffusers` (a repository) or `safetensors`; the others are refused as pickles."
    )
    from_safetensors: Flag = Field(
        False, description="Taken and without effect: what is loaded is always safetensors."
    )
    revision: Text = Field(
        "fp32",
        description="`fp16`, `bf16` or `fp32`: the precision in which a checkpoint is drawn with, and which "
        "files of a repository are taken. On a CPU all is drawn in fp32. Anything else is a branch, tag or "
        "commit of a repository of the hub.",
    )


class LoadVae(WebhookFields):
    """The fields of load_vae."""

    slug: ClassVar[str] = "load_vae"
    administrators_only: ClassVar[bool] = True
    summary: ClassVar[str] = "Load a VAE"
    description: ClassVar[str | None] = "As load_model, for a VAE."
    example: ClassVar[Mapping[str, object]] = {
        "key": "enterprise_api_key",
        "vae_id": "my-vae",
        "vae_url": "stabilityai/sd-vae-ft-mse",
    }
    answer: ClassVar[Mapping[str, object]] = {"status": "success", **message("VAE load started")}

    vae_id: Text = Field(description="The name for `vae`; as `model_id` of load_model.")
    vae_url: Text = Field(description="As `url` of load_model.")
    vae_type: VaeType | None = Field(
        None,
        description="`sdxl` or `sd15`: for which checkpoints. VAEs of both have the same shape; without one "
        "of these a repository's scaling factor decides, and with a bare file whether its address or its "
        "name speaks of XL. `diffusers`, `safetensors` and `pt` tell its form, which is looked at anyway.",
    )


class DeleteModel(Operation):
    """The fields of delete_model."""

    slug: ClassVar[str] = "delete_model"
    administrators_only: ClassVar[bool] = True
    summary: ClassVar[str] = "Remove what was loaded"
    description: ClassVar[str | None] = (
        "Needs an administrator's key. Pictures that are being drawn with it are finished first; requests "
        "that still wait for it are refused and refunded. Its files are removed unless something else needs "
        "them, or are used where they lie. What stands in weights.yaml is removed there, not here."
    )
    example: ClassVar[Mapping[str, object]] = {"key": "enterprise_api_key", "model_id": "my-sdxl"}
    answer: ClassVar[Mapping[str, object]] = {"status": "success", **message("Model deleted on server")}

    model_id: Text = Field(
        validation_alias=AliasChoices("model_id", "model"),
        description="Something that was loaded with load_model or load_vae. Also as `model`.",
    )


async def load_model(request: Request, account: Account, fields: LoadModel) -> dict[str, object]:
    if fields.model_format in ("ckpt", "bin", "pt", "pth", "pickle"):
        problem = "pickles are refused: they can run code when they are opened; give a .safetensors"
        raise FieldError("model_format", problem)
    precision, revision = read_revision(fields.revision)
    address = read_origin(request, fields.url, "url")
    said = MODEL_TYPES[fields.model_type] if fields.model_type else Meaning()
    load = Load(
        name=check_name(fields.model_id, "model_id"),
        origin=address.origin,
        revision=one_revision(revision, address, "revision"),
        precision=precision,
        kind=said.kind,
        suggested=said.suggested,
        family=said.family,
        account_id=account.id,
        webhook=fields.webhook_url(request),
        track_id=fields.track_id,
    )
    return await _begun(request, fields, load, "model load started")


async def load_vae(request: Request, account: Account, fields: LoadVae) -> dict[str, object]:
    address = read_origin(request, fields.vae_url, "vae_url")
    load = Load(
        name=check_name(fields.vae_id, "vae_id"),
        origin=address.origin,
        revision=one_revision(MAIN, address, "vae_url"),
        kind="vae",
        family=VAE_FAMILIES.get(fields.vae_type or ""),
        account_id=account.id,
        webhook=fields.webhook_url(request),
        track_id=fields.track_id,
    )
    return await _begun(request, fields, load, "VAE load started")


async def delete_model(request: Request, account: Account, fields: DeleteModel) -> dict[str, object]:
    if not await services(request).loads.delete(fields.model_id.strip()):
        raise NotFound("Model id not found")
    return {"status": "success", **message("Model deleted on server")}


async def _begun(request: Request, fields: WebhookFields, load: Load, text: str) -> dict[str, object]:
    """The answer to a load, which has begun unless the same thing is here already."""
    warning = await services(request).loads.begin(load)
    warned = {} if warning is None else {"warning": warning}
    return fields.with_track_id({"status": "success", **message(text), **warned})


router = APIRouter()
post(router, LoadModel, load_model)
post(router, LoadVae, load_vae)
post(router, DeleteModel, delete_model)
