"""Check the pictures that `understudy demo` writes: sizes and formats of all five, and what they show."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageStat

from pipelines.demo.judging.figure_match import has_colors
from pipelines.demo.judging.joints import joint_error, read_figure
from pipelines.demo.judging.judge import Verdict, compare, read
from pipelines.demo.world.figure import STANDING, Figure
from pipelines.demo.world.world import simple_scene
from pipelines.image_io import RGBImage, from_pil

EXPECTED = {
    "kandinsky2.2-txt2img.jpg": ("JPEG", (768, 768)),
    "kolors.webp": ("WEBP", (1024, 1024)),
    "sd3-med-pose.png": ("PNG", (832, 1280)),
    "sd1.5-img2img.jpg": ("JPEG", (512, 512)),
    "enterprise-text2img.png": ("PNG", (512, 512)),
}

SCENES = {
    "kandinsky2.2-txt2img.jpg": simple_scene("circle", "red", "blue"),
    "kolors.webp": simple_scene("star", "green", "yellow"),
    "sd1.5-img2img.jpg": simple_scene("square", "yellow", "green"),
    "enterprise-text2img.png": simple_scene("triangle", "white", "purple"),
}
FIGURES = {"sd3-med-pose.png": Figure("orange", "blue", STANDING)}
"""What prompts and skeletons ask for."""

MEANT = Verdict(ground=True, colors=True, shapes=True, size=True, place=True)
ASTRAY = 0.1
"""Mean error of joints, in parts of a figure's height."""


def problems(folder: Path) -> list[str]:
    """What is wrong with the pictures in a demo's output folder; empty when all is well."""
    found = {path.name for path in folder.iterdir()}
    wrong = [f"{name}: missing" for name in EXPECTED.keys() - found]
    for name in sorted(EXPECTED.keys() & found):
        with Image.open(folder / name) as picture:
            if (picture.format, picture.size) != EXPECTED[name]:
                wrong.append(f"{name}: {picture.format} {picture.size}, not {EXPECTED[name]}")
            colors = picture.convert("RGB")
            if max(ImageStat.Stat(colors).stddev) < 2:
                wrong.append(f"{name}: flat")
            wrong += [f"{name}: {each}" for each in _misread(name, from_pil(colors))]
    return wrong


def _misread(name: str, picture: RGBImage) -> list[str]:
    """What a picture shows otherwise than asked."""
    if scene := SCENES.get(name):
        reading = read(picture)
        return [] if compare(reading, scene) == MEANT else [f"it shows {reading}, not {scene}"]
    figure = FIGURES[name]
    seen = read_figure(picture)
    if not has_colors(picture, figure) or seen is None:
        return [f"no {figure.color} figure on {figure.ground} can be read in it"]
    error = joint_error(seen, figure.person)
    return [] if error < ASTRAY else [f"its joints are {error:.0%} of its height astray"]


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]))
    print("\n".join(wrong) or f"all {len(EXPECTED)} pictures are as documented")
    sys.exit(bool(wrong))
