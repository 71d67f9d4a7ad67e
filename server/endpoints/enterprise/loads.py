"""POST load_model, load_model_v2, load_vae, delete_model: what can be drawn with comes and goes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from fastapi import APIRouter, Request
from pydantic import AliasChoices, BeforeValidator, Field

from pipelines.weights.kinds import Kind, StableDiffusionFamily
from server.accounts.accounts import Account
from server.endpoints.enterprise.origins import check_name, check_revision, read_origin
from server.endpoints.enterprise.routes import post
from server.endpoints.enterprise.webhook import WebhookFields
from server.endpoints.enterprise.wire import Operation, message
from server.endpoints.fields import Flag, Text
from server.errors import FieldError, NotFound
from server.http.services import services
from server.loading.loads import Load

_KINDS: Mapping[str, Kind] = {
    "stable_diffusion": "checkpoint", "checkpoint": "checkpoint", "model": "checkpoint", "sd": "checkpoint",
    "sd15": "checkpoint", "sdxl": "checkpoint", "lora": "lora", "lycoris": "lora", "embeddings": "embedding",
    "embedding": "embedding", "textual_inversion": "embedding", "vae": "vae", "controlnet": "controlnet",
}  # fmt: skip
_VAE_FAMILIES: Mapping[str, StableDiffusionFamily] = {
    "sdxl": "sdxl", "sd": "sd15", "sd15": "sd15", "sd1_5": "sd15",
}  # fmt: skip


def _word(value: object) -> object:
    return re.sub(r"[\s.-]+", "_", value.strip().lower()) if isinstance(value, str) else value


ModelType = Annotated[
    Literal[
        "stable_diffusion", "checkpoint", "model", "sd", "sd15", "sdxl", "lora", "lycoris", "embeddings",
        "embedding", "textual_inversion", "vae", "controlnet",
    ],
    BeforeValidator(_word),
]  # fmt: skip
ModelFormat = Annotated[
    Literal["diffusers", "safetensors", "ckpt", "bin", "pt", "pth", "pickle"], BeforeValidator(_word)
]
VaeType = Annotated[Literal["sd", "sd15", "sd1_5", "sdxl", "stable_diffusion", "vae"], BeforeValidator(_word)]


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
        description="URL of a `.safetensors` file, or a repository of the model hub as `owner/name`. Paths "
        "on the server are not read; `.ckpt`, `.bin`, `.pt` and `.pth` are refused, since they can run code "
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
        "thing than said here. Also as `model_category`.",
    )
    model_format: ModelFormat | None = Field(
        None, description="`diffusers` (a repository) or `safetensors`; the others are refused as pickles."
    )
    from_safetensors: Flag = Field(
        True, description="`no` asks for a pickle, which is refused; what is loaded is always safetensors."
    )
    revision: Text = Field("main", description="Branch, tag or commit of a repository of the hub.")


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
        description="`sdxl` or `sd15`: for which checkpoints. VAEs of both have the same shape; without this "
        "field a repository's scaling factor decides, and a bare file is taken for one of SD1.5.",
    )


class DeleteModel(Operation):
    """The fields of delete_model."""

    slug: ClassVar[str] = "delete_model"
    administrators_only: ClassVar[bool] = True
    summary: ClassVar[str] = "Remove what was loaded"
    description: ClassVar[str | None] = (
        "Needs an administrator's key. Pictures that are being drawn with it are finished first; requests "
        "that still wait for it are refused and refunded. Its files are removed unless something else needs "
        "them. What stands in weights.yaml is removed there, not here."
    )
    example: ClassVar[Mapping[str, object]] = {"key": "enterprise_api_key", "model_id": "my-sdxl"}
    answer: ClassVar[Mapping[str, object]] = {"status": "success", **message("Model deleted on server")}

    model_id: Text = Field(
        validation_alias=AliasChoices("model_id", "model"),
        description="Something that was loaded with load_model or load_vae. Also as `model`.",
    )


async def load_model(request: Request, account: Account, fields: LoadModel) -> dict[str, object]:
    if fields.model_format in ("ckpt", "bin", "pt", "pth", "pickle") or not fields.from_safetensors:
        field = "from_safetensors" if not fields.from_safetensors else "model_format"
        raise FieldError(
            field, "pickles are refused: they can run code when they are opened; give a .safetensors"
        )
    check_revision(fields.revision, "revision")
    load = Load(
        name=check_name(fields.model_id, "model_id"),
        origin=read_origin(request, fields.url, "url"),
        revision=fields.revision,
        kind=_KINDS[fields.model_type] if fields.model_type else None,
        family=fields.model_type if fields.model_type in ("sd15", "sdxl") else None,
        account_id=account.id,
        webhook=fields.webhook_url(request),
        track_id=fields.track_id,
    )
    await services(request).loads.begin(load)
    return fields.with_track_id({"status": "success", **message("model load started")})


async def load_vae(request: Request, account: Account, fields: LoadVae) -> dict[str, object]:
    load = Load(
        name=check_name(fields.vae_id, "vae_id"),
        origin=read_origin(request, fields.vae_url, "vae_url"),
        kind="vae",
        family=_VAE_FAMILIES.get(fields.vae_type or ""),
        account_id=account.id,
        webhook=fields.webhook_url(request),
        track_id=fields.track_id,
    )
    await services(request).loads.begin(load)
    return fields.with_track_id({"status": "success", **message("VAE load started")})


async def delete_model(request: Request, account: Account, fields: DeleteModel) -> dict[str, object]:
    if not await services(request).loads.delete(fields.model_id):
        raise NotFound("Model id not found")
    return {"status": "success", **message("Model deleted on server")}


router = APIRouter()
post(router, LoadModel, load_model)
post(router, LoadVae, load_vae)
post(router, DeleteModel, delete_model)
