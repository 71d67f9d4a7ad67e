"""POST clear_queue, clear_cache, restart_server, update_server: looking after a server that is at work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fastapi import APIRouter, Request

from server.accounts.accounts import Account
from server.endpoints.enterprise.routes import post
from server.endpoints.enterprise.wire import Operation, message
from server.http.call_state import call_state
from server.http.services import services

HOW_TO_UPDATE = (
    "This call changes nothing: a server cannot replace the program that it runs. Where it is installed, "
    "fetch the new version (git pull and pip install -e '.[engine]', or docker compose build --pull) and "
    "start it again (docker compose up -d): requests that callers come back for are kept and drawn, and the "
    "database is migrated at the start. Checkpoints are updated with understudy weights pull --upgrade, then "
    "restart_server."
)


class ClearQueueOperation(Operation):
    slug: ClassVar[str] = "clear_queue"
    summary: ClassVar[str] = "Withdraw the caller's own waiting requests"
    description: ClassVar[str | None] = (
        "Requests of this account that no engine has begun to draw are cancelled and refunded; "
        "`cleared` says how many. What is being drawn is finished, other accounts keep their places, and "
        "nothing is restarted, whatever the documented text says."
    )
    answer: ClassVar[Mapping[str, object]] = {
        "status": "success",
        **message("Queue cleared, server is restarting"),
        "cleared": 3,
    }


class ClearCacheOperation(Operation):
    slug: ClassVar[str] = "clear_cache"
    administrators_only: ClassVar[bool] = True
    summary: ClassVar[str] = "Free what is kept only to save time"
    description: ClassVar[str | None] = (
        "Needs an administrator's key. Engines drop encoded prompts, files of adapters, evicted "
        "weights and unused device memory; pictures stay the same, and drawing goes on."
    )
    answer: ClassVar[Mapping[str, object]] = {"status": "success", **message("Cache cleared successfully")}


class RestartServerOperation(Operation):
    slug: ClassVar[str] = "restart_server"
    administrators_only: ClassVar[bool] = True
    summary: ClassVar[str] = "Restart the engines"
    description: ClassVar[str | None] = (
        "Needs an administrator's key. One engine after the other finishes what it draws and is "
        "replaced by a new process; waiting requests keep their places, callers notice nothing but the time."
    )
    answer: ClassVar[Mapping[str, object]] = {"status": "success", **message("server restarting")}


class UpdateServerOperation(Operation):
    slug: ClassVar[str] = "update_server"
    also: ClassVar[tuple[str, ...]] = ("update",)
    administrators_only: ClassVar[bool] = True
    summary: ClassVar[str] = "How this server is updated"
    description: ClassVar[str | None] = (
        "Needs an administrator's key. Nothing is changed; `tip` says how an update is done."
    )
    answer: ClassVar[Mapping[str, object]] = {
        "status": "success",
        **message("server updating"),
        "tip": HOW_TO_UPDATE,
    }


async def clear_queue(request: Request, account: Account, fields: ClearQueueOperation) -> dict[str, object]:
    server = services(request)
    cleared = await server.studio.clear_queue(account)
    call_state(request).balance = await server.credits.balance(account.id)
    text = message("Queue cleared, server is restarting")
    return {"status": "success", **text, "cleared": cleared}


async def clear_cache(request: Request, account: Account, fields: ClearCacheOperation) -> dict[str, object]:
    await services(request).dispatch.clear_cache()
    return {"status": "success", **message("Cache cleared successfully")}


async def restart_server(
    request: Request, account: Account, fields: RestartServerOperation
) -> dict[str, object]:
    services(request).dispatch.restart()
    return {"status": "success", **message("server restarting")}


async def update_server(
    request: Request, account: Account, fields: UpdateServerOperation
) -> dict[str, object]:
    return {"status": "success", **message("server updating"), "tip": HOW_TO_UPDATE}


router = APIRouter()
post(router, ClearQueueOperation, clear_queue)
post(router, ClearCacheOperation, clear_cache)
post(router, RestartServerOperation, restart_server)
post(router, UpdateServerOperation, update_server)
