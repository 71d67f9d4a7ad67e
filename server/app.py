"""The composition root: builds each concrete part, connects it, takes it down; decides nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import cast

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from pipelines.weights.installed import engine_missing
from server import errors
from server.accounts.accounts import Accounts
from server.accounts.credits import Credits
from server.database.database import Database, database_url
from server.endpoints import engines as engines_page
from server.endpoints import health, outputs
from server.endpoints import metrics as metrics_page
from server.endpoints.enterprise import dialect as enterprise
from server.endpoints.openapi import TAGS, DocumentedAPI
from server.endpoints.segmind import dialect as segmind
from server.engines.devices import local_engines
from server.engines.dispatch import Dispatch
from server.engines.engine_metrics import show_engines
from server.engines.queue import JobQueue
from server.http import caller
from server.http.call_state import call_state
from server.http.middleware import EXPOSED_HEADERS, CallMiddleware
from server.http.services import Services
from server.jobs.jobs import Jobs
from server.loading import changes
from server.loading.catalogue import Catalogue
from server.loading.loads import Loads
from server.loading.usage import UsageRecord
from server.metrics import Metrics
from server.outside.public_http import PublicHTTP
from server.outside.remote_images import RemoteImages
from server.settings import Settings
from server.storage import Storage, open_storage
from server.studio import Studio
from server.webhooks.delivery import Deliveries
from server.webhooks.outbox import Webhooks
from server.webhooks.secret import webhook_secret

log = logging.getLogger(__name__)

SWEEP_INTERVAL_S = 600.0


def create_app(settings: Settings) -> FastAPI:
    """The whole server as one ASGI application; engines start and stop with its lifespan."""
    app = DocumentedAPI(
        title="Understudy",
        description="Stands in for hosted image-generation APIs: change the base URL, keep the client.",
        version="0.1.0",
        lifespan=_lifespan,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=TAGS,
        servers=_servers(settings),
        redirect_slashes=False,  # see `CallMiddleware`
    )
    app.state.settings = settings
    pages = health.router, outputs.router, metrics_page.router, engines_page.router
    for router in (*segmind.routers, *enterprise.routers, *pages):
        app.include_router(router)
    app.add_exception_handler(errors.ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _caller_gone)
    app.add_middleware(
        CallMiddleware, max_body_bytes=int(settings.max_body_mb * 1_000_000), on_error=_unexpected_error
    )
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["*"],
        allow_headers=["*"],
        allow_private_network=True,
        expose_headers=EXPOSED_HEADERS,
    )
    return app


def _servers(settings: Settings) -> list[dict[str, str]]:
    """Where the document says that the server is: a program that writes a client wants an absolute URL."""
    own = settings.public_url or f"http://{settings.host}:{settings.port}"
    return [
        {"url": "/", "description": "This server"},
        {"url": own.rstrip("/"), "description": "Its own URL"},
    ]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    settings: Settings = app.state.settings
    settings.data.mkdir(parents=True, exist_ok=True)
    database = Database(database_url(settings))
    try:
        async with database.hold_server_lock():
            await database.migrate()
            with changes.announce(settings.weights):
                async with _running(app, database):
                    yield
    finally:
        await database.close()


@asynccontextmanager
async def _running(app: FastAPI, database: Database) -> AsyncGenerator[None]:
    settings: Settings = app.state.settings
    storage = open_storage(settings)
    jobs = Jobs(database, enterprise.announcement)
    missing = engine_missing()
    if missing:
        log.warning("%s; everything else is served", missing)
    dispatch = Dispatch(
        [] if missing else local_engines(settings),
        JobQueue(limit=settings.queue_limit, limit_per_account=settings.queue_limit_per_account),
        queue_timeout_s=settings.queue_timeout_s,
        why_none=missing,
    )
    metrics = Metrics()
    metrics.watch("queue_length", "Requests that wait for an engine", lambda: dispatch.queue_length)
    metrics.watch("running", "Requests that an engine has", lambda: dispatch.running)
    metrics.watch("ready", "1 while an engine can draw", lambda: dispatch.readiness() is None)
    show_engines(metrics, dispatch)
    webhooks = Webhooks(database)
    public_http = PublicHTTP(settings.fetch_allowed_hosts)
    deliveries = Deliveries(webhooks, public_http, webhook_secret(settings), metrics)
    catalogue = Catalogue(settings)
    loads = Loads(settings, catalogue, dispatch, webhooks, public_http)
    studio = Studio(jobs, dispatch, storage, metrics, settings)
    app.state.services = Services(
        settings=settings,
        accounts=Accounts(database),
        credits=Credits(database),
        studio=studio,
        storage=storage,
        images=RemoteImages(settings),
        catalogue=catalogue,
        loads=loads,
        dispatch=dispatch,
        metrics=metrics,
        public_http=public_http,
        webhooks=webhooks,
    )
    await dispatch.start()
    await studio.resume()
    await loads.resume()
    background = [
        asyncio.create_task(_sweep(storage, jobs, webhooks, settings.output_retention_s)),
        asyncio.create_task(deliveries.run()),
        asyncio.create_task(changes.follow(catalogue, dispatch, UsageRecord(settings.data))),
    ]
    try:
        yield
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await deliveries.stop()
        await loads.stop()
        await studio.stop()
        await dispatch.stop()


async def _sweep(storage: Storage, jobs: Jobs, webhooks: Webhooks, retention_s: float) -> None:
    """Remove outputs, and records of jobs and webhooks, whose retention is over, again and again."""
    while True:
        try:
            removed = await storage.sweep()
            before = datetime.now(UTC) - timedelta(seconds=retention_s)
            removed += await jobs.expire(before)
            removed += await webhooks.expire(before)
            if removed:
                log.info("removed %d expired outputs, jobs and webhooks", removed)
        except Exception:
            log.exception("sweeping failed; trying again later")
        await asyncio.sleep(SWEEP_INTERVAL_S)


def _is_enterprise(request: Request) -> bool:
    """Whether a path is of the enterprise dialect: everything below /api/ is, whatever the version."""
    return f"{request.scope['path']}/".startswith(enterprise.ROOT)


def _in_dialect(request: Request, error: errors.ApiError) -> Response:
    dialect = enterprise if _is_enterprise(request) else segmind
    return dialect.error_response(error, request)


async def _recognise(request: Request) -> None:
    """Let the answer say the caller's balance although no page was reached."""
    dialect = enterprise if _is_enterprise(request) else segmind
    with suppress(ClientDisconnect):
        await caller.recognise(request, await dialect.sent_key(request))


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.ApiError)
    return _in_dialect(request, error)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer for the framework's own refusals: no such route, or not with this verb."""
    assert isinstance(error, HTTPException)
    if error.status_code != 405:
        await _recognise(request)
        return _in_dialect(request, errors.NoSuchPage())
    allow = {"allow": ", ".join(_verbs(request))}
    if request.method == "OPTIONS":
        return Response(status_code=204, headers=allow)
    await _recognise(request)
    response = _in_dialect(request, errors.MethodNotAllowed())
    response.headers.update(allow)
    return response


def _verbs(request: Request) -> list[str]:
    """The verbs that the routes of this path have, all of them together."""
    routes = cast(FastAPI, request.app).routes
    return [
        verb
        for verb in ("GET", "HEAD", "POST")
        if any(route.matches({**request.scope, "method": verb})[0] is Match.FULL for route in routes)
    ]


async def _caller_gone(request: Request, error: Exception) -> Response:
    """Answer a caller who hung up in the middle of the body: nobody reads it, and nothing is wrong."""
    return _in_dialect(request, errors.CallerGone())


async def _unexpected_error(request: Request, error: Exception) -> Response:
    log.error("request %s failed", call_state(request).request_id, exc_info=error)
    return _in_dialect(request, errors.InternalError())
