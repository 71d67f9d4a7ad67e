"""POST schedulers_list, system_details: what the server can do, and how busy it is."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from server.endpoints.enterprise.drawing.checkpoints import SCHEDULERS, checkpoints
from server.endpoints.enterprise.wire import Operation, post, read
from server.http.services import services


async def schedulers_list(request: Request) -> JSONResponse:
    await read(request, Operation)
    return JSONResponse({"schedulers": list(SCHEDULERS)})


async def system_details(request: Request) -> JSONResponse:
    await read(request, Operation)
    parts = services(request)
    return JSONResponse(
        {
            "model_count": len(checkpoints(parts.manifest)),
            "queue_time": round(parts.dispatch.expected_wait_s),
            "queue_num": parts.dispatch.queue_length,
            "status": "ok" if parts.dispatch.readiness() is None else "starting",
            "loads": [
                {
                    "model_id": load.name,
                    "status": "loading" if load.problem is None else "failed",
                    "received_bytes": progress.done,
                    "total_bytes": progress.total or None,
                    "message": load.problem,
                }
                for load, progress in parts.loads.states()
            ],
        }
    )


router = APIRouter()
post(
    router,
    "schedulers_list",
    schedulers_list,
    Operation,
    summary="All schedulers",
    example={"key": "enterprise_api_key"},
    answer={"schedulers": ["DDPMScheduler", "DDIMScheduler"]},
)
post(
    router,
    "system_details",
    system_details,
    Operation,
    summary="How busy the server is, and what it loads",
    description="`loads` has what load_model and load_vae began and has not ended well yet.",
    example={"key": "enterprise_api_key"},
    answer={"model_count": 3, "queue_time": 0, "queue_num": 0, "status": "ok", "loads": []},
)
