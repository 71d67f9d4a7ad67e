"""POST /v1/sd1.5-controlnet-{kind} and their /v2 twins: pictures that follow a picture's lines or pose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from pipelines import image_io
from pipelines.image_io import RGBImage
from pipelines.request import Control, TextToImage
from pipelines.weights.entries import ControlNetEntry
from pipelines.weights.manifest import Manifest
from server.endpoints.fields import Number
from server.endpoints.segmind.page import InputImage
from server.endpoints.segmind.routes import routes
from server.endpoints.segmind.sizes import size_of_sd15
from server.endpoints.segmind.stable_diffusion import SD15Page
from server.errors import NotFound

FAMILY = "sd15"


class SD15ControlNet(SD15Page):
    """The page of one kind of ControlNet.

    Attributes:
        controlnet: the name that a manifest gives to a ControlNet of this kind.
        preprocessors: what makes its control images, the usual one first.
    """

    price_millicredits: ClassVar[int] = 8
    sources: ClassVar[str] = (
        "Fields, defaults and limits are those of the vendor's page; that the result keeps the picture's "
        "aspect ratio is inferred."
    )
    field_names: ClassVar[Mapping[str, str]] = {"preprocessor": "image", "controls": "image"}
    controlnet: ClassVar[str]
    preprocessors: ClassVar[tuple[str, ...]]

    image: InputImage = Field(
        description="The picture that is followed; the control image is made of it. Base64, a data URI, an"
        " http(s) URL, or a file part named image or file."
    )
    strength: Number = Field(
        1, ge=0.1, le=1, description="How closely the control image is followed (the conditioning scale)."
    )

    def sent_pictures(self) -> Mapping[str, str | bytes]:
        return {"image": self.image}

    def validate_names(self, manifest: Manifest) -> None:
        super().validate_names(manifest)
        self._found(manifest)

    def to_request(self, manifest: Manifest, pictures: Mapping[str, RGBImage]) -> TextToImage:
        picture = pictures["image"]
        width, height = size_of_sd15(picture.width, picture.height)
        name, entry = self._found(manifest)
        control = Control(
            name=name,
            image=image_io.cover(picture, width, height),
            preprocessor=entry.preprocessor or self.preprocessors[0],
            scale=self.strength,
        )
        return TextToImage(**self.prompts(), width=width, height=height, controls=(control,))

    def _found(self, manifest: Manifest) -> tuple[str, ControlNetEntry]:
        """The manifest's ControlNet of this kind: the one of its name, or the first with its preprocessor.

        Raises:
            NotFound: there is none; names those that there are.
        """
        fitting = {name: each for name, each in manifest.controlnets.items() if each.family == FAMILY}
        alike = [name for name, each in fitting.items() if each.preprocessor in self.preprocessors]
        for name in (self.controlnet, *alike):
            if name in fitting:
                return name, fitting[name]
        known = ", ".join(fitting) or "none"
        missing = f"This server has no ControlNet {self.controlnet} of Stable Diffusion 1.5"
        raise NotFound(f"{missing}; weights.yaml names {known}")


def _sample(image: str, prompt: str, negative_prompt: str, seed: int) -> Mapping[str, object]:
    """The sample body of a page; theirs differ in these alone."""
    return {
        "image": image,
        "samples": 1,
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "scheduler": "UniPC",
        "num_inference_steps": 25,
        "guidance_scale": 7.5,
        "strength": 1,
        "seed": seed,
        "base64": False,
    }


class SD15Canny(SD15ControlNet):
    slug: ClassVar[str] = "sd1.5-controlnet-canny"
    summary: ClassVar[str] = "Stable Diffusion 1.5 with a ControlNet: edges"
    controlnet: ClassVar[str] = "canny"
    preprocessors: ClassVar[tuple[str, ...]] = ("canny",)
    example: ClassVar[Mapping[str, object]] = _sample(
        "https://segmind.com/canny-input.jpeg",
        "a colorful bird, 4k",
        "Disfigured, cartoon, blurry, nude",
        3131738736286,
    )


class SD15Depth(SD15ControlNet):
    slug: ClassVar[str] = "sd1.5-controlnet-depth"
    summary: ClassVar[str] = "Stable Diffusion 1.5 with a ControlNet: depth"
    controlnet: ClassVar[str] = "depth"
    preprocessors: ClassVar[tuple[str, ...]] = ("depth", "zoe")
    example: ClassVar[Mapping[str, object]] = _sample(
        "https://segmind.com/depth.jpeg",
        "young african american man, black suit, smiling, white background",
        "mangled ears, Disfigured, cartoon, blurry, nude",
        9715432854,
    )


class SD15OpenPose(SD15ControlNet):
    slug: ClassVar[str] = "sd1.5-controlnet-openpose"
    summary: ClassVar[str] = "Stable Diffusion 1.5 with a ControlNet: pose"
    sources: ClassVar[str] = (
        "The vendor's page is not public any more; the fields are those of the pages of the other "
        "ControlNets."
    )
    controlnet: ClassVar[str] = "openpose"
    preprocessors: ClassVar[tuple[str, ...]] = ("openpose",)
    example: ClassVar[Mapping[str, object]] = _sample(
        "https://www.segmind.com/fasion2.jpeg",
        "astronaut running in spacesuit, colorful galaxy, stars, mystical dark sky",
        "Disfigured, cartoon, blurry, nude",
        549767547333,
    )


class SD15Scribble(SD15ControlNet):
    slug: ClassVar[str] = "sd1.5-controlnet-scribble"
    summary: ClassVar[str] = "Stable Diffusion 1.5 with a ControlNet: scribbled outlines"
    controlnet: ClassVar[str] = "scribble"
    preprocessors: ClassVar[tuple[str, ...]] = ("scribble",)
    example: ClassVar[Mapping[str, object]] = _sample(
        "https://segmind.com/scribble-input.jpeg",
        "steampunk underwater helmet, dark ocean background",
        "Disfigured, cartoon, blurry, nude",
        85497675147333,
    )


class SD15SoftEdge(SD15ControlNet):
    slug: ClassVar[str] = "sd1.5-controlnet-softedge"
    summary: ClassVar[str] = "Stable Diffusion 1.5 with a ControlNet: soft edges"
    controlnet: ClassVar[str] = "softedge"
    preprocessors: ClassVar[tuple[str, ...]] = ("hed", "pidi")
    example: ClassVar[Mapping[str, object]] = _sample(
        "https://segmind.com/soft-edge-input.jpeg",
        "royal chamber with fancy bed",
        "Disfigured, cartoon, blurry, nude",
        131487365682,
    )


class SD15Mlsd(SD15ControlNet):
    slug: ClassVar[str] = "sd1.5-controlnet-mlsd"
    summary: ClassVar[str] = "Stable Diffusion 1.5 with a ControlNet: straight lines"
    sources: ClassVar[str] = (
        "Clients name this page; the fields are those of the pages of the other ControlNets."
    )
    controlnet: ClassVar[str] = "mlsd"
    preprocessors: ClassVar[tuple[str, ...]] = ("mlsd",)
    example: ClassVar[Mapping[str, object]] = _sample(
        "https://example.com/a-house.jpeg",
        "modern wooden house, night shot, realistic snow capped mountains, dense pine trees, starry sky",
        "moon",
        1314873682,
    )


PAGES: tuple[type[SD15ControlNet], ...] = (
    SD15Canny,
    SD15Depth,
    SD15OpenPose,
    SD15Scribble,
    SD15SoftEdge,
    SD15Mlsd,
)
routers = tuple(routes(page) for page in PAGES)
