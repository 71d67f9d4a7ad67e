"""The whole application around an engine of flat colours, and what its tests send to the pages of Segmind."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image
from starlette.testclient import TestClient

from pipelines.drawing import Drawing, Timings
from pipelines.image_io import RGBImage
from pipelines.messages import Absent, Maintenance
from pipelines.request import Request
from server.engines.engine import EngineState
from server.http.services import Services
from tests.contract.parameters.stage import Answer

SLUGS = ["kandinsky2.2-txt2img", "kolors", "sd3-med-pose", "sd1.5-img2img"]
FURTHER_SLUGS = [
    "sd1.5-txt2img",
    "sd1.5-inpainting",
    *[f"sd1.5-controlnet-{kind}" for kind in ("canny", "depth", "openpose", "scribble", "softedge", "mlsd")],
    "sdxl1.0-txt2img",
    "sdxl1.0-img2img",
    "sdxl-img2img",
    "sdxl-inpaint",
    "esrgan",
]
UNKNOWN_ID = "6ad2c1a8-94c2-4a51-9a3e-3a5c74a1b0d2"


class PaintEngine:
    """Paints each picture in a colour made of its seed, at once, or when the gate is open, or fails."""

    name = "paint"
    group_pixels = 4 * 2**20
    resident = frozenset[str]()
    absences: tuple[Absent, ...] = ()

    def __init__(self) -> None:
        self.state, self.reason = EngineState.ready, None
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.requests: list[Request] = []
        self.warnings: tuple[str, ...] = ()

    def watch(self, on_change: Callable[[], None]) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def restart(self) -> None: ...

    async def maintain(self, maintenance: Maintenance) -> None: ...

    async def draw(
        self, ticket_id: str, request: Request, on_progress: Callable[[int, int], None]
    ) -> Drawing:
        self.requests.append(request)
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        area = request.width * request.height
        images = (
            RGBImage(request.width, request.height, bytes([seed % 256, 9, 99]) * area)
            for seed in request.seeds
        )
        return Drawing(
            images=tuple(images),
            flagged=None,
            warnings=self.warnings,
            timings=Timings(encode_s=0, denoise_s=0, decode_s=0, evaluations=41 * len(request.seeds)),
        )


class World:
    """The engine behind the application, and who may call.

    Attributes:
        rich, poor, other: API keys; the poor one's account has 0.015 credits.
    """

    def __init__(self, services: Services, engine: PaintEngine, call: Callable[..., Any]) -> None:
        self.engine, self.call = engine, call
        self._services = services
        self.rich, self.poor, self.other = (
            self._key("rich", 10**9),
            self._key("poor", 15),
            self._key("other", 1000),
        )

    def _key(self, name: str, millicredits: int) -> str:
        account = self.call(self._services.accounts.create, name)
        self.call(self._services.credits.grant, account.id, millicredits)
        return self.call(self._services.accounts.create_key, account.id)


def png(width: int = 96, height: int = 64) -> bytes:
    file = BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


PICTURE = base64.b64encode(png()).decode()


def body(slug: str, **more: object) -> dict[str, object]:
    """A body for the page that is drawn quickly."""
    picture = {"image": PICTURE} if slug in ("sd3-med-pose", "sd1.5-img2img") else {}
    small = {"width": 512, "height": 512} if slug == "kolors" else {"img_width": 512, "img_height": 512}
    return {"prompt": "a cat", "seed": 7, **picture, **small, **more}


def credits_of(client: TestClient, key: str) -> float:
    answer = client.get("/v1/get-user-credits", headers={"x-api-key": key})
    return answer.json()["credits"]


def picture_of(answer: Answer) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(BytesIO(answer.content))


def opened(client: TestClient, url: str) -> Answer:
    """The answer to anybody who opens an output without a key."""
    return client.get(url, headers={"x-api-key": ""})


def wait_for_end(client: TestClient, status_url: str) -> Answer:
    for _ in range(1000):
        answer = client.get(status_url)
        if answer.json()["status"] in ("COMPLETED", "FAILED"):
            return answer
    raise AssertionError("the request has not ended")
