"""What a file or folder on this machine is, and the entry of weights.yaml to draw with it in place."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pipelines.weights.embedding_names import embedding_family
from pipelines.weights.fetch_process import SDXL_SCALING_FACTOR, loaded_entry
from pipelines.weights.folder_recognition import demand_drawable, network_kind, pipeline_family
from pipelines.weights.formats import PICKLES, REFUSED_PICKLES
from pipelines.weights.header import Shapes, Unrecognised
from pipelines.weights.inspection import inspect_file, latent_sizes
from pipelines.weights.kinds import Kind, LocalKind, StableDiffusionFamily
from pipelines.weights.lora_settings import CONFIG_NAME, of_config
from pipelines.weights.manifest import Manifest
from pipelines.weights.pickle_shapes import read_pickle_shapes
from pipelines.weights.recognition import recognise
from server.loading.incoming import family_by_words
from server.loading.model_folders import Candidate

_MOST_BYTES_OF_IMAGE_NETWORKS = 2_000_000_000
"""The most bytes that an upscaler or face restorer may have; the largest published ones have half of it."""

_PREPROCESSORS = (
    ("lineart_anime", r"lineart[ _-]?anime|anime[ _-]?lineart"),
    ("lineart", r"lineart"),
    ("canny", r"canny"),
    ("zoe", r"zoe"),
    ("depth", r"depth"),
    ("hed", r"hed|soft[ _-]?edge"),
    ("pidi", r"pidi"),
    ("scribble", r"scribble"),
    ("mlsd", r"mlsd"),
    ("normal", r"normal"),
    ("openpose", r"open[ _-]?pose|pose"),
    ("shuffle", r"shuffle"),
    ("inpaint", r"inpaint"),
)
"""Preprocessors, and what tells them in the names of published ControlNets' files; the first match wins."""

_PICKLED = "as a pickle, which can run code when it is opened; give a .safetensors of it"


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A file or folder that can be drawn with where it lies.

    Attributes:
        entry: the entry of weights.yaml that would stand for it.
        size: the bytes of its files.
        about: what recognition knows of it besides kind and family, in a few words.
        warning: what is not quite certain of it; None where all is.
        title: the name that its trainer gave it; empty where it says none.
    """

    kind: LocalKind
    family: StableDiffusionFamily | None
    entry: dict[str, Any]
    size: int
    about: str = ""
    warning: str | None = None
    title: str = ""


class PerhapsImageNetwork(Unrecognised):
    """A file that may be an upscaler or face restorer, which only a process with torch can tell."""


@dataclass(frozen=True, slots=True)
class Look:
    """The way in which files are looked at.

    Attributes:
        on_cpu: whether all engines draw on the CPU, where half precision is of no use.
        family: the family of what does not tell its own; None: what names and folders say.
        thorough: whether small files are read whole.
    """

    manifest: Manifest
    on_cpu: bool
    family: StableDiffusionFamily | None = None
    thorough: bool = False

    def at(self, candidate: Candidate) -> LocalModel:
        """Tell what a file or folder is by its headers and configurations.

        Raises:
            PerhapsImageNetwork: it is nothing that is known here, and may be an upscaler or face restorer.
            Unrecognised: it cannot be drawn with; the error says why.
            OSError: it cannot be read.
        """
        path = candidate.path
        if path.is_dir():
            return self._folder(candidate)
        if path.suffix.lower() in PICKLES:
            return self._pickle(candidate)
        if path.suffix.lower() not in (".safetensors", ".sft"):
            raise Unrecognised(f"it is a {path.suffix} file; give a .safetensors")
        try:
            found = inspect_file(path, self.manifest, thorough=self.thorough)
        except Unrecognised as error:
            raise _perhaps(candidate, error) from error
        source: dict[str, Any] = {"file": str(path)}
        if found.config is not None:
            source["config"] = found.config
        return self._model(
            candidate, found.kind, found.family, source, prediction=found.prediction, title=found.title
        )

    def image_network(self, candidate: Candidate, said: Mapping[str, str]) -> LocalModel:
        """The upscaler or face restorer that the process with torch has found a file to be.

        Raises:
            Unrecognised: it is neither.
        """
        kind = said.get("kind")
        if kind not in ("upscaler", "face_restorer"):
            raise Unrecognised(said.get("problem", "it is not known here"))
        dtype = "float32" if self.on_cpu or kind == "face_restorer" else "float16"
        entry = {"source": {"file": str(candidate.path)}, "dtype": dtype}
        return LocalModel(kind, None, entry, candidate.path.stat().st_size, said.get("about", ""))

    def _model(
        self,
        candidate: Candidate,
        kind: Kind,
        told: StableDiffusionFamily | None,
        source: dict[str, Any],
        *,
        prediction: str | None = None,
        title: str = "",
    ) -> LocalModel:
        family, warning = told or self.family, None
        if family is None:
            family = family_by_words(candidate.within, candidate.path.parent.name)
            warning = f"nothing in it tells its family; taken for {family}"
        elif self.family not in (None, family):
            warning = f"it is made for {family}, not for {self.family}"
        entry = loaded_entry(kind, family, source, on_cpu=self.on_cpu)
        about = "predicts v" if prediction == "v_prediction" else prediction or ""
        if kind == "controlnet" and (preprocessor := preprocessor_of(candidate.path.name)):
            entry["preprocessor"] = preprocessor
            about = f"guided by {preprocessor}"
        return LocalModel(kind, family, entry, _size(candidate.path), about, warning, title)

    def _pickle(self, candidate: Candidate) -> LocalModel:
        """A textual inversion that AUTOMATIC1111's trainer pickled; torch opens it without running it."""
        path = candidate.path
        try:
            shapes = read_pickle_shapes(path)
        except Unrecognised as error:
            raise _perhaps(candidate, error) from error
        if path.suffix.lower() not in REFUSED_PICKLES:
            family = _family_of_embedding(shapes)
            if family is not None:
                return self._model(candidate, "embedding", family, {"file": str(path)})
        try:
            kind = recognise(_bare(shapes)).kind
        except Unrecognised as error:
            raise _perhaps(candidate, Unrecognised(f"{error} (and it is pickled)")) from error
        raise Unrecognised(f"it is a {kind} {_PICKLED}")

    def _folder(self, candidate: Candidate) -> LocalModel:
        path = candidate.path
        source = {"folder": str(path)}
        if (path / "model_index.json").is_file():
            index = _json(path / "model_index.json")
            family = pipeline_family(index)
            demand_drawable(family, lambda name: _json(path / name) if (path / name).is_file() else {})
            for component in ("unet", "vae", "text_encoder", "text_encoder_2"):
                if component in index and isinstance(index[component], list):
                    _demand_safetensors(path / component)
            predicted = _json(path / "scheduler/scheduler_config.json").get("prediction_type")
            prediction = None if predicted == "epsilon" else predicted
            return self._model(candidate, "checkpoint", family, source, prediction=prediction)
        if (path / CONFIG_NAME).is_file():
            of_config((path / CONFIG_NAME).read_text(errors="replace"))
            found = inspect_file(path / "adapter_model.safetensors", self.manifest, thorough=self.thorough)
            return self._model(candidate, found.kind, found.family, source)
        config = _json(path / "config.json")
        kind = network_kind(config, latent_sizes(self.manifest))
        _demand_safetensors(path)
        if kind == "vae":
            told = "sdxl" if config.get("scaling_factor") == SDXL_SCALING_FACTOR else None
        else:
            told = "sdxl" if config.get("cross_attention_dim") == 2048 else "sd15"
        return self._model(candidate, kind, told, source)


