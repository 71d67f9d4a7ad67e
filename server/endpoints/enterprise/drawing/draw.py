"""The job of an operation that takes a picture and no prompt."""

from __future__ import annotations

from fastapi import Request

from pipelines.request import SafetyCheck, Upscaling
from server.accounts.accounts import Account
from server.endpoints.enterprise.webhook import WebhookFields
from server.endpoints.enterprise.wire import digest
from server.http import caller
from server.http.hang_up import while_connected
from server.http.services import services
from server.jobs.jobs import JSON, Job
from server.jobs.order import Order


async def run_job(
    request: Request,
    account: Account,
    endpoint: str,
    fields: WebhookFields,
    asked: Upscaling | SafetyCheck,
    *,
    price: int,
    temporary: bool = False,
    meta: dict[str, JSON],
) -> Job:
    """The job when it has ended well, or as it is when its caller has waited long enough.

    Args:
        endpoint: the operation's name in the job's record, the metrics and the price list.
        price: millicredits, unless the settings say otherwise.
    """
    parts = services(request)
    idempotency_key = caller.idempotency_key(request)
    order = Order(
        endpoint=endpoint,
        request=asked,
        price=parts.settings.prices_millicredits.get(endpoint, price),
        picture_format="png",
        temporary=temporary,
        synchronous=True,
        options={"meta": meta, **fields.webhook_options(request)},
        idempotency_key=idempotency_key,
        body_digest=digest(fields) if idempotency_key else None,
    )
    drawing = parts.studio.draw(account, order, wait_s=parts.settings.sync_wait_s)
    job = await while_connected(request, drawing)
    caller.report_balance(request, job)
    return job
