"""`understudy ps`: the running server's engines, what is loaded, what runs and waits."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Any

import httpx
import typer

from server.commands.configuration import read_settings
from server.commands.failure import CommandFailed
from server.commands.listing import AsJson, print_json, print_table
from server.settings import Settings

TIMEOUT_S = 10.0
"""The seconds for which the server may think about its answer."""

_GIGABYTE, _MEGABYTE = 10**9, 10**6
_RIGHT = frozenset(
    {"BYTES", "LOADED", "BUDGET", "HOST", "RUNS", "IMAGES", "EVALUATIONS", "SINCE", "REQUESTS", "ACCOUNTS"}
    | {"LONGEST"}
)


def ps(
    url: Annotated[
        str | None,
        typer.Option(help="Where the server is (UNDERSTUDY_HOST and UNDERSTUDY_PORT).", metavar="URL"),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="An administrator's key (UNDERSTUDY_ADMIN_KEY).", metavar="KEY")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the running server's engines, what is loaded in which bytes, what runs and waits."""
    settings = read_settings(admin_key=key)
    answer = _ask((url or _own_url(settings)).rstrip("/"), settings)
    if as_json:
        print_json(answer)
        return
    tables = [_engines(answer["engines"]), _loaded(answer["engines"]), _running(answer["engines"])]
    for number, (headings, rows) in enumerate(each for each in [*tables, _waiting(answer)] if each[1]):
        if number:
            print()
        print_table(headings, rows, right=_RIGHT)


def _own_url(settings: Settings) -> str:
    """Where a server of these settings answers a caller of its own machine."""
    host = settings.host
    try:
        address = ip_address(host)
    except ValueError:
        return f"http://{host}:{settings.port}"
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://{host if address.version == 4 else f'[{host}]'}:{settings.port}"


def _ask(url: str, settings: Settings) -> Any:
    """What the server answers.

    Raises:
        CommandFailed: there is no server, or it does not answer this key.
    """
    key = settings.admin_key.get_secret_value() if settings.admin_key else ""
    try:
        # Not by the proxy of the environment: the server is this machine's, or one that was named.
        with httpx.Client(trust_env=False, timeout=TIMEOUT_S) as client:
            answer = client.get(f"{url}/engines", headers={"x-api-key": key} if key else {})
    except httpx.ConnectError:
        raise CommandFailed(f"There is no server at {url}; `understudy serve` starts one", status=1) from None
    except httpx.TimeoutException:
        raise CommandFailed(f"The server at {url} does not answer", status=1) from None
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise CommandFailed(f"{url} cannot be asked: {error}", status=1) from None
    if answer.status_code in (401, 403):
        raise CommandFailed(_refusal(answer.status_code, bool(key)), status=1)
    try:
        body = answer.json()
        if answer.status_code != 200:
            raise CommandFailed(f"The server at {url} says: {body['error']}", status=1)
        return {"engines": body["engines"], "waiting": body["waiting"], **body}
    except (ValueError, KeyError, TypeError):
        raise CommandFailed(f"What answers at {url} is no Understudy, or an older one", status=1) from None


def _refusal(status: int, has_key: bool) -> str:
    if not has_key:
        which = "This needs an administrator's key"
    else:
        which = "The key is unknown or revoked" if status == 401 else "The key is no administrator's"
    return (
        f"{which}: say it in UNDERSTUDY_ADMIN_KEY or --key; "
        "`understudy keys create --account root --admin` makes one"
    )


Listed = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""The headings and the rows of a table."""


def _engines(engines: list[dict[str, Any]]) -> Listed:
    return ("ENGINE", "DEVICE", "STATE", "LOADED", "BUDGET", "HOST", "RUNS"), [
        (
            each["name"],
            each["device"] or "",
            f"{each['state']}: {each['reason']}" if each["reason"] else each["state"],
            _bytes(each["used_bytes"]),
            "" if each["budget_bytes"] is None else _bytes(each["budget_bytes"]),
            _bytes(each["host_bytes"]),
            str(len(each["running"])),
        )
        for each in engines
    ]


def _loaded(engines: list[dict[str, Any]]) -> Listed:
    return ("ENGINE", "PIPELINE", "PART", "PLACE", "BYTES"), [
        (engine["name"], pipeline["name"], part["name"], part["place"], _bytes(part["bytes"]))
        for engine in engines
        for pipeline in engine["pipelines"]
        for part in pipeline["parts"]
    ]


def _running(engines: list[dict[str, Any]]) -> Listed:
    return ("RUNNING", "ENGINE", "PIPELINE", "SIZE", "IMAGES", "EVALUATIONS", "SINCE", "ACCOUNT"), [
        (
            each["id"],
            engine["name"],
            each["pipeline"],
            f"{each['width']}x{each['height']}" if each["width"] else "",
            str(each["images"]),
            f"{each['evaluations']}/{each['evaluations_total'] or '?'}",
            _seconds(each["seconds"]),
            each["account"],
        )
        for engine in engines
        for each in engine["running"]
    ]


def _waiting(answer: dict[str, Any]) -> Listed:
    return ("WAITING", "REQUESTS", "ACCOUNTS", "LONGEST"), [
        (each["pipeline"], str(each["requests"]), str(each["accounts"]), _seconds(each["longest_s"]))
        for each in answer["waiting"]
    ]


def _bytes(count: int) -> str:
    if count >= _GIGABYTE:
        return f"{count / _GIGABYTE:.2f} GB"
    return f"{count / _MEGABYTE:.1f} MB" if count else "0"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"
