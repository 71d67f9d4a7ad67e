"""GET /engines: engines, what they have loaded, what runs and waits; for administrators."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from server.endpoints.segmind.routes import api_key
from server.http import caller
from server.http.services import services

router = APIRouter(tags=["administration"], dependencies=[Depends(api_key)])


class LoadedPart(BaseModel):
    """A part of a pipeline that is loaded."""

    name: str = Field(examples=["text_encoder"])
    place: str = Field(description="`device`, or `host` for memory from which it comes back quickly.")
    bytes: int


class LoadedPipeline(BaseModel):
    """A pipeline of which something is loaded."""

    name: str
    bytes: int = Field(description="Of all its parts, wherever they are.")
    parts: list[LoadedPart]


class RunningNow(BaseModel):
    """A request that an engine has."""

    id: str = Field(description="The request's name in the log.")
    account: str
    pipeline: str
    kind: str
    width: int = Field(description="Pixels; 0 where no picture is drawn.")
    height: int
    images: int
    seconds: float = Field(description="Since the engine took it.")
    evaluations: int = Field(description="Of its networks, done so far.")
    evaluations_total: int = Field(description="0 before the first one.")


class EngineNow(BaseModel):
    """An engine."""

    name: str
    device: str | None
    state: str = Field(description="`starting`, `ready`, `failed` or `stopped`.")
    reason: str | None = Field(description="Why it cannot draw now.")
    budget_bytes: int | None = Field(description="The most that may be loaded on the device.")
    used_bytes: int = Field(description="What is loaded on the device.")
    host_bytes: int = Field(description="What waits in the host's memory.")
    pipelines: list[LoadedPipeline]
    running: list[RunningNow]


class WaitingNow(BaseModel):
    """The requests for one pipeline that wait for an engine."""

    pipeline: str
    requests: int
    accounts: int
    longest_s: float


class EnginesNow(BaseModel):
    """The whole server at this moment."""

    engines: list[EngineNow]
    waiting: list[WaitingNow]
    expected_wait_s: float = Field(description="What a new request would wait, roughly.")


_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": meaning, "content": {"application/json": {}}}
    for status, meaning in (
        (401, "There is no such key"),
        (403, "The key is no administrator's"),
        (503, "The database does not answer"),
    )
}


@router.get("/engines", summary="What is loaded, runs and waits", responses=_REFUSALS)
async def engines(request: Request) -> EnginesNow:
    """Needs an administrator's key. `understudy ps` shows this in a terminal."""
    account = await caller.authenticate_by_header(request)
    await caller.administrator(request, account, caller.header_key(request), "/engines")
    server = services(request)
    names = {account.id: account.name for account in await server.accounts.all()}
    described = server.dispatch.report().described(names)
    return EnginesNow.model_validate(
        {**described, "expected_wait_s": round(server.dispatch.expected_wait_s, 3)}
    )
