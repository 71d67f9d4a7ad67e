"""POST schedulers_list, system_details: what the server can do, and how busy it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fastapi import APIRouter, Request

from pipelines.schedulers.names import NAMES
from server.accounts.accounts import Account
from server.endpoints.enterprise.drawing.checkpoints import checkpoints
from server.endpoints.enterprise.routes import post
from server.endpoints.enterprise.wire import Operation, message
from server.http.services import services


class SchedulersListOperation(Operation):
    slug: ClassVar[str] = "schedulers_list"
    summary: ClassVar[str] = "All schedulers"
    answer: ClassVar[Mapping[str, object]] = {
        "status": "success",
        **message("list of schedulers"),
        "schedulers": ["DDPMScheduler", "DDIMScheduler"],
    }


class SystemDetailsOperation(Operation):
    slug: ClassVar[str] = "system_details"
    summary: ClassVar[str] = "How busy the server is, and what it loads"
    description: ClassVar[str | None] = (
        "`loads` has what load_model and load_vae began and has not ended well yet."
    )
    answer: ClassVar[Mapping[str, object]] = {
        "model_count": 3,
        "queue_time": 0,
        "queue_num": 0,
        "status": "ok",
        "loads": [],
    }


async def schedulers_list(
    request: Request, account: Account, fields: SchedulersListOperation
) -> dict[str, object]:
    # The page documents the list alone; typed clients of all operations read the others.
    return {"status": "success", **message("list of schedulers"), "schedulers": list(NAMES)}


async def system_details(
    request: Request, account: Account, fields: SystemDetailsOperation
) -> dict[str, object]:
    server = services(request)
    return {
        "model_count": len(checkpoints(server.manifest)),
        "queue_time": round(server.dispatch.expected_wait_s),
        "queue_num": server.dispatch.queue_length,
        "status": "ok" if server.dispatch.readiness() is None else "starting",
        "loads": [
            {
                "model_id": load.name,
                "status": "loading" if load.problem is None else "failed",
                "received_bytes": progress.done,
                "total_bytes": progress.total or None,
                "message": load.problem,
            }
            for load, progress in server.loads.states()
        ],
    }


router = APIRouter()
post(router, SchedulersListOperation, schedulers_list)
post(router, SystemDetailsOperation, system_details)
