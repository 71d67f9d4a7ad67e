"""Look at a file that may be drawn with: what it is, and whether it will open. Torch-free.

Of large files only headers are read. What passes here is refused later for want of memory alone, or because
the bytes of a large file's tensors are damaged: the layouts by which it is judged are those by which it is
opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.weights.configs import configuration
from pipelines.weights.header import Header, Shapes, Unrecognised, read_header
from pipelines.weights.kinds import Kind, StableDiffusionFamily
from pipelines.weights.layouts.checkpoint import checkpoint_networks
from pipelines.weights.layouts.networks import HINT_CHANNELS, controlnet_network, vae_network
from pipelines.weights.layouts.numbers import demand_not_quantised
from pipelines.weights.lora_fit import fits_somewhere
from pipelines.weights.manifest import Manifest, load_manifest
from pipelines.weights.prediction import scheduler_changes
from pipelines.weights.recognition import recognise
from pipelines.weights.usable import demand_usable

PUBLISHED: dict[StableDiffusionFamily, str] = {"sd15": "stable-diffusion-v1-5", "sdxl": "sdxl"}
"""The name of the configuration that ships for each family."""


NAMES: dict[StableDiffusionFamily, str] = {"sd15": "SD1.5", "sdxl": "SDXL"}
"""The families as people call them."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """A file that can be drawn with.

    Attributes:
        family: None for what both families have alike, as VAEs.
        config: of a checkpoint, the configuration that fits it, in the words of weights.yaml.
        prediction: of a checkpoint, what its network predicts, in diffusers' word; None for the usual noise.
        title: the name that its trainer gave it; empty where it says none.
    """

    kind: Kind
    family: StableDiffusionFamily | None
    config: str | None = None
    prediction: str | None = None
    title: str = ""


def inspect_file(
    path: Path, manifest: Path | Manifest, network: str = "", *, thorough: bool = True
) -> Inspected:
    """Tell what a file is, and make sure that it opens.

    Args:
        manifest: weights.yaml; configurations beside it, and those of its checkpoints, are tried, too.
        network: of an adapter that PEFT saved, the network to which its folder belongs.
        thorough: read small files whole. Otherwise headers alone are read, and numbers that are none (NaN)
            are seen when the file is drawn with.
    Raises:
        Unrecognised: it cannot be drawn with; the error says why, in words for the caller.
    """
    if isinstance(manifest, Path):
        manifest = load_manifest(manifest)
    header = read_header(path)
    if network:
        named = {f"{network}.{name}": shape for name, shape in header.shapes.items()}
        header = replace(header, shapes=named)
    found = recognise(header.shapes)
    noted = demand_usable(path, header, found.kind, thorough=thorough)
    if found.kind == "lora":
        family = _lora_family(header.shapes, found.family or noted, manifest)
        return Inspected("lora", family, title=header.metadata.get("ss_output_name", ""))
    if found.kind == "embedding":
        return Inspected("embedding", found.family)
    demand_not_quantised(header)
    config = _fitting(header, found.kind, found.family or "sd15", manifest)
    if found.kind != "checkpoint":
        return Inspected(found.kind, found.family)
    return Inspected(found.kind, found.family, config, scheduler_changes(header).get("prediction_type"))


def _lora_family(
    shapes: Shapes, told: StableDiffusionFamily | None, manifest: Manifest
) -> StableDiffusionFamily | None:
    """The family of a LoRA with a layer that fits; None where layers fit both and nothing tells.

    Raises:
        Unrecognised: no layer fits any checkpoint here.
    """
    tried: list[StableDiffusionFamily] = list(PUBLISHED) if told is None else [told]
    fitting: list[StableDiffusionFamily] = [
        family
        for family in tried
        if any(fits_somewhere(shapes, folder) for _, folder in _configurations(family, manifest))
    ]
    if not fitting:
        names = " or ".join(NAMES[family] for family in tried)
        raise Unrecognised(f"none of its layers has the shape of one of {names}, so that it changes nothing")
    return fitting[0] if len(fitting) == 1 else None


def _fitting(header: Header, kind: Kind, family: StableDiffusionFamily, manifest: Manifest) -> str:
    """The first configuration that fits a file.

    Raises:
        Unrecognised: none fits; the error says how the published one of its family does not.
    """
    refusal: Unrecognised | None = None
    for name, folder in _configurations(family, manifest):
        try:
            _demand_fit(header, kind, folder)
        except Unrecognised as error:
            refusal = refusal or error
        else:
            return name
    if refusal is not None:
        raise refusal
    return PUBLISHED[family]


def _configurations(family: StableDiffusionFamily, manifest: Manifest) -> Iterator[tuple[str, Path]]:
    """The configurations that a family's file may have, by their names in weights.yaml, usual ones first."""
    name = PUBLISHED[family]
    with suppress(KeyError):  # an installation that does not draw has none
        yield name, configuration_folder(name, manifest)
    for entry in manifest.pipelines.values():
        source = entry.parts.get("pipeline")
        if entry.family == family and source is not None and source.folder is not None:
            folder = manifest.path.parent / source.folder
            if (folder / "unet/config.json").is_file():
                yield str(source.folder), folder


def configuration_folder(name: str, manifest: Manifest) -> Path:
    """The folder of a configuration: the one beside the manifest, else the one that ships.

    Raises:
        KeyError: there is neither.
    """
    beside = manifest.path.parent / name
    return beside if beside.is_dir() else configuration(name)


def latent_sizes(manifest: Manifest) -> set[int]:
    """The pixels along one side of a latent that the checkpoints of a manifest have, and published ones."""
    folders = [folder for family in PUBLISHED for _, folder in _configurations(family, manifest)]
    return {_pixels_per_latent(folder) for folder in folders}


def _pixels_per_latent(folder: Path) -> int:
    return 2 ** (len(json.loads((folder / "vae/config.json").read_text())["block_out_channels"]) - 1)


def _demand_fit(header: Header, kind: Kind, folder: Path) -> None:
    if kind == "checkpoint":
        checkpoint_networks(header, folder)
    elif kind == "vae":
        vae_network(header, json.loads((folder / "vae/config.json").read_text()))
    else:
        _, config = controlnet_network(header, json.loads((folder / "unet/config.json").read_text()))
        if 2 ** (len(config[HINT_CHANNELS]) - 1) != _pixels_per_latent(folder):
            raise Unrecognised("it is a ControlNet whose control image is no picture of the drawn one's size")