def preprocessor_of(name: str) -> str | None:
    """The preprocessor that makes a ControlNet's control images, as its file's name tells."""
    words = name.lower()
    return next((each for each, pattern in _PREPROCESSORS if re.search(pattern, words)), None)


def _perhaps(candidate: Candidate, error: Unrecognised) -> Unrecognised:
    """The same refusal, for a file that may be an upscaler or face restorer all the same."""
    words = str(error)
    suspected = candidate.expected in ("upscaler", "face_restorer") or any(
        hint in words for hint in ("an upscaler", "a face restorer", "it is not a checkpoint, LoRA")
    )
    readable = "damaged" not in words and "cut off" not in words and "not a .safetensors file" not in words
    if suspected and readable and candidate.path.stat().st_size <= _MOST_BYTES_OF_IMAGE_NETWORKS:
        return PerhapsImageNetwork(words)
    return error


def _family_of_embedding(shapes: Shapes) -> StableDiffusionFamily | None:
    """The family of a pickled textual inversion; None for what is something else."""
    if any("." in name and name.endswith((".bias", ".weight")) for name in shapes):
        return None
    return embedding_family(shapes)


def _bare(shapes: Shapes) -> Shapes:
    """The shapes under the names that a trainer's outer dictionary does not lengthen."""
    return {name.removeprefix("state_dict."): shape for name, shape in shapes.items()}


def _demand_safetensors(folder: Path) -> None:
    """Refuse a network of diffusers' layout without weights under the names that are opened in place.

    Raises:
        Unrecognised
    """
    names = [path.name for path in folder.glob("*.safetensors")]
    if any(
        re.fullmatch(r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors", name) for name in names
    ):
        return
    if any(".fp16." in name for name in names):
        raise Unrecognised(f"{folder.name} has weights under an .fp16. name alone; rename it without that")
    raise Unrecognised(f"{folder.name} has no weights in a .safetensors file")


def _json(path: Path) -> dict[str, Any]:
    try:
        found: object = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Unrecognised(f"its {path.name} is damaged") from error
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
