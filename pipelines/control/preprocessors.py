"""A picture -> the control image that a ControlNet was trained with: edges, lines, depth, a pose."""

from __future__ import annotations

import inspect
import io
import logging
import pickle
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.skip_init import skip_init
from pipelines.control.annotators import FREE_ALTERNATIVE, how_to_install
from pipelines.control.open_pose import FILES
from pipelines.control.pose import PoseDetector, skeleton
from pipelines.control.pose_detectors import installed_detector
from pipelines.errors import AnnotatorMissing, CheckpointUnavailable, InvalidInput
from pipelines.image_io import RGBImage, from_pil, to_pil
from pipelines.lru import LRUCache

log = logging.getLogger(__name__)

AT_ONCE = 1
"""The number of preprocessors whose networks stay on the device."""


@dataclass(frozen=True, slots=True)
class _Auxiliary:
    """A detector of controlnet_aux: its class, the files it needs of lllyasviel/Annotators, its options."""

    module: str
    name: str
    files: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


_AUXILIARY = {
    "canny": _Auxiliary("canny", "CannyDetector"),
    "lineart_standard": _Auxiliary("lineart_standard", "LineartStandardDetector"),
    "hed": _Auxiliary("hed", "HEDdetector", ("ControlNetHED.pth",)),
    "scribble": _Auxiliary("hed", "HEDdetector", ("ControlNetHED.pth",), {"scribble": True}),
    "lineart": _Auxiliary("lineart", "LineartDetector", ("sk_model.pth", "sk_model2.pth")),
    "mlsd": _Auxiliary("mlsd", "MLSDdetector", ("mlsd_large_512_fp32.pth",)),
    "depth": _Auxiliary("midas", "MidasDetector", ("dpt_hybrid-midas-501f0c75.pt",)),
    "lineart_anime": _Auxiliary("lineart_anime", "LineartAnimeDetector", ("netG.pth",)),
    "normal": _Auxiliary("normalbae", "NormalBaeDetector", ("scannet.pt",)),
    "pidi": _Auxiliary("pidi", "PidiNetDetector", ("table5_pidinet.pth",)),
    "zoe": _Auxiliary("zoe", "ZoeDetector", ("ZoeD_M12_N.pt",)),
    "shuffle": _Auxiliary("shuffle", "ContentShuffleDetector"),
}


@dataclass(frozen=True, slots=True)
class _Opened:
    """A preprocessor that is ready, and its networks by name."""

    prepare: Callable[[RGBImage], RGBImage]
    modules: Mapping[str, torch.nn.Module]


class Preprocessors:
    """Preprocessors, each opened when a request first needs it.

    controlnet_aux is imported then, which takes a second. A preprocessor that the cache drops frees its
    memory on the device.
    """

    def __init__(self, adapters: AdapterLibrary, device: torch.device) -> None:
        self._adapters = adapters
        self._device = device
        self._opened: LRUCache[str, _Opened] = LRUCache(AT_ONCE)

    @property
    def modules(self) -> Mapping[str, torch.nn.Module]:
        """The networks that are on the device now."""
        return {
            f"preprocessor:{name}:{part}": module
            for name, opened in self._opened.items()
            for part, module in opened.modules.items()
        }

    def clear_cache(self) -> None:
        self._opened.clear()

    def prepare(self, image: RGBImage, preprocessor: str | None) -> RGBImage:
        """The control image, as large as the picture; the picture itself without a preprocessor.

        Raises:
            InvalidInput: no such preprocessor, or its weights are damaged.
            AnnotatorMissing: the manifest names no weights for it.
            CheckpointUnavailable: the weights that the manifest names are missing or damaged.
            PoseNotFound: no person was found in the picture.
        """
        if preprocessor is None:
            return image
        control_image = self._opened.get(preprocessor, lambda: self._open(preprocessor)).prepare(image)
        if (control_image.width, control_image.height) == (image.width, image.height):
            return control_image
        return from_pil(to_pil(control_image).resize((image.width, image.height), Image.Resampling.BILINEAR))

    def _open(self, preprocessor: str) -> _Opened:
        if preprocessor == "openpose":
            return self._open_pose()
        auxiliary = _AUXILIARY.get(preprocessor)
        if auxiliary is None:
            known = ", ".join(sorted([*_AUXILIARY, "openpose"]))
            raise InvalidInput("preprocessor", f"{preprocessor} is not one of {known}")
        return _open_auxiliary(preprocessor, auxiliary, self._adapters.annotator(preprocessor), self._device)

    def _open_pose(self) -> _Opened:
        """The pose detector. Where its weights are missing, pictures of skeletons are taken all the same."""
        try:
            detector = _detector(self._adapters, self._device)
            if detector is None:
                self._adapters.annotator("openpose")  # raises where one is named and is not here
        except CheckpointUnavailable as error:
            return _Opened(partial(_pose, None, unavailable=error), {})
        return _Opened(partial(_pose, detector), {} if detector is None else detector.modules)


