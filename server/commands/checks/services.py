"""What a server speaks with and where it is spoken to: database, store, address, port, clock."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx
from obstore import exceptions as store_errors
from sqlalchemy import func, select

from server import errors
from server.commands.checks.finding import PATIENCE_S, Finding
from server.database.database import Database, database_url
from server.database.errors import UnusableDatabase
from server.database.tables import api_keys
from server.settings import Settings
from server.storage import open_storage

ONLY_HERE = "only programs of this machine can open them"

LATE_S = 60
"""The seconds by which a clock may be wrong before people are warned."""


def database_findings(settings: Settings) -> list[Finding]:
    """Whether the database can be reached, is of this version, and is nobody else's."""
    try:
        database = Database(database_url(settings), busy_timeout_s=PATIENCE_S / 2)
    except UnusableDatabase as error:
        return [Finding("database", "problem", str(error), "Correct UNDERSTUDY_DATABASE_URL.")]
    path = database.engine.url.database or ""
    if database.is_sqlite and not _is_file(path):
        words = f"{path} is made at the first start"
        return [Finding("database", "ok", words), _keys_finding(0, settings)]
    if not database.is_sqlite and (unknown := unresolved(database.engine.url.host)):
        return [Finding("database", "problem", unknown, "Correct UNDERSTUDY_DATABASE_URL.")]
    try:
        return asyncio.run(asyncio.wait_for(_ask(database, settings), PATIENCE_S))
    except (UnusableDatabase, errors.Unavailable) as error:
        reason = error.__cause__ or error
        return [Finding("database", "problem", f"{where(database)}: {reason}", _START_IT)]
    except TimeoutError:
        words = f"{where(database)}: no answer within {PATIENCE_S:g} s"
        return [Finding("database", "problem", words, _START_IT)]
    except Exception as error:
        # A wrong password, a name of no database: the driver's own words say it best.
        words = f"{where(database)}: {' '.join(str(error.__cause__ or error).split())}"
        return [Finding("database", "problem", words, "Correct UNDERSTUDY_DATABASE_URL.")]


_START_IT = "Start it, or correct UNDERSTUDY_DATABASE_URL."


def _is_file(path: str) -> bool:
    try:
        with open(path, "rb"):
            return True
    except FileNotFoundError:
        return False
    except OSError:
        return True


def where(database: Database) -> str:
    """The place of a database, without its password."""
    return database.engine.url.render_as_string(hide_password=True).partition("?")[0]


async def _ask(database: Database, settings: Settings) -> list[Finding]:
    try:
        current, newest = await database.revisions()
        if current is not None and current > newest:
            words = f"{where(database)} was written by a newer version ({current}, this one knows {newest})"
            return [Finding("database", "problem", words, "Install that version, or use another database.")]
        state = (
            "up to date"
            if current == newest
            else f"brought from {current or 'empty'} to {newest} at the start"
        )
        findings = [Finding("database", "ok", f"{where(database)}, {state}")]
        count = 0
        if current is not None:
            counted = select(func.count()).where(api_keys.c.revoked_at.is_(None))
            async with database.reading() as connection:
                count = (await connection.execute(counted)).scalar_one()
        findings.append(_keys_finding(count, settings))
        findings += await _server_findings(database)
        return findings
    finally:
        await database.close()


async def _server_findings(database: Database) -> list[Finding]:
    try:
        async with database.hold_server_lock():
            return []
    except UnusableDatabase:
        words = "one runs on this database now; a second one would not start"
        return [Finding("server", "warning", words, "Stop it before you start another.")]


def _keys_finding(count: int, settings: Settings) -> Finding:
    if settings.auth == "open":
        words = "none are needed: whoever reaches this server may draw (UNDERSTUDY_AUTH=open)"
        return Finding("keys", "warning", words, "Keep strangers away from its port.")
    if not count:
        remedy = "understudy keys create --account me --credits 100"
        return Finding("keys", "warning", "there is none yet, so nobody can call", remedy)
    return Finding("keys", "ok", f"{count} valid")


def storage_finding(settings: Settings) -> Finding:
    """Whether outputs can be written, read and removed: a small object goes the whole way."""
    if settings.storage_url is None and not settings.data.exists():
        return Finding("store", "ok", f"{settings.data / 'outputs'}, made at the start")
    place = settings.storage_url or str(settings.data / "outputs")
    at = f"{place} at {settings.storage_endpoint}" if settings.storage_endpoint else place
    host = urlsplit(settings.storage_endpoint or "").hostname
    if unknown := unresolved(host):
        return Finding("store", "problem", f"{at}: {unknown}", "Correct UNDERSTUDY_STORAGE_ENDPOINT.")
    name, content = f"doctor-{secrets.token_hex(8)}.txt", b"written by understudy doctor"

    async def probe() -> bool:
        try:
            return (await storage.get(name))[0] == content
        finally:
            await storage.delete(name)

    try:
        storage = open_storage(settings)
        # Not through asyncio: its threads would keep the process while a store is silent.
        storage.write(name, content, "text/plain", temporary=True)
        same = asyncio.run(asyncio.wait_for(probe(), PATIENCE_S))
    except TimeoutError:
        remedy = "Start the store, or correct UNDERSTUDY_STORAGE_ENDPOINT."
        return Finding("store", "problem", f"{at} does not answer", remedy)
    except (store_errors.BaseError, OSError, ValueError) as error:
        words, remedy = _store_words(error)
        return Finding("store", "problem", f"{at}: {words}", remedy)
    if not same:
        return Finding("store", "problem", f"{at} gives other bytes than it was given")
    return Finding("store", "ok", f"{at}: written, read and removed")


