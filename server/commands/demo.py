"""`understudy demo`: the server on small checkpoints, and one picture through each of the five pages.

With ``--real`` it is one small real checkpoint instead, and the samples of two pages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
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

ASKED_WRONGLY = 2
INTERRUPTED = 130
PAGES = 5

Example = tuple[str, dict[str, str]]
"""The path and the body of a call."""

console = Console()


def register(subparsers: argparse._SubParsersAction[Any]) -> None:  # pyright: ignore[reportPrivateUsage]
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "demo", help="serve small checkpoints and draw one picture through each page"
    )
    parser.add_argument(
        "--real", action="store_true", help="draw with a small real checkpoint, which is downloaded"
    )
    parser.add_argument("--yes", action="store_true", help="with --real: agree to licence and download")
    parser.add_argument("--once", action="store_true", help="stop after the pictures")
    parser.add_argument("--port", type=int, help="port to listen on (8000)")
    parser.add_argument("--output", type=Path, help="folder for the pictures (in the demo's own folder)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        return run(
            port=arguments.port,
            output=arguments.output,
            once=arguments.once,
            real=arguments.real,
            yes=arguments.yes,
        )
    except KeyboardInterrupt:
        return INTERRUPTED


def run(*, port: int | None, output: Path | None, once: bool, real: bool, yes: bool) -> int:
    """Build or pull, serve and draw; return the exit status."""
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
    serving = Serving(settings, listener, output or settings.data / "pictures", once=once)
    return _real(serving, yes=yes) if real else _small(serving)


def _small(serving: Serving) -> int:
    progress = DemoProgress(console, PAGES)
    try:
        with Building(serving.settings.data, progress.built) as building:
            manifest = building.manifest()
            example = "/v1/kandinsky2.2-txt2img", {"prompt": "a red circle on a blue background"}
            return serving.draw(manifest, five_pages(building.wait_for), progress, example)
    except NotBuilt as error:
        return _complain(str(error))


def _real(serving: Serving, *, yes: bool) -> int:
    # Not at the top: who wants no download needs none of it.
    from pipelines.weights.hub import PullError
    from server.commands import demo_real

    weights = serving.settings.weights
    try:
        if wanted := demo_real.missing(weights):
            console.print(demo_real.terms(wanted), markup=False, highlight=False, soft_wrap=True)
            if not demo_real.agreed(console, yes=yes):
                return ASKED_WRONGLY
            if status := demo_real.pull(weights):
                return status
    except PullError as error:
        return _complain(str(error), error.exit_code)
    console.print(*demo_real.CHANGED, sep="\n", markup=False, highlight=False, soft_wrap=True)
    pages = demo_real.real_pages()
    example = "/v1/sd1.5-txt2img", {"prompt": "a lighthouse at dusk, oil painting"}
    return serving.draw(demo_real.MANIFEST, pages, DemoProgress(console, len(pages)), example)


@dataclass(frozen=True)
class Serving:
    """Where a demo serves and puts its pictures.

    Attributes:
        output: the folder of the pictures.
        once: stop after the pictures, instead of at Ctrl-C.
    """

    settings: Settings
    listener: socket.socket
    output: Path
    once: bool

    def draw(
        self,
        manifest: Path,
        pages: Sequence[Page],
        progress: DemoProgress,
        example: Example,
    ) -> int:
        """Serve what a manifest names, draw through the pages, and return the exit status.

        Args:
            example: the call that is printed for the reader to repeat.
        """
        api_key = asyncio.run(demo_key(self.settings))
        server = web_server(self.settings.model_copy(update={"manifest": manifest}), self.settings.log_level)
        url = _url(self.settings)
        visit = Visit(url, api_key)
        failures: list[str] = []

        def draw() -> None:
            try:
                with progress:
                    failures.extend(visit.run(pages, self.output, progress))
            except (OSError, RuntimeError) as error:
                failures.append(str(error))
            for failure in failures:
                console.print(failure, style="red", markup=False, highlight=False)
            if self.once or visit.leaving.is_set():
                server.should_exit = True
            else:
                _say_what_next(url, api_key, self.settings.data / KEY_FILE, example)

        drawing = threading.Thread(target=draw, daemon=True)
        drawing.start()
        run_until_stopped(server, self.listener)
        visit.leaving.set()
        if self.once:
            drawing.join()
        return 1 if failures else 0


def _url(settings: Settings) -> str:
    """The address by which this machine reaches the server."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _say_what_next(url: str, api_key: str, kept: Path, example: Example) -> None:
    """Print a call that the reader can repeat, and last the page to open."""
    path, body = example
    print(
        f"\nServing until Ctrl-C, with one API key, the same at each start (kept in {kept}):\n{api_key}\n\n"
        f"curl -sS {url}{path} -H 'x-api-key: {api_key}' "
        f"-H 'content-type: application/json' -d '{json.dumps(body)}' -o picture.jpg\n\n"
        f"Open {url}/docs",
        flush=True,
    )


def _complain(text: str, status: int = 1) -> int:
    print(text, file=sys.stderr)
    return status
