"""The way from fields to a job: the order, and the steps before it that operations with a prompt share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fastapi import Request

from pipelines.request import PictureRequest
from server.accounts.accounts import Account
from server.endpoints.enterprise.answers import finished_or_processing
from server.endpoints.enterprise.drawing.checkpoints import default_checkpoint
from server.endpoints.enterprise.drawing.fields import PaidFields, PictureFields
from server.endpoints.enterprise.drawing.meta import request_meta, request_warning
from server.endpoints.enterprise.drawing.picture_fields import read_and_crop
from server.endpoints.enterprise.drawing.rewriting import rewrite_prompts
from server.endpoints.enterprise.options import EnterpriseOptions
from server.endpoints.fields import body_digest
from server.http import caller
from server.http.hang_up import while_connected
from server.http.services import services
from server.jobs.job import Job
from server.jobs.order import JSON, Order


async def draw(
    request: Request,
    account: Account,
    fields: PaidFields,
    asked: PictureRequest,
    *,
    meta: Mapping[str, JSON],
    warning: str | None = None,
    base64_files: bool = False,
    temporary: bool = False,
) -> Job:
    """Charge for a request and have it drawn.

    Args:
        meta, warning: see `EnterpriseOptions`.
        base64_files, temporary: see `Order`.
    Returns:
        The job when it has ended well, or as it is when its caller has waited long enough.
    Raises:
        FieldError: the idempotency key is too long, or the webhook's URL cannot be called.
        ApiError: nothing was drawn, and nothing was charged.
    """
    server = services(request)
    idempotency_key = caller.idempotency_key(request)
    base_price = server.settings.base_price(fields.slug, fields.price_millicredits)
    options = EnterpriseOptions(
        warning=warning, meta=meta, track_id=fields.track_id, webhook=fields.receiver(request)
    )
    order = Order(
        endpoint=fields.slug,
        request=asked,
        price=fields.price(base_price),
        picture_format="png",
        base64_files=base64_files,
        temporary=temporary,
        synchronous=True,
        options=options.to_json(),
        idempotency_key=idempotency_key,
        body_digest=await asyncio.to_thread(body_digest, fields) if idempotency_key else None,
    )
    drawing = server.studio.draw(account, order, wait_s=server.settings.sync_wait_s)
    job = await while_connected(request, drawing)
    caller.report_balance(request, job)
    return job


async def draw_and_answer(request: Request, account: Account, fields: PictureFields) -> dict[str, object]:
    """Draw with a checkpoint, and answer with the pictures, or after a while with where to fetch them.

    Raises:
        NotFound, FieldError: the fields ask for what cannot be drawn; told before anything is fetched or
            charged, where that is possible.
        ApiError: nothing was drawn, and nothing was charged.
    """
    fields.validate_together()
    manifest = services(request).manifest
    if not fields.model_id:  # a family of paths whose pages name no checkpoint
        fields = fields.model_copy(update={"model_id": default_checkpoint(manifest)})
    fields = await rewrite_prompts(request, account, fields)
    fields.validate_names(manifest)
    pictures = {
        name: await read_and_crop(request, sent, name, fields.width, fields.height)
        for name, sent in fields.sent_pictures().items()
    }
    drawn = fields.to_request(manifest, pictures)
    job = await draw(
        request,
        account,
        fields,
        drawn,
        meta=request_meta(fields, drawn, manifest.pipelines[fields.model_id]),
        warning=request_warning(fields, drawn),
        base64_files=fields.base64,
        temporary=fields.temp,
    )
    return finished_or_processing(request, job)
