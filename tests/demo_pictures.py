"""Check the pictures that `understudy demo` writes: all five, of the documented size and format, not flat."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageStat

EXPECTED = {
    "kandinsky2.2-txt2img.jpg": ("JPEG", (768, 768)),
    "kolors.webp": ("WEBP", (1024, 1024)),
    "sd3-med-pose.png": ("PNG", (832, 1280)),
    "sd1.5-img2img.jpg": ("JPEG", (512, 512)),
    "enterprise-text2img.png": ("PNG", (512, 512)),
}


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
    return wrong


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]))
    print("\n".join(wrong) or f"all {len(EXPECTED)} pictures are as documented")
    sys.exit(bool(wrong))
