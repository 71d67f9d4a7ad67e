"""A distilled SD1.5, as `demo --real` pulls it: no middle, one layer a level, pickles in half precision."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import save_file

from pipelines.checkpoints.dummies import skeleton, skeleton_of
from pipelines.demo import build
from pipelines.errors import InvalidInput, UnknownAdapter
from pipelines.image_io import RGBImage
from pipelines.request import Control, ImageToImage, Inpainting, Lora, Prompted, SchedulerChoice, TextToImage
from pipelines.weights.configs import configuration
from pipelines.weights.downloads import pull
from pipelines.weights.entries import AdapterEntry, Source
from pipelines.weights.hub import Hub
from pipelines.weights.manifest import Manifest, load_manifest
from pipelines.weights.repositories import repositories
from tests.distilled_sd15 import COMMIT, HUB, UNET, pipeline, repository_files
from tests.drawing import (
    array,
    draw,
    draw_alone,
    draw_images,
    draw_moving_group,
    drawn_plainly,
    largest_difference,
    open_family,
    seeded,
    small_request,
)
from tests.integration.hub_server import HubServer, Repo

REAL = Path(build.__file__).with_name("real.yaml")
PIPELINE = "stable-diffusion-v1-5"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder into which the checkpoint was pulled from a hub."""
    folder = tmp_path_factory.mktemp("real")
    files = repository_files(tmp_path_factory.mktemp("published"))
    with HubServer({HUB: Repo(files, commit=COMMIT)}) as hub:
        for repository in repositories(load_manifest(REAL)):
            pull(Hub(hub.url), repository, folder)
    return folder


@pytest.fixture(scope="module")
def manifest(weights: Path, random_manifest_path: Path) -> Manifest:
    """The manifest of `demo --real`, with a LoRA of this shape and adapters that were made for SD1.5."""
    layers = {
        "down_blocks.2.attentions.0.transformer_blocks.0.attn1.to_q": 128,
        "up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k": 64,
    }
    save_file(_lora(layers), weights / "own.safetensors")
    folder, theirs = random_manifest_path.parent, load_manifest(random_manifest_path).controlnets["canny"]
    assert theirs.source.folder is not None
    canny = theirs.model_copy(update={"source": Source(folder=folder / theirs.source.folder)})
    own = AdapterEntry(source=Source(file=weights / "own.safetensors"), family="sd15")
    adapters = {"loras": {"own": own}, "controlnets": {"canny": canny}}
    return load_manifest(REAL).model_copy(update=adapters)


def _lora(layers: dict[str, int]) -> dict[str, torch.Tensor]:
    """A LoRA of the UNet: the width of what goes into each of its layers."""
    random = torch.Generator().manual_seed(1)
    shapes = {f"unet.{name}.lora_A.weight": (4, width) for name, width in layers.items()}
    shapes |= {f"unet.{name}.lora_B.weight": (128, 4) for name in layers}
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def family(manifest: Manifest, weights: Path) -> Any:
    return open_family(manifest, PIPELINE, weights=weights)


@pytest.fixture(scope="module")
def plain() -> Any:
    plain = pipeline()
    plain.scheduler = DDIMScheduler.from_config(plain.scheduler.config)
    return plain


def text_to_image(**changes: Any) -> TextToImage:
    request = small_request(
        pipeline=PIPELINE, negative_prompt="blurry", scheduler=SchedulerChoice(name="DDIMScheduler")
    )
    return replace(request, **changes)


def grey(side: int = 64) -> RGBImage:
    ramp = np.linspace(0, 255, side * side * 3).astype(np.uint8)
    return RGBImage(side, side, ramp.tobytes())


def over(cls: Any = ImageToImage, **more: Any) -> Any:
    """A request that draws over a grey ramp."""
    shared: dict[str, Any] = {each.name: getattr(text_to_image(), each.name) for each in fields(Prompted)}
    return cls(**shared, image=grey(), strength=0.75, **more)


def test_what_was_pulled_draws_the_bytes_of_the_plain_pipeline(family: Any, plain: Any) -> None:
    request = text_to_image()
    (drawn,) = draw_alone(family, request)
    assert np.array_equal(drawn, drawn_plainly(plain, request))


def test_a_picture_is_drawn_over_as_the_plain_pipeline_does(family: Any, plain: Any) -> None:
    request = over()
    drawing_over: Any = StableDiffusionImg2ImgPipeline(**plain.components, requires_safety_checker=False)
    drawing_over.set_progress_bar_config(disable=True)
    expected = drawing_over(
        request.prompt,
        negative_prompt=request.negative_prompt,
        image=Image.fromarray(array(request.image)),
        strength=request.strength,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        generator=seeded(request.seeds[0]),
    ).images[0]
    assert np.array_equal(draw_alone(family, request)[0], np.asarray(expected))


