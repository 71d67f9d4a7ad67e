"""A client that visits a demo's pages, over HTTP as any other client does, and writes what they draw."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from pipelines import image_io
from server.commands.demo_progress import DemoProgress

START_TIMEOUT_S = 120.0
BUSY_TIMEOUT_S = 120.0
NOTICE_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 1800.0
"""The most seconds that one picture may take, with a real checkpoint on a slow machine."""


@dataclass
class Visit:
    """The server's address, the key, and the pictures so far.

    Attributes:
        key: the API key that pays.
        pictures: what was drawn, by the name of the page.
        leaving: set when the server ends, so that nobody waits for it.
    """

    url: str
    key: str
    pictures: dict[str, bytes] = field(default_factory=dict[str, bytes])
    leaving: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._client = httpx.Client(
            base_url=self.url, headers={"x-api-key": self.key}, timeout=ANSWER_TIMEOUT_S
        )

    def run(self, pages: Sequence[PageCall], output: Path, progress: DemoProgress) -> list[str]:
        """Draw through the pages in their order and write the pictures.

        Returns:
            what went wrong, in words.
        """
        output.mkdir(parents=True, exist_ok=True)
        failures: list[str] = []
        with self._client:
            self._wait_until_ready()
            for page in pages:
                try:
                    page.wait()
                    self._wait_until_noticed(page.pipeline)
                    progress.drawing(page.name)
                    begun = time.monotonic()
                    picture = page.draw(self)
                except (httpx.HTTPError, KeyError, RuntimeError) as error:
                    failures.append(f"{page.name}: {error}")
                    continue
                self.pictures[page.name] = picture
                (output / page.file).write_bytes(picture)
                progress.drew(output / page.file, len(self.pictures), time.monotonic() - begun)
        return failures

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """The answer to a call, which is made again while the server is busy with loading.

        Raises:
            RuntimeError: it is no success.
        """
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            answer = self._client.post(path, json=body)
            if answer.status_code != 503 or "retry-after" not in answer.headers:
                break
            if time.monotonic() > deadline or self.leaving.wait(1):
                break
        if answer.status_code != 200:
            raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text[:200]}")
        return answer

    def picture_of_job(self, path: str, body: dict[str, Any]) -> bytes:
        """The first picture of a call of the enterprise dialect, which may answer before it is drawn.

        Raises:
            RuntimeError: it was not drawn.
        """
        answer = self.post(path, {"key": self.key, **body}).json()
        while answer["status"] == "processing":
            if self.leaving.wait(1):
                raise RuntimeError("the server ends")
            answer = self.post(f"/api/v1/enterprise/fetch/{answer['id']}", {"key": self.key}).json()
        if answer["status"] != "success":
            raise RuntimeError(f"{path} answered: {answer['message']}")
        return self._client.get(answer["output"][0]).raise_for_status().content

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        reason = "no answer"
        while time.monotonic() < deadline:
            try:
                answer = self._client.get("/readyz")
                if answer.status_code == 200:
                    return
                reason = answer.text
            except httpx.TransportError as error:
                reason = str(error)
            if self.leaving.wait(0.2):
                raise RuntimeError("the server ended before it was ready")
        raise RuntimeError(f"the server did not become ready: {reason}")

    def _wait_until_noticed(self, pipeline: str) -> None:
        """Wait until the server, which looks for files every few seconds, misses nothing of a pipeline."""
        deadline = time.monotonic() + NOTICE_TIMEOUT_S
        while time.monotonic() < deadline:
            missing = self._client.get("/readyz").json().get("missing", [])
            if all(each["name"] != pipeline for each in missing) or self.leaving.wait(0.2):
                return


@dataclass(frozen=True)
class PageCall:
    """A documented page and one call of it.

    Attributes:
        name: the page's own name.
        file: the name of the file that gets the picture.
        draw: makes the call.
        wait: returns when what the page draws with is there.
        pipeline: the name in the manifest of what draws; empty where it was there before the server was.
    """

    name: str
    file: str
    draw: Callable[[Visit], bytes]
    wait: Callable[[], object] = lambda: None
    pipeline: str = ""


def five_pages(wait_for: Callable[[Sequence[str]], object]) -> list[PageCall]:
    """One call of each of the five documented pages, Stable Diffusion 1.5's first.

    Args:
        wait_for: waits until the small checkpoints of these names are built.
    """

    def page(name: str, file: str, draw: Callable[[Visit], bytes], pipeline: str, *needs: str) -> PageCall:
        return PageCall(name, file, draw, lambda: wait_for(needs), pipeline)

    sd15 = "stable-diffusion-v1-5", "sd15", "safety_checker"
    return [
        page("enterprise text2img", "enterprise-text2img.png", _text2img, *sd15),
        page("kandinsky2.2-txt2img", "kandinsky2.2-txt2img.jpg", _kandinsky, "kandinsky-2-2", "kandinsky22"),
        page("sd1.5-img2img", "sd1.5-img2img.jpg", _img2img, *sd15),
        page("kolors", "kolors.webp", _kolors, "kolors", "kolors"),
        page("sd3-med-pose", "sd3-med-pose.png", _pose, "sd3-medium-pose", "sd3"),
    ]


def _text2img(visit: Visit) -> bytes:
    body = {
        "model_id": "stable-diffusion-v1-5",
        "prompt": "a white triangle on a purple background",
        "seed": 5,
    }
    return visit.picture_of_job("/api/v1/enterprise/text2img", body)


def _kandinsky(visit: Visit) -> bytes:
    body = {"prompt": "a red circle on a blue background", "seed": 1}
    return visit.post("/v1/kandinsky2.2-txt2img", body).content


def _img2img(visit: Visit) -> bytes:
    if "kandinsky2.2-txt2img" not in visit.pictures:
        raise RuntimeError("there is no picture to draw over")
    image = base64.b64encode(visit.pictures["kandinsky2.2-txt2img"]).decode()
    body = {"prompt": "a yellow square on a green background", "image": image, "seed": 4}
    return visit.post("/v1/sd1.5-img2img", body).content


def _kolors(visit: Visit) -> bytes:
    return visit.post("/v1/kolors", {"prompt": "黄色背景上的绿色星星", "seed": 2}).content


def _pose(visit: Visit) -> bytes:
    # Not at the top: it needs NumPy, which an image without engines does not have.
    from pipelines.demo.world.figure import demo_skeleton

    skeleton = image_io.encode(demo_skeleton(512, 768), "png")
    body = {
        "prompt": "an orange figure on a blue background",
        "image": base64.b64encode(skeleton).decode(),
        "seed": 3,
        "base64": True,
    }
    return base64.b64decode(visit.post("/v1/sd3-med-pose", body).json()["image"])
