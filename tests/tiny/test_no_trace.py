"""A, A and something more, A again: the same bytes and networks, whatever it was and however it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

from pipelines.denoising.loop import Loop
from pipelines.engine.pool import PipelinePool
from pipelines.errors import (
    CheckpointUnavailable,
    GenerationError,
    InvalidInput,
    UnknownAdapter,
)
from pipelines.families.mbart50 import MAX_CHARACTERS
from pipelines.image_io import RGBImage
from pipelines.messages import Drawn, Event, Failed, Progress
from pipelines.request import (
    Control,
    ImageToImage,
    Inpainting,
    Lora,
    Request,
    Rewriting,
    SchedulerChoice,
    TextToImage,
)
from pipelines.schedulers.names import NAMES
from pipelines.weights.entries import AdapterEntry, ControlNetEntry, Source, UpscalerEntry
from pipelines.weights.manifest import Manifest
from tests.drawing import image_of, reference
from tests.random_checkpoints.build import build as build_random_checkpoints
from tests.tiny.lycoris_files import files

SD15, UPSCALER, TRANSLATOR = "stable-diffusion-v1-5", "small-x2", "mbart-50"
WIDTH, HEIGHT = 64, 48
A = TextToImage(
    pipeline=SD15,
    prompt="a red fox",
    negative_prompt="blurry",
    width=WIDTH,
    height=HEIGHT,
    num_inference_steps=2,
    guidance_scale=6.0,
    seeds=(5,),
    scheduler=SchedulerChoice(name="EulerAncestralDiscreteScheduler"),
)
NATIVE = 6
"""Latents along the side of the pictures that the checkpoint was trained with, as far as it says here: fewer
than are drawn, so that panoramas have views and highres_fix a smaller first pass."""

RANDOM = np.random.default_rng(3)
START, CONTROL_IMAGE = (
    image_of(RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)) for _ in range(2)
)
HALF = RGBImage(WIDTH, HEIGHT, bytes(WIDTH * HEIGHT * 3 // 2) + b"\xff" * (WIDTH * HEIGHT * 3 // 2))


def with_controls(*names: str, **changes: Any) -> dict[str, Any]:
    return {"controls": tuple(Control(name=name, image=CONTROL_IMAGE, **changes) for name in names)}


KINDS: dict[str, dict[str, Any]] = {
    "kohya lora": {"loras": (Lora(name="animie", scale=0.9),)},
    "diffusers lora": {"loras": (Lora(name="more_details", scale=0.6),)},
    "loha": {"loras": (Lora(name="loha", scale=0.5),)},
    "lokr": {"loras": (Lora(name="lokr", scale=0.5),)},
    "all loras": {"loras": tuple(Lora(name=name) for name in ("lokr", "animie", "loha", "more_details"))},
    "textual inversion": {"embeddings": ("night_scene",), "prompt": "a red fox, night_scene"},
    "vae": {"vae": "sd-vae-ft-mse"},
    "tomesd": {"token_merging_ratio": 0.5},
    "clip_skip": {"clip_skip": 2},
    "weighted prompt": {"prompt": "a ((red)) fox, [a hat:0.3]", "prompt_weighting": True},
    "self_attention": {"self_attention": True},
    "panorama": {"panorama": True},
    "highres_fix": {"highres_fix": True},
    "canny": with_controls("canny", preprocessor="canny"),
    "openpose": with_controls("openpose"),
    "two controlnets, guessing": {**with_controls("canny", "openpose", scale=1.5), "guess_mode": True},
    "upscale": {"upscaler": "small-x2"},
    "safety checker": {"safety_checker": True},
    "image to image": {"image": START, "strength": 1.0},
    "inpainting": {"image": START, "mask": HALF, "strength": 1.0},
    "everything": {
        "image": START,
        "mask": HALF,
        "strength": 0.7,
        "loras": (Lora(name="animie"), Lora(name="lokr", scale=0.5)),
        "embeddings": ("night_scene",),
        "prompt": "a ((red)) fox, night_scene",
        "prompt_weighting": True,
        "vae": "sd-vae-ft-mse",
        "token_merging_ratio": 0.5,
        "clip_skip": 2,
        "self_attention": True,
        "panorama": True,
        "highres_fix": True,
        "upscaler": "small-x2",
        **with_controls("canny", "openpose"),
    },
}
SCHEDULERS = {name: {"scheduler": SchedulerChoice(name=name, use_karras_sigmas=True)} for name in NAMES}
LIKE_A = ("safety checker", "EulerAncestralDiscreteScheduler", "DDPMScheduler")
"""What draws A: no concept is found in it, and ancestral steps of Euler's are DDPM's."""

CANCELLED_QUICKLY = ("all loras", "textual inversion", "two controlnets, guessing", "everything")
"""The kinds that the quick run cancels; "everything" changes most of what the others change."""


def and_more(changes: Mapping[str, Any]) -> TextToImage | ImageToImage | Inpainting:
    """A with these changes; of the kind that they make it."""
    values = {field.name: getattr(A, field.name) for field in fields(A) if field.name != "kind"} | changes
    if "mask" in changes:
        return Inpainting(**values)
    return ImageToImage(**values) if "image" in changes else TextToImage(**values)


# Ways to fail, each really: what more is asked for, and the error


def with_numbers_out_of_range(asked: Any) -> Any:
    """A textual inversion of NaN: every step is drawn, then there is no picture."""
    return replace(asked, prompt=f"{asked.prompt}, nothing", embeddings=(*asked.embeddings, "nothing"))


def with_a_controlnet_that_expects_more(asked: Any) -> Any:
    """It is opened, but asks for a pooled text when it is evaluated, inside of everything that is on."""
    return replace(asked, controls=(*asked.controls, Control(name="expects more", image=CONTROL_IMAGE)))


def with_a_corrupt_lora(asked: Any) -> Any:
    """It does not fit, which is found out when those before it are on the networks."""
    return replace(asked, loras=(*asked.loras, Lora(name="wide")))


def with_a_corrupt_upscaler(asked: Any) -> Any:
    """The finished picture is handed over to a file that is none."""
    return replace(asked, upscaler="corrupt")


FAILURES: Mapping[str, tuple[Callable[[Any], Any], type[GenerationError]]] = {
    "out of range": (with_numbers_out_of_range, InvalidInput),
    "in an evaluation": (with_a_controlnet_that_expects_more, UnknownAdapter),
    "corrupt lora": (with_a_corrupt_lora, UnknownAdapter),
    "corrupt upscaler": (with_a_corrupt_upscaler, CheckpointUnavailable),
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The small checkpoints with more adapters, good and bad."""
    folder = tmp_path_factory.mktemp("random")
    names = ("safety_checker", "sd15", "sdxl", "controlnets", "upscaler", "language")
    manifest = build_random_checkpoints(folder, *names)
    plain = reference(StableDiffusionPipeline, manifest, "sd15")
    loras = {**files(plain), "wide": load_file(folder / "sd15_adapters" / "more_details.safetensors")}
    for name in [name for name in loras["wide"] if name.endswith("lora_A.weight")]:
        loras["wide"][name] = loras["wide"][name].repeat(1, 2)
    for name, tensors in loras.items():
        save_file(tensors, folder / f"{name}.safetensors")
    width = plain.text_encoder.config.hidden_size
    save_file({"emb_params": torch.full((1, width), torch.nan)}, folder / "nothing.safetensors")
    config: Any = ControlNetModel.load_config(folder / "controlnets" / "sd15_canny")
    more = {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": width}
    network: Any = ControlNetModel.from_config(config, **more, addition_time_embed_dim=8)
    network.save_pretrained(folder / "controlnets" / "expects_more")
    (folder / "corrupt.safetensors").write_text("not a tensor in here")

    unpinned = {
        name: entry.model_copy(update={"resident": False}) for name, entry in manifest.pipelines.items()
    }
    added = {
        "pipelines": unpinned,
        "loras": {name: AdapterEntry(source=file(name), family="sd15") for name in loras},
        "embeddings": {"nothing": AdapterEntry(source=file("nothing"), family="sd15")},
        "controlnets": {
            "expects more": ControlNetEntry(
                source=Source(folder=Path("controlnets/expects_more")), family="sd15"
            )
        },
        "upscalers": {"corrupt": UpscalerEntry(source=file("corrupt"), dtype="float32")},
    }
    return manifest.model_copy(
        update={field: {**getattr(manifest, field), **entries} for field, entries in added.items()}
    )


def file(name: str) -> Source:
    return Source(file=Path(f"{name}.safetensors"))


class Stage:
    """A pool and the loop that draws with it."""

    def __init__(self, manifest: Manifest) -> None:
        self.pool = PipelinePool(manifest, manifest.path.parent, torch.device("cpu"), budget_bytes=10**9)
        self.loop = Loop(self.pool, 10**6)
        self.family.modules["unet"].register_to_config(sample_size=NATIVE)

    @property
    def family(self) -> Any:
        return self.pool.open(SD15)

    def events(self, request: Request, *, cancelled: bool = False) -> list[Event]:
        """All that happens to a request; one to be cancelled is when half of it is drawn."""
        self.loop.submit("it", request)
        events: list[Event] = []
        while not self.loop.idle:
            events += self.loop.turn()
            steps = [event for event in events if isinstance(event, Progress)]
            if cancelled and steps and 2 * steps[-1].done >= steps[-1].total:
                self.loop.cancel("it")
        return events

    def drawn(self, request: Request) -> RGBImage:
        (last,) = [event for event in self.events(request) if isinstance(event, Drawn | Failed)]
        assert isinstance(last, Drawn), last
        return last.drawing.images[0]

    def networks(self) -> dict[tuple[str, str, str], tuple[Any, ...]]:
        """Everything of the networks that could have been changed: modules, hooks, patches, weights."""
        return {
            (pipeline, part, name): state(module)
            for pipeline in (SD15, UPSCALER, TRANSLATOR)
            for part, network in self.pool.open(pipeline).modules.items()
            if ":" not in part  # chosen VAEs and ControlNets stay beside them
            for name, module in network.named_modules()
        }


def state(module: torch.nn.Module) -> tuple[Any, ...]:
    own = vars(module)
    hooks = tuple(tuple(own[name].values()) for name in sorted(own) if name.endswith("_hooks"))
    parameters = tuple((name, id(each)) for name, each in module.named_parameters(recurse=False))
    patched = (own.get("forward"), own.get("processor"), type(module), module.training)
    return module, patched, hooks, parameters


@pytest.fixture(scope="module")
def stage(manifest: Manifest) -> Stage:
    """One that drew before: transformers gives its networks hooks when they are first used."""
    stage = Stage(manifest)
    stage.drawn(replace(A, clip_skip=1, safety_checker=True))
    stage.events(Rewriting(pipeline=TRANSLATOR, texts=("une église rouge sur la colline",)))
    return stage


@pytest.fixture(scope="module")
def first(manifest: Manifest) -> RGBImage:
    """A, by networks that never drew anything else."""
    return Stage(manifest).drawn(A)


@pytest.fixture
def untouched(stage: Stage, first: RGBImage) -> Iterator[None]:
    """After the test: A is what it was, read and drawn anew, and the networks are what they were before."""
    stage.family.clear_cache()
    before = stage.networks()
    yield
    stage.family._prompts.clear_cache()
    assert stage.drawn(A) == first
    kept = [module for module in stage.family.modules["unet"].modules() if isinstance(module, BaseTunerLayer)]
    assert all(module.disable_adapters for module in kept)
    if kept:  # LoRAs stay in the networks, switched off, until their room is needed
        stage.family.clear_cache()
    assert stage.networks() == before


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("kind", [*KINDS, *SCHEDULERS])
def test_what_was_drawn_leaves_nothing_behind(kind: str, stage: Stage, first: RGBImage) -> None:
    picture = stage.drawn(and_more((KINDS | SCHEDULERS)[kind]))
    assert (picture == first) == (kind in LIKE_A)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "kind",
    [
        kind if kind in CANCELLED_QUICKLY else pytest.param(kind, marks=pytest.mark.slow)
        for kind in (*KINDS, "HeunDiscreteScheduler", "KarrasVeScheduler", "PNDMScheduler")
    ],
)
def test_what_was_cancelled_between_two_steps_leaves_nothing_behind(kind: str, stage: Stage) -> None:
    events = stage.events(and_more((KINDS | SCHEDULERS)[kind]), cancelled=True)
    assert events
    assert not [event for event in events if isinstance(event, Drawn | Failed)]


@pytest.mark.slow
@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_failed_leaves_nothing_behind(kind: str, failure: str, stage: Stage) -> None:
    fails, error = FAILURES[failure]
    (failed,) = [
        event for event in stage.events(fails(and_more(KINDS[kind]))) if isinstance(event, Drawn | Failed)
    ]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, error)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("text", ["une église rouge sur la colline", "x" * (MAX_CHARACTERS + 1)])
def test_a_translation_leaves_nothing_behind(text: str, stage: Stage) -> None:
    (event,) = [
        event
        for event in stage.events(Rewriting(pipeline=TRANSLATOR, texts=(text,)))
        if isinstance(event, Drawn | Failed)
    ]
    assert isinstance(event, Failed) == (len(text) > MAX_CHARACTERS)
