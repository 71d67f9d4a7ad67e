"""Check the pictures that `understudy demo` writes: sizes and formats of all five, and what they show."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageStat

from pipelines.demo.judge import read
from pipelines.image_io import from_pil

EXPECTED = {
    "kandinsky2.2-txt2img.jpg": ("JPEG", (768, 768)),
    "kolors.webp": ("WEBP", (1024, 1024)),
    "sd3-med-pose.png": ("PNG", (832, 1280)),
    "sd1.5-img2img.jpg": ("JPEG", (512, 512)),
    "enterprise-text2img.png": ("PNG", (512, 512)),
}

GROUNDS = {
    "kandinsky2.2-txt2img.jpg": "blue",
    "sd3-med-pose.png": "blue",
    "kolors.webp": "yellow",
    "sd1.5-img2img.jpg": "green",
    "enterprise-text2img.png": "purple",
}
"""What the prompts ask for, where checkpoints are trained."""


def problems(folder: Path) -> list[str]:
    """What is wrong with the pictures in a demo's output folder; empty when all is well."""
    found = {path.name for path in folder.iterdir()}
    wrong = [f"{name}: missing" for name in EXPECTED.keys() - found]
    for name in sorted(EXPECTED.keys() & found):
        with Image.open(folder / name) as picture:
            if (picture.format, picture.size) != EXPECTED[name]:
                wrong.append(f"{name}: {picture.format} {picture.size}, not {EXPECTED[name]}")
            if max(ImageStat.Stat(picture.convert("RGB")).stddev) < 2:
                wrong.append(f"{name}: flat")
            ground = read(from_pil(picture.convert("RGB"))).ground
            if name in GROUNDS and ground != GROUNDS[name]:
                wrong.append(f"{name}: its ground is {ground}, not {GROUNDS[name]}")
    return wrong


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]))
    print("\n".join(wrong) or f"all {len(EXPECTED)} pictures are as documented")
    sys.exit(bool(wrong))
