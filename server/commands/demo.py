"""`understudy demo`: the server on small checkpoints, and one picture through each of the five pages.

With ``--real`` it is one small real checkpoint instead, and the samples of two pages.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipelines.weights.installed import engine_missing
from server.commands.demo_build import Building, NotBuilt
from server.commands.demo_home import KEY_FILE, demo_key, demo_settings
from server.commands.demo_progress import DemoProgress
from server.commands.demo_visit import PageCall, Visit, five_pages
from server.commands.failure import CommandFailed
from server.commands.serve import check_free, listen, run_until_stopped, web_server
from server.commands.session import check_data_folder
from server.settings import Settings

ASKED_WRONGLY = 2
PAGES = 5

Example = tuple[str, dict[str, str]]
"""The path and the body of a call."""

console = Console()


def demo(
    real: Annotated[
        bool, typer.Option("--real", help="Draw with a small real checkpoint, which is downloaded (1 GB).")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --real: agree to licence and download.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Stop after the pictures.")] = False,
    port: Annotated[int | None, typer.Option(help="Port to listen on (8000).")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the pictures (in the demo's own folder).")
    ] = None,
) -> None:
    """Serve small checkpoints and draw one picture through each page."""
    if missing := engine_missing():
        raise CommandFailed(missing)
    settings = demo_settings(port=port)
    check_data_folder(settings)
    listener = listen(settings)
    check_free(settings)
    serving = Serving(settings, listener, output or settings.data / "pictures", once=once)
    raise typer.Exit(_real(serving, yes=yes) if real else _small(serving))


def _small(serving: Serving) -> int:
    progress = DemoProgress(console, PAGES)
    try:
        with Building(serving.settings.data, progress.built) as building:
            manifest = building.manifest()
            example = "/v1/kandinsky2.2-txt2img", {"prompt": "a red circle on a blue background"}
            return serving.draw(manifest, five_pages(building.wait_for), progress, example)
    except NotBuilt as error:
        raise CommandFailed(str(error), status=1) from error


def _real(serving: Serving, *, yes: bool) -> int:
    # Not at the top: who wants no download needs none of it.
    from pipelines.weights.hub import PullError
    from server.commands import demo_real

    weights = serving.settings.weights
    try:
        if wanted := demo_real.missing(weights):
            console.print(demo_real.terms(wanted, weights), markup=False, highlight=False, soft_wrap=True)
            if not demo_real.agreed(console, yes=yes):
                return ASKED_WRONGLY
            if status := demo_real.pull(weights):
                return status
    except PullError as error:
        raise CommandFailed(str(error), status=error.exit_code) from error
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
        pages: Sequence[PageCall],
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

        # What is being built is missing for a moment, and comes.
        logging.getLogger("server.engines.process").setLevel(logging.ERROR)

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