def _store_words(error: Exception) -> tuple[str, str]:
    said = " ".join(str(error).split())
    keys = "Correct UNDERSTUDY_STORAGE_ACCESS_KEY and UNDERSTUDY_STORAGE_SECRET_KEY."
    if "NoSuchBucket" in said:
        return "there is no such bucket", "Make it, or correct UNDERSTUDY_STORAGE_URL."
    if "169.254.169.254" in said or ("metadata" in said and "token" in said.lower()):
        return "there are no keys for it, and this machine has no role in a cloud", keys.replace(
            "Correct", "Set"
        )
    match error:
        case store_errors.PermissionDeniedError() | store_errors.UnauthenticatedError():
            return "the keys may not write there", keys
        case PermissionError():
            return "nothing can be written there", "Let its owner be this user."
        case _ if "SignatureDoesNotMatch" in said or "InvalidAccessKeyId" in said:
            return "the keys are not accepted", keys
        case _ if "error sending request" in said or "onnect" in said:
            return "it does not answer", "Start the store, or correct UNDERSTUDY_STORAGE_ENDPOINT."
        case _:
            return said[:300], "Read what the store says."


def public_url_finding(settings: Settings) -> Finding:
    """Whether the URL that answers name can be opened, as far as this machine can tell."""
    url = settings.public_url
    if url is None:
        if is_loopback(settings.host):
            words = f"not set; pictures get http://{settings.host}:{settings.port}/...: {ONLY_HERE}"
        else:
            words = "not set; pictures get the host that each request was sent to"
        return Finding("public url", "ok", words)
    host = urlsplit(url).hostname or ""
    if is_loopback(host) or host in ("0.0.0.0", "::"):
        remedy = "Set UNDERSTUDY_PUBLIC_URL to the name by which clients reach this machine."
        return Finding("public url", "warning", f"pictures get {url}/...: {ONLY_HERE}", remedy)
    if unknown := unresolved(host):
        return Finding("public url", "warning", unknown, "Correct UNDERSTUDY_PUBLIC_URL, or its name server.")
    try:
        answer = httpx.get(f"{url.rstrip('/')}/livez", timeout=PATIENCE_S / 2, follow_redirects=False)
    except httpx.HTTPError as error:
        words = f"{url} does not answer from here ({type(error).__name__}); it need not while no server runs"
        return Finding("public url", "warning", words)
    if answer.status_code == 200:
        return Finding("public url", "ok", f"{url} leads to a server")
    words = f"{url}/livez answers {answer.status_code}; a proxy does so while no server runs behind it"
    return Finding("public url", "warning", words)


def port_finding(settings: Settings) -> Finding:
    """Whether `serve` could listen."""
    at = f"{settings.host}:{settings.port}"
    try:
        socket.create_server((settings.host, settings.port)).close()
    except OSError as error:
        remedy = "Set UNDERSTUDY_PORT to another one, or stop what listens there."
        if error.errno == errno.EADDRINUSE and _is_ours(settings):
            words = f"{at}: a server answers there now; a second one would not start"
            return Finding("port", "warning", words, "Stop it before you start another.")
        if error.errno == errno.EACCES:
            remedy = "Ports below 1024 are root's: set UNDERSTUDY_PORT to a higher one."
        elif error.errno != errno.EADDRINUSE:
            remedy = "Set UNDERSTUDY_HOST to an address of this machine, or to 0.0.0.0."
        reason = "in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
        return Finding("port", "problem", f"{at}: {reason}", remedy)
    return Finding("port", "ok", f"{at} is free")


def _is_ours(settings: Settings) -> bool:
    """Whether what listens is a server of this project."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host
    try:
        answer = httpx.get(f"http://{host}:{settings.port}/livez", timeout=PATIENCE_S / 2, trust_env=False)
        return answer.status_code == 200 and answer.json() == {"status": "ok"}
    except (httpx.HTTPError, ValueError):
        return False


def clock_finding(addresses: list[str]) -> Finding:
    """Whether the clock is right, by the first of these addresses that tells the time."""
    for address in addresses:
        try:
            said = httpx.head(address, timeout=PATIENCE_S / 2).headers["date"]
            told = parsedate_to_datetime(said)
        except (httpx.HTTPError, KeyError, ValueError):
            continue
        off = (datetime.now(UTC) - told).total_seconds()
        host = urlsplit(address).netloc
        if abs(off) > LATE_S:
            words = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} {host}"
            return Finding(
                "clock", "warning", words, "Set it; stores and receivers refuse signatures of other times."
            )
        return Finding("clock", "ok", f"as {host} has it")
    return Finding("clock", "ok", "not compared: nothing with a clock answers")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine for itself alone."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def unresolved(host: str | None) -> str | None:
    """What is wrong with the name of a host; None: it has an address."""
    if not host:
        return None
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return f"{host} has no address"
    return None
