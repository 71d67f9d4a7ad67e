"""`understudy demo`: the server on small checkpoints, and one picture through each of the five pages."""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from server.commands.demo_build import Building, NotBuilt
from server.commands.demo_home import KEY_FILE, demo_key, demo_settings
from server.commands.demo_progress import DemoProgress
from server.commands.demo_visit import Page, Visit, five_pages
from server.commands.serve import is_free, listen, run_until_stopped, web_server
from server.settings import Settings

INTERRUPTED = 130
PAGES = 5

console = Console()


def register(subparsers: argparse._SubParsersAction[Any]) -> None:  # pyright: ignore[reportPrivateUsage]
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "demo", help="serve small checkpoints and draw one picture through each page"
    )
    parser.add_argument("--once", action="store_true", help="stop after the pictures")
    parser.add_argument("--port", type=int, help="port to listen on (8000)")
    parser.add_argument("--output", type=Path, help="folder for the pictures (in the demo's own folder)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        return run(port=arguments.port, output=arguments.output, once=arguments.once)
    except KeyboardInterrupt:
        return INTERRUPTED


def run(*, port: int | None, output: Path | None, once: bool) -> int:
    """Build, serve and draw; return the exit status."""
    if find_spec("torch") is None:
        return _complain("The demo draws, and nothing that draws is installed: pip install -e '.[engine]'")
    settings = demo_settings(**({"port": port} if port else {}))
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _complain(f"The demo's folder {settings.data} cannot be made: {error.strerror}")
    listener = listen(settings)
    if listener is None or not is_free(settings):
        return 2
    progress = DemoProgress(console, PAGES)
    try:
        with Building(settings.data, progress.built) as building:
            settings = settings.model_copy(update={"manifest": building.manifest()})
            pages = five_pages(building.wait_for)
            return serve_and_draw(settings, listener, pages, output, progress, once=once)
    except NotBuilt as error:
        return _complain(str(error))


def serve_and_draw(
    settings: Settings,
    listener: socket.socket,
    pages: Sequence[Page],
    output: Path | None,
    progress: DemoProgress,
    *,
    once: bool,
) -> int:
    """Serve until Ctrl-C, or until the pictures are drawn; return the exit status.

    Args:
        output: the folder of the pictures; None: one in the demo's own folder.
        once: stop after the pictures.
    """
    api_key = asyncio.run(demo_key(settings))
    server = web_server(settings, settings.log_level)
    url = _url(settings)
    visit = Visit(url, api_key)
    failures: list[str] = []

    def draw() -> None:
        try:
            with progress:
                failures.extend(visit.run(pages, output or settings.data / "pictures", progress))
        except (OSError, RuntimeError) as error:
            failures.append(str(error))
        for failure in failures:
            console.print(failure, style="red", markup=False, highlight=False)
        if once or visit.leaving.is_set():
            server.should_exit = True
        else:
            _say_what_next(url, api_key, settings.data / KEY_FILE)

    drawing = threading.Thread(target=draw, daemon=True)
    drawing.start()
    run_until_stopped(server, listener)
    visit.leaving.set()
    if once:
        drawing.join()
    return 1 if failures else 0


def _url(settings: Settings) -> str:
    """The address by which this machine reaches the server."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _say_what_next(url: str, api_key: str, kept: Path) -> None:
    """Print a call that the reader can repeat, and last the page to open."""
    body = json.dumps({"prompt": "a red circle on a blue background"})
    print(
        f"\nServing until Ctrl-C, with one API key, the same at each start (kept in {kept}):\n{api_key}\n\n"
        f"curl -sS {url}/v1/kandinsky2.2-txt2img -H 'x-api-key: {api_key}' "
        f"-H 'content-type: application/json' -d '{body}' -o picture.jpg\n\n"
        f"Open {url}/docs",
        flush=True,
    )


def _complain(text: str) -> int:
    print(text, file=sys.stderr)
    return 1
