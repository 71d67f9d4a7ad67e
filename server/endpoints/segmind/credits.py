"""GET /v1/get-user-credits: what is left on the caller's account."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from server.amounts import in_credits
from server.endpoints.segmind.routes import api_key, error_responses
from server.http import caller

router = APIRouter(tags=["segmind"], dependencies=[Depends(api_key)])


@router.get("/v1/get-user-credits", summary="Credits that are left", responses=error_responses(401))
async def user_credits(request: Request) -> dict[str, float]:
    account = await caller.authenticate_by_header(request)
    return {"credits": in_credits(account.balance), "free-credits": 0.0}
