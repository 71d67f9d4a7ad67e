"""Networks by the width of the text encodings that their attentions read. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.weights.kinds import StableDiffusionFamily

FAMILY_BY_TEXT_WIDTH: Mapping[int, StableDiffusionFamily] = {768: "sd15", 2048: "sdxl"}
"""The family of a network by the width of the text encodings that its cross-attentions read."""

FOREIGN_BY_TEXT_WIDTH: Mapping[int, str] = {
    1024: "Stable Diffusion 2",
    1280: "the SDXL refiner",
    4096: "a network with a T5 text encoder",
}
"""The networks that this server does not have, by the width of the text encodings that they read."""