def test_among_others_it_draws_the_same(family: Any) -> None:
    requests = [text_to_image(seeds=(seed,), num_inference_steps=3 + seed) for seed in range(3)]
    for request, drawn in zip(requests, draw_moving_group(family, requests), strict=True):
        assert largest_difference(drawn, draw_alone(family, request)[0]) <= 1


@pytest.mark.parametrize(
    "changes",
    [
        {"token_merging_ratio": 0.5},
        {"clip_skip": 2},
        pytest.param({"panorama": True, "width": 576, "height": 512}, marks=pytest.mark.slow),
        pytest.param({"highres_fix": True, "width": 576, "height": 576}, marks=pytest.mark.slow),
        {"loras": (Lora(name="own"),)},
        {"scheduler": SchedulerChoice(name="LCMScheduler"), "guidance_scale": 1.0},
    ],
    ids=str,
)
def test_each_option_changes_the_picture_and_leaves_no_trace(family: Any, changes: dict[str, Any]) -> None:
    size = {name: changes[name] for name in ("width", "height") if name in changes}
    without = text_to_image(num_inference_steps=1, **size)
    requests = (without, replace(without, **changes), without)
    first, other, last = (draw_images(family, each)[0] for each in requests)
    assert first == last
    assert first != other


def test_it_paints_into_a_mask(family: Any) -> None:
    mask = RGBImage(64, 64, (b"\xff" * 96 + b"\0" * 96) * 64)
    (drawn,) = draw_alone(family, over(Inpainting, mask=mask))
    assert np.array_equal(drawn[:, 32:], array(grey())[:, 32:])
    assert not np.array_equal(drawn[:, :32], array(grey())[:, :32])


def test_self_attention_guidance_is_refused_in_words(family: Any) -> None:
    with pytest.raises(InvalidInput, match="no attention in its middle") as refused:
        family.encode(text_to_image(self_attention=True))
    assert refused.value.field == "self_attention"


def test_a_controlnet_of_stable_diffusion_is_refused_in_words(family: Any) -> None:
    control = Control(name="canny", image=grey(), scale=1.0)
    with pytest.raises(UnknownAdapter, match="does not fit") as refused:
        family.encode(text_to_image(controls=(control,)))
    assert refused.value.field == "controls"


def test_a_lora_of_stable_diffusion_is_drawn_with_as_far_as_it_fits_and_the_answer_says_how_far(
    manifest: Manifest, weights: Path
) -> None:
    # SD1.5's up_blocks.1 is as wide as this UNet's up_blocks.0.
    layers = {
        "down_blocks.2.attentions.0.transformer_blocks.0.attn1.to_q": 128,
        "up_blocks.1.attentions.2.transformer_blocks.0.attn1.to_q": 128,
        "up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q": 128,
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 128,
    }
    save_file(_lora(layers), weights / "theirs.safetensors")
    theirs = AdapterEntry(source=Source(file=weights / "theirs.safetensors"), family="sd15")
    family = open_family(manifest.model_copy(update={"loras": {"theirs": theirs}}), PIPELINE, weights=weights)
    (picture,) = draw(family, text_to_image(loras=(Lora(name="theirs"),)))
    (warning,) = picture.warnings
    assert "3 of the 4 layers of the LoRA theirs" in warning


# What is published, at its full size


def published_tensors() -> dict[str, torch.Size]:
    """The tensors of the real UNet: those of SD1.5's, less what its authors' training program takes out."""
    whole: Any = skeleton(UNet2DConditionModel, configuration("stable-diffusion-v1-5") / "unet")
    whole.mid_block = None
    for block in whole.down_blocks[:3]:
        del block.resnets[1], block.attentions[1]
    del whole.down_blocks[3]
    whole.down_blocks[2].downsamplers = None
    for block in whole.up_blocks[1:]:
        del block.resnets[1], block.attentions[1]
    del whole.up_blocks[0]
    return {name: tensor.shape for name, tensor in whole.state_dict().items()}


def test_the_configuration_makes_the_tensors_that_the_distillation_left() -> None:
    made: Any = skeleton_of(UNet2DConditionModel, UNET)
    assert {name: tensor.shape for name, tensor in made.state_dict().items()} == published_tensors()


def test_the_manifest_says_how_large_it_is() -> None:
    numbers = sum(shape.numel() for shape in published_tensors().values())
    assert load_manifest(REAL).pipeline(PIPELINE).memory["unet"] == round(2 * numbers / 1e9, 3)


def test_a_small_one_differs_from_the_published_one_in_numbers_alone() -> None:
    made: Any = pipeline().unet
    assert set(made.state_dict()) == set(published_tensors())
