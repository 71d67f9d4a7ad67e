"""`understudy demo --real`: pull a small real checkpoint once, and draw two pages' own prompts with it."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from rich.console import Console

import pipelines
from pipelines import image_io
from pipelines.weights.downloads import plan, sized
from pipelines.weights.hub import Hub
from pipelines.weights.lock import problems, read_lock
from pipelines.weights.manifest import load_manifest
from pipelines.weights.repositories import Repository, repositories
from server.commands.demo_visit import PageCall, Visit

MANIFEST = Path(pipelines.__path__[0]) / "demo" / "real.yaml"
"""What is pulled and drawn with."""

CHANGED = (
    "text2img: 10 steps, the sample has 20; seed 1, the sample leaves it to chance.",
    "sd1.5-img2img: 20 steps, the fewest that the page allows, the sample has 25; over a sketch that is "
    "drawn here, the sample names a picture on the vendor's site.",
)
"""What of the documentation's samples is changed, for the sake of time and of a machine without network."""

TEXT2IMG: Mapping[str, Any] = {
    "model_id": "stable-diffusion-v1-5",
    "prompt": "ultra realistic close up portrait ((beautiful pale cyberpunk female with heavy black "
    "eyeliner)), blue eyes, shaved side haircut, hyper detail, cinematic lighting, magic neon, dark red "
    "city, Canon EOS R3, nikon, f/1.4, ISO 200, 1/160s, 8K, RAW, unedited, symmetrical balance, in-frame, 8K",
    "negative_prompt": "painting, extra fingers, mutated hands, poorly drawn hands, poorly drawn face, "
    "deformed, ugly, blurry, bad anatomy, bad proportions, extra limbs, cloned face, skinny, glitchy, double "
    "torso, extra arms, extra hands, mangled fingers, missing lips, ugly face, distorted face, extra legs, "
    "anime",
    "width": "512",
    "height": "512",
    "samples": "1",
    "num_inference_steps": "10",
    "safety_checker": "no",
    "enhance_prompt": "yes",
    "seed": 1,
    "guidance_scale": 7.5,
    "clip_skip": "2",
    "tomesd": "yes",
    "use_karras_sigmas": "yes",
    "scheduler": "UniPCMultistepScheduler",
}
"""The documented sample of text2img, but for what `CHANGED` says."""

IMG2IMG: Mapping[str, Any] = {
    "samples": 1,
    "prompt": "A fantasy landscape, trending on artstation, mystical sky",
    "negative_prompt": "nude, disfigured, blurry",
    "scheduler": "DDIM",
    "num_inference_steps": 20,
    "guidance_scale": 10.5,
    "strength": 0.75,
    "seed": 98877465625,
    "img_width": 512,
    "img_height": 512,
    "base64": False,
}
"""The documented sample of sd1.5-img2img, but for its picture and what `CHANGED` says."""


def missing(weights: Path) -> list[Repository]:
    """The repositories that have to be pulled: all whose files are not here as they were pulled."""
    locked = read_lock(weights).repositories
    return [
        repository
        for repository in repositories(load_manifest(MANIFEST))
        if repository.key not in locked or problems(weights, locked[repository.key], thorough=False)
    ]


def terms(wanted: Sequence[Repository], weights: Path) -> str:
    """What would be pulled: names, licences and sizes, as a person reads them before agreeing.

    Raises:
        PullError: the hub cannot be asked for the sizes.
    """
    hub = Hub(os.environ.get("HF_ENDPOINT"), os.environ.get("HF_TOKEN"))
    lines: list[str] = []
    for each in wanted:
        planned = plan(hub, each, weights)
        size = sized(planned.missing_bytes - planned.begun_bytes)
        licence = "; ".join(each.licenses)
        lines.append(
            f"{each.hub}, {size} to download. Licence: {licence}. Read it at {hub.endpoint}/{each.hub}"
        )
    return "\n".join(lines)


def agreed(console: Console, *, yes: bool) -> bool:
    """Whether whoever sits there wants the download; where nobody does, only ``--yes`` says so."""
    if yes:
        return True
    if not sys.stdin.isatty():
        console.print("Nothing was fetched: agree with --yes.", markup=False, highlight=False)
        return False
    return console.input("Download it? [y/N] ", markup=False).strip().lower() in ("y", "yes")


def pull(weights: Path) -> int:
    """Pull what is missing, as `understudy weights pull` does; return its exit status.

    It is a process of its own, since converting pickles needs torch.
    """
    command = [sys.executable, "-m", "server", "weights", "pull", "--accept-licenses"]
    where = ["--manifest", str(MANIFEST), "--weights", str(weights)]
    return subprocess.run([*command, *where]).returncode


def real_pages() -> list[PageCall]:
    """One call of each of the two pages."""
    return [
        PageCall("enterprise text2img", "real-text2img.png", _text2img),
        PageCall("sd1.5-img2img", "real-sd1.5-img2img.jpg", _img2img),
    ]


def _text2img(visit: Visit) -> bytes:
    return visit.picture_of_job("/api/v1/enterprise/text2img", dict(TEXT2IMG))


def _img2img(visit: Visit) -> bytes:
    image = base64.b64encode(sketch()).decode()
    return visit.post("/v1/sd1.5-img2img", {**IMG2IMG, "image": image}).content


def sketch() -> bytes:
    """A rough landscape as a PNG: evening sky, sun, two ridges, a lake."""
    side = 512
    picture = Image.new("RGB", (side, side))
    pen = ImageDraw.Draw(picture)
    for y in range(side):
        height = y / side
        pen.line((0, y, side, y), (int(90 + 160 * height), int(70 + 90 * height), int(150 - 40 * height)))
    pen.ellipse((330, 90, 410, 170), (255, 220, 150))
    far = [(0, 330), (90, 190), (170, 270), (270, 130), (400, 290), (512, 220), (512, 380), (0, 380)]
    near = [(0, 380), (120, 300), (240, 350), (380, 290), (512, 360), (512, 420), (0, 420)]
    pen.polygon(far, (75, 65, 105))
    pen.polygon(near, (45, 60, 60))
    pen.rectangle((0, 400, side, side), (95, 105, 150))
    return image_io.encode(image_io.from_pil(picture), "png")
