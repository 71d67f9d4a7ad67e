"""POST clear_queue, clear_cache, restart_server, update_server: looking after a server that is at work."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from server.endpoints.enterprise.wire import Operation, message, post, read, read_as_administrator
from server.http.call_state import call_state
from server.http.services import services

HOW_TO_UPDATE = (
    "This call changes nothing: a server cannot replace the program that it runs. Where it is installed, "
    "fetch the new version (git pull and pip install -e ., or docker compose build --pull) and start it "
    "again (docker compose up -d): requests that callers come back for are kept and drawn, and the database "
    "is migrated at the start. Checkpoints are updated with understudy weights pull --upgrade, then "
    "restart_server."
)


async def clear_queue(request: Request) -> JSONResponse:
    account, _ = await read(request, Operation)
    parts = services(request)
    cleared = await parts.studio.clear_queue(account)
    call_state(request).balance = await parts.credits.balance(account.id)
    text = message("Queue cleared, server is restarting")
    return JSONResponse({"status": "success", **text, "cleared": cleared})


async def clear_cache(request: Request) -> JSONResponse:
    await read_as_administrator(request, Operation)
    await services(request).dispatch.clear_cache()
    return JSONResponse({"status": "success", **message("Cache cleared successfully")})


async def restart_server(request: Request) -> JSONResponse:
    await read_as_administrator(request, Operation)
    services(request).dispatch.restart()
    return JSONResponse({"status": "success", **message("server restarting")})


async def update_server(request: Request) -> JSONResponse:
    await read_as_administrator(request, Operation)
    return JSONResponse({"status": "success", **message("server updating"), "tip": HOW_TO_UPDATE})


router = APIRouter()
post(
    router,
    "clear_queue",
    clear_queue,
    Operation,
    summary="Withdraw the caller's own waiting requests",
    description="Requests of this account that no engine has begun to draw are cancelled and refunded; "
    "`cleared` says how many. What is being drawn is finished, other accounts keep their places, and nothing "
    "is restarted, whatever the documented text says.",
    example={"key": "enterprise_api_key"},
    answer={"status": "success", **message("Queue cleared, server is restarting"), "cleared": 3},
)
post(
    router,
    "clear_cache",
    clear_cache,
    Operation,
    summary="Free what is kept only to save time",
    description="Needs an administrator's key. Engines drop encoded prompts, files of adapters, evicted "
    "weights and unused device memory; pictures stay the same, and drawing goes on.",
    example={"key": "enterprise_api_key"},
    answer={"status": "success", **message("Cache cleared successfully")},
)
post(
    router,
    "restart_server",
    restart_server,
    Operation,
    summary="Restart the engines",
    description="Needs an administrator's key. One engine after the other finishes what it draws and is "
    "replaced by a new process; waiting requests keep their places, callers notice nothing but the time.",
    example={"key": "enterprise_api_key"},
    answer={"status": "success", **message("server restarting")},
)
for operation in ("update_server", "update"):
    post(
        router,
        operation,
        update_server,
        Operation,
        summary="How this server is updated",
        description="Needs an administrator's key. Nothing is changed; `tip` says how an update is done.",
        example={"key": "enterprise_api_key"},
        answer={"status": "success", **message("server updating"), "tip": HOW_TO_UPDATE},
    )
