"""Upscalers: networks of every architecture that spandrel knows. A large picture is enlarged in tiles."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from spandrel import ModelTiling
from torch import Tensor

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.checkpoints.image_networks import ImageNetwork, open_network
from pipelines.denoising.needs import Needs
from pipelines.denoising.pipeline import Pipeline
from pipelines.denoising.sample import Conditioning, Denoiser, Handover, Picture, Sample
from pipelines.errors import InvalidInput
from pipelines.group import GroupKey
from pipelines.image_io import RGBImage, resized
from pipelines.images.codec import rounded, rows_of
from pipelines.images.tiles import TILE, TileSampler
from pipelines.request import FaceRestoration, Request, Upscaling


class Upscaler(Pipeline):
    """One opened checkpoint of an upscaler."""

    def __init__(self, network: ImageNetwork, device: torch.device) -> None:
        self._network = network
        self._device = device
        self._denoiser = Denoiser(self._predict)

    @classmethod
    def open(cls, checkpoint: Checkpoint, adapters: AdapterLibrary) -> Upscaler:
        """Open the part ``upscaler``, one file of tensors.

        Raises:
            CheckpointUnavailable: the file is missing or damaged, or no upscaler of coloured pictures.
        """
        return cls(open_network(checkpoint, "upscaler", "SR"), checkpoint.device)

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        return {"upscaler": self._network.model}

    def needs(self, request: Request) -> Needs:
        return Needs(denoise={"upscale": frozenset({"upscaler"})})

    # 1. encode

    def encode(self, request: Request) -> list[Sample]:
        if not isinstance(request, Upscaling):
            raise InvalidInput("pipeline", f"{request.pipeline} does not draw {request.kind}")
        image = request.image
        picture = torch.from_numpy(rows_of(image).astype(np.float32) / 255.0).permute(2, 0, 1)[None]
        # Some architectures look at the whole picture, or cut it by themselves.
        tile = TILE if self._network.tiling is ModelTiling.SUPPORTED else max(image.height, image.width)
        scale = self._network.scale
        sides = (min(tile, image.height) * scale, min(tile, image.width) * scale)
        sampler = TileSampler(image.height, image.width, scale, self._device, self._network.dtype, tile)
        return [
            Sample(
                request=request,
                index=0,
                key=GroupKey(request.pipeline, "upscale", *sides),
                latents=picture,
                conditioning=Conditioning({}, None),
                guidance_scale=1.0,
                generator=torch.Generator("cpu").manual_seed(0),  # nothing is random here
                sampler=sampler,
                denoiser=self._denoiser,
                finish=lambda sample: _finished(request, sampler.enlarged),
            )
        ]

    # 2. denoise: tiles (N, 3, h, w) in 0 .. 1 -> (N, 3, h * scale, w * scale)

    def _predict(self, tiles: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        return self._network(tiles)


# 3. decode


def _finished(request: Upscaling, enlarged: Tensor) -> Picture | Handover:
    picture = Picture(_rounded(enlarged, request.height, request.width))
    if request.face_restorer is None:
        return picture
    faces = FaceRestoration(
        pipeline=request.face_restorer,
        original=request.image,
        image=picture.image,
        width=request.width,
        height=request.height,
    )
    return Handover(faces, picture)


def _rounded(enlarged: Tensor, height: int, width: int) -> RGBImage:
    """The picture of (3, H, W) in 0 .. 1, resized where the network's scale was not the one asked for."""
    return resized(rounded(enlarged), width, height)
