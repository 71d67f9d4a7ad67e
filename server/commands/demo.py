"""`understudy demo`: the server on small checkpoints, and one picture through each of the five pages."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from pipelines import image_io
from server.accounts.accounts import Accounts
from server.accounts.credits import Credits
from server.commands.configuration import read_settings
from server.commands.serve import check_free, listen, run_until_stopped, web_server
from server.database.database import Database, database_url
from server.settings import Settings

ACCOUNT = "demo"
CREDITS_MILLI = 1_000_000
START_TIMEOUT_S = 120.0

console = Console()


def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop after the pictures.")] = False,
    port: Annotated[int | None, typer.Option(help="Port to listen on (8000).")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo-output"),
) -> None:
    """Serve small checkpoints and draw one picture through each page."""
    raise typer.Exit(_run(read_settings(port=port), output, once=once))


def _run(settings: Settings, output: Path, *, once: bool) -> int:
    listener = listen(settings)
    check_free(settings)
    console.print("Building the small checkpoints ...")
    # In a process of its own: building needs torch, which the API process never loads.
    built = subprocess.run(
        [sys.executable, "-m", "pipelines.demo.build", str(settings.data)], stdout=subprocess.PIPE, text=True
    )
    if built.returncode:
        console.print("[red]The small checkpoints could not be built.")
        return 1
    settings = settings.model_copy(update={"manifest": Path(built.stdout.strip())})
    api_key = asyncio.run(_demo_key(settings))
    server = web_server(settings, "warning")
    visit = _Visit(f"http://{settings.host}:{settings.port}", api_key, output)
    failures: list[str] = []

    def visitor() -> None:
        try:
            failures.extend(visit.run())
            if not once:
                visit.print_example_call()
        except Exception as error:
            failures.append(str(error))
        finally:
            if once:
                server.should_exit = True

    thread = threading.Thread(target=visitor, daemon=True)
    thread.start()
    run_until_stopped(server, listener)
    if once:
        thread.join()
    for failure in failures:
        console.print(f"[red]{failure}")
    return 1 if failures else 0


async def _demo_key(settings: Settings) -> str:
    """Create an API key of the demo account, which is itself created and credited on first use."""
    settings.data.mkdir(parents=True, exist_ok=True)
    database = Database(database_url(settings))
    try:
        await database.migrate()
        accounts = Accounts(database)
        account = await accounts.find(ACCOUNT)
        if account is None:
            account = await accounts.create(ACCOUNT, is_administrator=True)
        if account.balance < CREDITS_MILLI:
            await Credits(database).grant(account.id, CREDITS_MILLI, "demo")
        return await accounts.create_key(account.id, "demo")
    finally:
        await database.close()


@dataclass
class _Visit:
    """A client that visits the five pages, over HTTP as any other client does."""

    url: str
    api_key: str
    output: Path
    pictures: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def run(self) -> list[str]:
        """Draw the pictures and write them; return what went wrong, in words."""
        self.output.mkdir(parents=True, exist_ok=True)
        failures: list[str] = []
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        pages = (self._kandinsky, self._kolors, self._pose, self._img2img, self._text2img)
        with (
            httpx.Client(base_url=self.url, headers={"x-api-key": self.api_key}, timeout=300) as client,
            Progress(*columns, console=console) as progress,
        ):
            task = progress.add_task("waiting for the engine", total=len(pages))
            self._wait_until_ready(client)
            for page in pages:
                name = page.__name__.removeprefix("_")
                progress.update(task, description=f"drawing through {name}")
                try:
                    file_name, picture = page(client)
                except (httpx.HTTPError, KeyError, RuntimeError) as error:
                    failures.append(f"{name}: {error}")
                    continue
                self.pictures[name] = picture
                (self.output / file_name).write_bytes(picture)
                progress.advance(task)
            progress.update(task, description="done")
        console.print(f"{len(self.pictures)} pictures in {self.output}/")
        return failures

    def _wait_until_ready(self, client: httpx.Client) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        reason = "no answer"
        while time.monotonic() < deadline:
            try:
                answer = client.get("/readyz")
                if answer.status_code == 200:
                    return
                reason = answer.text
            except httpx.TransportError as error:
                reason = str(error)
            time.sleep(0.2)
        raise RuntimeError(f"the server did not become ready: {reason}")

    def _post(self, client: httpx.Client, path: str, body: dict[str, Any]) -> httpx.Response:
        answer = client.post(path, json=body)
        if answer.status_code != 200:
            raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text[:200]}")
        return answer

    def _kandinsky(self, client: httpx.Client) -> tuple[str, bytes]:
        body = {"prompt": "a red circle on a blue background", "seed": 1}
        return "kandinsky2.2-txt2img.jpg", self._post(client, "/v1/kandinsky2.2-txt2img", body).content

    def _kolors(self, client: httpx.Client) -> tuple[str, bytes]:
        body = {"prompt": "黄色背景上的绿色星星", "seed": 2}
        return "kolors.webp", self._post(client, "/v1/kolors", body).content

    def _pose(self, client: httpx.Client) -> tuple[str, bytes]:
        # Not at the top: it needs NumPy, which an image without engines does not have.
        from pipelines.demo.world.figure import demo_skeleton

        skeleton = image_io.encode(demo_skeleton(512, 768), "png")
        body = {
            "prompt": "an orange figure on a blue background",
            "image": base64.b64encode(skeleton).decode(),
            "seed": 3,
            "base64": True,
        }
        answer = self._post(client, "/v1/sd3-med-pose", body)
        return "sd3-med-pose.png", base64.b64decode(answer.json()["image"])

    def _img2img(self, client: httpx.Client) -> tuple[str, bytes]:
        image = base64.b64encode(self.pictures["kandinsky"]).decode()
        body = {"prompt": "a yellow square on a green background", "image": image, "seed": 4}
        return "sd1.5-img2img.jpg", self._post(client, "/v1/sd1.5-img2img", body).content

    def _text2img(self, client: httpx.Client) -> tuple[str, bytes]:
        body = {
            "key": self.api_key,
            "model_id": "stable-diffusion-v1-5",
            "prompt": "a white triangle on a purple background",
            "seed": 5,
        }
        answer = self._post(client, "/api/v1/enterprise/text2img", body).json()
        while answer["status"] == "processing":
            time.sleep(1)
            answer = self._post(
                client, f"/api/v1/enterprise/fetch/{answer['id']}", {"key": self.api_key}
            ).json()
        if answer["status"] != "success":
            raise RuntimeError(f"text2img answered: {answer['message']}")
        return "enterprise-text2img.png", client.get(answer["output"][0]).raise_for_status().content

    def print_example_call(self) -> None:
        """Print a call that the reader can repeat."""
        body = json.dumps({"prompt": "a red circle on a blue background"})
        console.print("Serving until Ctrl-C. Try:")
        print(
            f"curl -sS {self.url}/v1/kandinsky2.2-txt2img -H 'x-api-key: {self.api_key}' "
            f"-H 'content-type: application/json' -d '{body}' -o picture.jpg",
            flush=True,
        )
