"""Recognise repositories in diffusers' layout by their configurations, before weights come. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

from pipelines.weights.header import Unrecognised
from pipelines.weights.kinds import Kind, StableDiffusionFamily
from pipelines.weights.text_widths import FOREIGN_BY_TEXT_WIDTH

Config = Mapping[str, Any]

_FAMILIES: Mapping[str, StableDiffusionFamily] = {
    "StableDiffusionPipeline": "sd15",
    "StableDiffusionImg2ImgPipeline": "sd15",
    "LatentConsistencyModelPipeline": "sd15",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionXLImg2ImgPipeline": "sdxl",
}
"""The family of a pipeline by its class in model_index.json; these have the same networks in a family."""

_NAMED = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
"""The pipelines of which an error speaks."""

_COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
"""The components that every checkpoint has, and the classes that each may have."""

_SECOND = {"text_encoder_2": ("CLIPTextModelWithProjection",), "tokenizer_2": _COMPONENTS["tokenizer"]}
"""The components that SDXL has besides."""

_NETWORKS: Mapping[str, Kind] = {"AutoencoderKL": "vae", "ControlNetModel": "controlnet"}
"""The kind of a single network by its class in config.json."""

_UNET_OPTIONS: Mapping[StableDiffusionFamily, Mapping[str, tuple[object, ...]]] = {
    "sd15": {"addition_embed_type": (None,), "class_embed_type": (None,), "encoder_hid_dim_type": (None,)},
    "sdxl": {
        "addition_embed_type": ("text_time",),
        "class_embed_type": (None,),
        "encoder_hid_dim_type": (None,),
    },
}
"""The options of a UNet by which it reads something besides, and the values that are drawn with."""

_FOREIGN_SCHEDULERS = ("EDM", "Flow", "Cosine", "DDPMWuerstchen", "VQ")
"""The beginnings of the names of noise schedulers of other trainings."""

_PREDICTIONS = ("epsilon", "v_prediction", "sample")


def pipeline_family(index: Config) -> StableDiffusionFamily:
    """The family of a checkpoint by its model_index.json.

    Raises:
        Unrecognised: it is none of a family, or has other components.
    """
    name = str(index.get("_class_name"))
    family = _FAMILIES.get(name)
    if family is None:
        raise Unrecognised(f"it is a {name}; this server draws with {' and '.join(_NAMED)}")
    wanted = {**_COMPONENTS, **(_SECOND if family == "sdxl" else {}), "scheduler": ()}
    if family == "sdxl" and _class(index, "text_encoder") is None and _class(index, "text_encoder_2"):
        raise Unrecognised("it is the SDXL refiner; this server draws with SDXL's base")
    for component, classes in wanted.items():
        found = _class(index, component)
        if found is None:
            raise Unrecognised(f"it is a checkpoint without {component}, as its model_index.json says")
        if classes and found not in classes:
            raise Unrecognised(f"its {component} is a {found}; this server draws with {classes[0]}")
    return family


def demand_drawable(family: StableDiffusionFamily, config: Callable[[str], Config]) -> None:
    """Refuse a checkpoint that is not drawn with, by the configurations of its components.

    Args:
        config: reads a file of the repository; empty for one that it lacks.
    Raises:
        Unrecognised: a component has options that are not drawn with.
    """
    unet = config("unet/config.json")
    width = unet.get("cross_attention_dim")
    if isinstance(width, int) and width in FOREIGN_BY_TEXT_WIDTH:
        raise Unrecognised(
            f"it belongs to {FOREIGN_BY_TEXT_WIDTH[width]}; this server draws with SD1.5 and SDXL"
        )
    if unet.get("in_channels", 4) != 4:
        raise Unrecognised("its network is for inpainting or editing and reads more than 4 channels")
    for option, values in _UNET_OPTIONS[family].items() if unet else ():
        if unet.get(option) not in values:
            raise Unrecognised(f"its network has {option} {unet.get(option)!r}, which is not drawn with here")
    _demand_latents(config("vae/config.json"))
    scheduler = config("scheduler/scheduler_config.json")
    name = str(scheduler.get("_class_name", ""))
    prediction = scheduler.get("prediction_type", "epsilon")
    if name.startswith(_FOREIGN_SCHEDULERS):
        raise Unrecognised(f"it was trained for {name}, and this server draws what predicts noise or v")
    if prediction not in _PREDICTIONS:
        raise Unrecognised(f"its network predicts {prediction!r}, and not noise or v")


def network_kind(config: Config, sizes: Collection[int]) -> Kind:
    """The kind of a single network by its config.json.

    Args:
        sizes: the pixels along one side of a latent that checkpoints have here.
    Raises:
        Unrecognised: it is none that this server draws with.
    """
    architectures = cast("list[str]", config.get("architectures") or [])
    name = str(config.get("_class_name") or next(iter(architectures), "") or "network of another library")
    kind = _NETWORKS.get(name)
    if kind is None:
        raise Unrecognised(f"it is a {name}; of single networks this server loads {' and '.join(_NETWORKS)}")
    if kind == "vae":
        _demand_latents(config)
        widths = cast("list[int]", config.get("block_out_channels") or ())
        if widths and 2 ** (len(widths) - 1) not in sizes:
            raise Unrecognised(
                f"it is a VAE with {2 ** (len(widths) - 1)} pixels along a latent, not {_listed(sizes)}"
            )
        return kind
    width = config.get("cross_attention_dim")
    if isinstance(width, int) and width in FOREIGN_BY_TEXT_WIDTH:
        raise Unrecognised(f"it is a ControlNet for {FOREIGN_BY_TEXT_WIDTH[width]}")
    if config.get("encoder_hid_dim_type") is not None or config.get("class_embed_type") is not None:
        raise Unrecognised("it is a ControlNet for another network than those of SD1.5 and SDXL")
    hint = cast("list[int]", config.get("conditioning_embedding_out_channels") or ())
    if config.get("conditioning_channels", 3) != 3 or (hint and 2 ** (len(hint) - 1) not in sizes):
        raise Unrecognised("it is a ControlNet whose control image is no picture of the drawn one's size")
    return kind


def demand_weights(components: Collection[str], chosen: Collection[str]) -> None:
    """Refuse a checkpoint that lacks the weights of a network.

    Args:
        components: the components of its model_index.json.
        chosen: the files that are going to be fetched.
    Raises:
        Unrecognised: a network has no weights.
    """
    for component in ("unet", "vae", "text_encoder", "text_encoder_2"):
        has_weights = any(
            name.startswith(f"{component}/") and name.endswith((".safetensors", ".bin")) for name in chosen
        )
        if component in components and not has_weights:
            raise Unrecognised(f"its {component} has no weights in a .safetensors file")


def _class(index: Config, component: str) -> str | None:
    described = index.get(component)
    if not isinstance(described, list):
        return None
    parts = cast("list[Any]", described)
    return None if len(parts) < 2 or parts[0] is None else str(parts[1])


def _demand_latents(vae: Config) -> None:
    channels = vae.get("latent_channels", 4)
    if channels != 4:
        raise Unrecognised(f"it is a VAE with {channels} latent channels, not 4")


def _listed(sizes: Collection[int]) -> str:
    return " or ".join(map(str, sorted(sizes)))