def _open_auxiliary(
    preprocessor: str, auxiliary: _Auxiliary, folder: Path | None, device: torch.device
) -> _Opened:
    if auxiliary.files and (folder is None or not all((folder / name).is_file() for name in auxiliary.files)):
        raise _without_weights(preprocessor, auxiliary.files)
    with warnings.catch_warnings():
        # controlnet_aux warns of optional dependencies.
        warnings.simplefilter("ignore")
        cls = getattr(import_module(f"controlnet_aux.{auxiliary.module}"), auxiliary.name)
    if not auxiliary.files:
        return _Opened(partial(_detect, cls(), auxiliary.options), {})
    try:
        # Detectors print their progress to the standard output.
        with redirect_stdout(io.StringIO()), skip_init():
            opened = cls.from_pretrained(str(folder))
    except (OSError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        log.error("the preprocessor %s cannot be opened", preprocessor, exc_info=error)
        raise InvalidInput("preprocessor", f"the weights of {preprocessor} are damaged") from error
    detector = opened.to(device)
    modules = {name: part for name, part in vars(detector).items() if isinstance(part, torch.nn.Module)}
    return _Opened(partial(_detect, detector, auxiliary.options), modules)


def _detect(detector: Any, options: Mapping[str, Any], image: RGBImage) -> RGBImage:
    """The control image that a detector of controlnet_aux makes.

    Detectors work at a resolution: the pixels of the shorter side, rounded to a multiple of 64.
    """
    side = min(image.width, image.height)
    sizes = {"detect_resolution": side, "image_resolution": side}
    accepted = inspect.signature(detector.__call__).parameters
    sizes = {name: value for name, value in sizes.items() if name in accepted}
    with warnings.catch_warnings():
        # A picture of one colour has no lines of which it could take a median.
        warnings.simplefilter("ignore", RuntimeWarning)
        with _numpy_seeded():
            return from_pil(detector(to_pil(image), **sizes, **options))


@contextmanager
def _numpy_seeded() -> Generator[None]:
    """Seed NumPy's global generator inside the block and restore it afterwards.

    The shuffle draws from it, and the same picture must always give the same control image.
    """
    before = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(before)


def _detector(adapters: AdapterLibrary, device: torch.device) -> PoseDetector | None:
    """The pose detector; None where there is none, since skeletons need none.

    Raises:
        CheckpointUnavailable: its weights are damaged.
    """
    return installed_detector(adapters, adapters.manifest.annotator("openpose"), device)


def _pose(
    detector: PoseDetector | None, image: RGBImage, *, unavailable: CheckpointUnavailable | None = None
) -> RGBImage:
    try:
        return skeleton(image, detector, image.width, image.height)
    except AnnotatorMissing as error:
        if unavailable is not None:
            raise unavailable from error
        raise _without_weights("openpose", FILES) from error


def _without_weights(preprocessor: str, files: tuple[str, ...]) -> AnnotatorMissing:
    return AnnotatorMissing(
        "preprocessor",
        f"{preprocessor} needs weights that are not on this server; send the control image itself instead."
        f" {how_to_install(f'a ControlNet whose preprocessor is {preprocessor}', files)}"
        f"{FREE_ALTERNATIVE if preprocessor == 'openpose' else ''}",
    )
