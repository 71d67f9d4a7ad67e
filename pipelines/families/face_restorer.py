"""Face restorers (GFPGAN, RestoreFormer): they draw each face alone, at the size that they know."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.checkpoint import Checkpoint
from pipelines.checkpoints.image_networks import ImageNetwork, open_network
from pipelines.denoising.needs import Needs
from pipelines.denoising.pipeline import DirectAnswer, Pipeline
from pipelines.denoising.sample import Conditioning, Denoiser, Picture, Sample
from pipelines.denoising.sampler import Steps
from pipelines.drawing import Drawing
from pipelines.errors import CheckpointUnavailable, InvalidInput, NumbersOutOfRange
from pipelines.group import GroupKey
from pipelines.image_io import RGBImage
from pipelines.images.codec import rows_of
from pipelines.images.face_alignment import SIDE, alignment, cut_out, enlarged, lay_on
from pipelines.images.faces import FaceFinder, FrontalCascade, YuNet
from pipelines.request import FaceRestoration, Request

NO_FACE = "no face was found in the picture, so none was restored"


class FaceRestorer(Pipeline):
    """One opened checkpoint of a face restorer."""

    def __init__(self, network: ImageNetwork, finder: FaceFinder, device: torch.device) -> None:
        self._network = network
        self._device = device
        self._finder = finder
        self._denoiser = Denoiser(self._predict)

    @classmethod
    def open(cls, checkpoint: Checkpoint, adapters: AdapterLibrary) -> FaceRestorer:
        """Open the part ``face_restorer``, one file of tensors, and YuNet where there is a part ``detector``.

        Raises:
            CheckpointUnavailable: a file is missing or damaged, or does something else.
        """
        network = open_network(checkpoint, "face_restorer", "FaceSR")
        if network.scale != 1:
            raise CheckpointUnavailable(f"{checkpoint.name} changes the size of faces")
        finder = YuNet(checkpoint.path("detector")) if checkpoint.has("detector") else FrontalCascade()
        return cls(network, finder, checkpoint.device)

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        return {"face_restorer": self._network.model}

    def needs(self, request: Request) -> Needs:
        return Needs(denoise={"restore": frozenset({"face_restorer"})})

    # 1. encode: every face of the picture as it was, (faces, 3, 512, 512) in 0 .. 1

    def encode(self, request: Request) -> list[Sample] | DirectAnswer:
        if not isinstance(request, FaceRestoration):
            raise InvalidInput("pipeline", f"{request.pipeline} does not draw {request.kind}")
        original = rows_of(request.original)
        matrices = [alignment(face) for face in self._finder.find(original)]
        if not matrices:
            return DirectAnswer(lambda: Drawing(images=(request.image,), warnings=(NO_FACE,)))
        across, down = request.width / request.original.width, request.height / request.original.height
        places = [enlarged(matrix, across, down) for matrix in matrices]
        cut = np.stack([cut_out(original, matrix) for matrix in matrices])
        return [
            Sample(
                request=request,
                index=0,
                key=GroupKey(request.pipeline, "restore", SIDE, SIDE),
                latents=torch.from_numpy(cut.astype(np.float32) / 255.0).permute(0, 3, 1, 2).contiguous(),
                conditioning=Conditioning({}, None),
                guidance_scale=1.0,
                generator=torch.Generator("cpu").manual_seed(0),  # nothing is random here
                sampler=OneByOne(len(cut), self._device, self._network.dtype),
                denoiser=self._denoiser,
                finish=lambda sample: Picture(_together(request.image, sample.latents, places)),
            )
        ]

    # 2. denoise: faces (N, 3, 512, 512) in 0 .. 1 -> the same faces restored

    def _predict(self, faces: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        if self._network.architecture.id == "GFPGAN":
            # spandrel gives it 0 .. 1 where it was trained on -1 .. 1, and new noise each time. With the
            # checkpoint's own noise a face comes out the same again, whoever is beside it.
            drawn = self._network.model(2 * faces - 1, return_rgb=False, randomize_noise=False)[0]
            return (drawn * 0.5 + 0.5).clamp(0, 1)
        return self._network(faces)


class OneByOne(Steps):
    """The faces of one picture, one per evaluation; a face restorer knows no time.

    The sample's latents are the faces, fp32 on the host; each is replaced by the restored one.

    Args:
        device, dtype: where the network is, and its type.
    """

    def __init__(self, count: int, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(torch.zeros(count, device=device))
        self._device = device
        self._dtype = dtype

    def model_input(self, latents: Tensor) -> Tensor:
        return latents[self._position : self._position + 1].to(self._device, self._dtype)

    def step(self, prediction: Tensor, latents: Tensor, generator: torch.Generator) -> Tensor:
        restored = prediction[0].float().cpu()
        self._position += 1
        return torch.cat([latents[: self._position - 1], restored[None], latents[self._position :]])


# 3. decode


def _together(image: RGBImage, faces: Tensor, places: list[np.ndarray]) -> RGBImage:
    """The picture with all faces laid on it.

    Raises:
        NumbersOutOfRange: a face is not one.
    """
    if not bool(faces.isfinite().all()):
        raise NumbersOutOfRange
    picture = rows_of(image).copy()
    for face, place in zip(faces, places, strict=True):
        lay_on(picture, (face.permute(1, 2, 0) * 255).numpy(), place)
    return RGBImage(image.width, image.height, picture.tobytes())
