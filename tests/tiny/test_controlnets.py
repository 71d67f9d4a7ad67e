"""ControlNets on small checkpoints: the plain pipelines' bytes, several at once, drawn among others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image

from pipelines.denoising.sample import Sample
from pipelines.engine.parts import module_bytes
from pipelines.engine.pool import PipelinePool
from pipelines.errors import InvalidInput, UnknownAdapter
from pipelines.request import Control, ImageToImage, Inpainting, Request, SchedulerChoice, TextToImage
from pipelines.weights.entries import Source
from pipelines.weights.manifest import Manifest
from tests.drawing import (
    advance_to_the_end,
    array,
    draw,
    draw_moving_group,
    image_of,
    largest_difference,
    open_family,
    reference,
    seeded,
)
from tests.tiny.original_layout import write_controlnet

SD15, XL = "stable-diffusion-v1-5", "sdxl"
FOLDERS = {SD15: "sd15", XL: "sdxl"}
PLAIN = {
    (SD15, TextToImage): "StableDiffusionControlNetPipeline",
    (SD15, ImageToImage): "StableDiffusionControlNetImg2ImgPipeline",
    (SD15, Inpainting): "StableDiffusionControlNetInpaintPipeline",
    (XL, TextToImage): "StableDiffusionXLControlNetPipeline",
}
FILES = {"canny": "sd15_canny", "openpose": "sd15_openpose", "canny-sdxl": "sdxl_canny"}

RANDOM = np.random.default_rng(5)
START, EDGES, POSE = (RANDOM.integers(0, 256, (64, 72, 3), dtype=np.uint8) for _ in range(3))
MASK = np.zeros((64, 72, 3), np.uint8)
MASK[13:50, 20:61] = 255

CANNY = Control(name="canny", image=image_of(EDGES), scale=0.7)
OPENPOSE = Control(name="openpose", image=image_of(POSE), scale=1.5)
MASKED = Control(name="canny", image=image_of(START), preprocessor="inpaint")
"""Any ControlNet takes the picture without its masked part."""
CANNY_XL = Control(name="canny-sdxl", image=image_of(EDGES), scale=0.8)


@pytest.fixture(scope="module")
def families(random_manifest: Manifest) -> dict[str, Any]:
    return {name: open_family(random_manifest, name) for name in FOLDERS}


def request(kind: type[Any] = TextToImage, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "pipeline": SD15,
        "prompt": "a red fox",
        "negative_prompt": "blurry",
        "width": 72,
        "height": 64,
        "num_inference_steps": 4,
        "guidance_scale": 7.5,
        "seeds": (77,),
        "controls": (CANNY,),
        "scheduler": SchedulerChoice(name="EulerAncestralDiscreteScheduler"),
    }
    if kind is not TextToImage:
        values |= {"image": image_of(START), "strength": 0.8}
    if kind is Inpainting:
        values["mask"] = image_of(MASK)
    return kind(**values | changes)


def inpaint_condition() -> torch.Tensor:
    """The control image as diffusers' documentation makes it of `START` and `MASK`."""
    picture = START.astype(np.float32) / 255.0
    picture[MASK.astype(np.float32) / 255.0 > 0.5] = -1.0
    return torch.from_numpy(picture[None].transpose(0, 3, 1, 2))


def drawn_plainly(manifest: Manifest, asked: Any) -> np.ndarray:
    """The plain pipeline's picture; of an inpainting with the rest put back."""
    folder = manifest.path.parent
    networks: Any = [
        ControlNetModel.from_pretrained(folder / "controlnets" / FILES[control.name])
        for control in asked.controls
    ]
    control_images: Any = [
        inpaint_condition() if control.preprocessor == "inpaint" else Image.fromarray(array(control.image))
        for control in asked.controls
    ]
    scales: Any = [control.scale for control in asked.controls]
    if len(networks) == 1:
        (networks,), (control_images,), (scales,) = networks, control_images, scales
    base = "StableDiffusionXLPipeline" if asked.pipeline == XL else "StableDiffusionPipeline"
    components = reference(getattr(diffusers, base), manifest, FOLDERS[asked.pipeline]).components
    checker = {"requires_safety_checker": False} if asked.pipeline == SD15 else {"add_watermarker": False}
    pipeline = getattr(diffusers, PLAIN[asked.pipeline, type(asked)])(
        **components, controlnet=networks, **checker
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = getattr(diffusers, asked.scheduler.name).from_config(components["scheduler"].config)
    more: dict[str, Any] = {"image": control_images}
    if not isinstance(asked, TextToImage):
        more = {
            "image": Image.fromarray(START),
            "control_image": control_images,
            "strength": asked.strength,
        }
    if isinstance(asked, Inpainting):
        more["mask_image"] = Image.fromarray(MASK)
    picture = np.asarray(
        pipeline(
            asked.prompt,
            negative_prompt=asked.negative_prompt,
            width=asked.width,
            height=asked.height,
            num_inference_steps=asked.num_inference_steps,
            guidance_scale=asked.guidance_scale,
            controlnet_conditioning_scale=scales,
            guess_mode=asked.guess_mode,
            generator=seeded(asked.seeds[0]),
            **more,
        ).images[0]
    )
    return np.where(MASK, picture, START) if isinstance(asked, Inpainting) else picture


@pytest.mark.parametrize(
    "asked",
    [
        request(),
        request(guess_mode=True),
        request(guidance_scale=1.0),
        request(guidance_scale=1.0, guess_mode=True),
        request(controls=(CANNY, OPENPOSE)),
        request(controls=(OPENPOSE, CANNY), guess_mode=True),
        request(ImageToImage),
        request(Inpainting),
        request(Inpainting, controls=(MASKED,)),
        request(Inpainting, controls=(OPENPOSE, MASKED)),
        request(pipeline=XL, controls=(CANNY_XL,)),
        request(pipeline=XL, controls=(CANNY_XL,), guess_mode=True),
    ],
    ids=[
        "one",
        "guess",
        "unguided",
        "unguided guess",
        "two",
        "two guess",
        "image to image",
        "inpainting",
        "masked guide",
        "two, one masked guide",
        "xl",
        "xl guess",
    ],
)
def test_alone_a_picture_has_the_bytes_of_the_plain_pipeline(
    asked: Any, families: dict[str, Any], random_manifest: Manifest
) -> None:
    picture = array(draw(families[asked.pipeline], asked)[0].image)
    assert np.array_equal(picture, drawn_plainly(random_manifest, asked))


def test_pictures_scales_and_guessing_matter_and_leave_no_trace(families: dict[str, Any]) -> None:
    family = families[SD15]
    without = draw(family, request(controls=()))[0].image
    with_control_images = [
        request(),
        request(controls=(replace(CANNY, image=image_of(POSE)),)),
        request(controls=(replace(CANNY, scale=0.2),)),
        request(controls=(replace(CANNY, name="openpose"),)),
        request(guess_mode=True),
    ]
    pictures = {draw(family, asked)[0].image for asked in with_control_images}
    assert len(pictures | {without}) == 6
    assert draw(family, request(controls=()))[0].image == without


def test_drawn_among_others_no_pixel_is_off_by_more_than_one(families: dict[str, Any]) -> None:
    family = families[SD15]
    requests: list[Request] = [
        request(),
        request(ImageToImage, seeds=(3,), controls=(replace(CANNY, scale=0.3),), guidance_scale=1.0),
        request(guess_mode=True, seeds=(4,), num_inference_steps=6),
        request(Inpainting, controls=(replace(CANNY, image=image_of(POSE)),)),
    ]
    assert len({family.encode(asked)[0].key for asked in requests}) == 1
    for asked, picture in zip(requests, draw_moving_group(family, requests), strict=True):
        assert largest_difference(picture, array(draw(family, asked)[0].image)) <= 1


def test_guess_mode_evaluates_the_controlnet_on_half_of_the_rows(families: dict[str, Any]) -> None:
    family = families[SD15]
    draw(family, request())
    rows: list[int] = []
    network = family.modules["controlnet:canny"]
    handle = network.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    draw(family, request())
    draw(family, request(guess_mode=True))
    handle.remove()
    assert rows == [2] * 4 + [1] * 4


def test_a_preprocessor_makes_the_guide_at_the_size_of_the_picture(families: dict[str, Any]) -> None:
    import cv2

    blocks = np.kron(RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
    edges = np.repeat(cv2.Canny(blocks, 100, 200)[..., None], 3, axis=2)
    assert 0 < edges.mean() < 128
    size = {"width": 128, "height": 128}
    photograph = replace(CANNY, image=image_of(blocks), preprocessor="canny")
    made = draw(families[SD15], request(controls=(photograph,), **size))[0].image
    given = draw(families[SD15], request(controls=(replace(CANNY, image=image_of(edges)),), **size))[0].image
    assert made == given


def test_highres_fix_sees_the_guide_in_both_passes(families: dict[str, Any]) -> None:
    family = families[SD15]
    family.modules["unet"].register_to_config(sample_size=6)
    try:
        shapes: list[tuple[int, ...]] = []
        family.encode(request())
        handle = family.modules["controlnet:canny"].register_forward_pre_hook(
            lambda _, __, named: shapes.append(tuple(named["controlnet_cond"].shape[2:])), with_kwargs=True
        )
        (sample,) = family.encode(request(highres_fix=True))
        advance_to_the_end(family, sample)
        second = sample.finish(sample)
        assert isinstance(second, Sample)
        advance_to_the_end(family, second)
        handle.remove()
    finally:
        family.modules["unet"].register_to_config(sample_size=64)
    assert set(shapes) == {(48, 48), (64, 72)}


@pytest.mark.parametrize(
    ("controls", "error", "text"),
    [
        ((replace(CANNY, name="unheard"),), UnknownAdapter, "controls: unheard is not on this server"),
        ((CANNY_XL,), UnknownAdapter, "controls: canny-sdxl is made for sdxl checkpoints, this one is sd15"),
        ((CANNY, CANNY), InvalidInput, "controls: a ControlNet is named twice"),
        (
            (replace(CANNY, preprocessor="openpose"),),
            InvalidInput,
            "preprocessor: openpose needs weights that are not on this server",
        ),
        (
            (replace(CANNY, preprocessor="hed"),),
            InvalidInput,
            "preprocessor: hed needs weights that are not on this server",
        ),
        ((MASKED,), InvalidInput, "preprocessor: inpaint needs a picture and the mask of what is repainted"),
        ((replace(CANNY, preprocessor="tea leaves"),), InvalidInput, "preprocessor: tea leaves is not one"),
    ],
)
def test_what_cannot_steer_is_refused_by_name(
    controls: Any, error: type[Exception], text: str, families: dict[str, Any]
) -> None:
    with pytest.raises(error, match=text):
        families[SD15].encode(request(controls=controls))


def test_one_for_other_pixels_per_latent_does_not_fit(
    random_manifest: Manifest, tmp_path: Path, families: dict[str, Any]
) -> None:
    network = ControlNetModel.from_unet(
        families[SD15].modules["unet"], conditioning_embedding_out_channels=(8, 8, 8, 8, 8)
    )
    network.save_pretrained(tmp_path / "coarse")
    entry = random_manifest.controlnets["canny"]
    coarse = entry.model_copy(update={"source": Source(folder=tmp_path / "coarse")})
    family = open_family(random_manifest.model_copy(update={"controlnets": {"canny": coarse}}), SD15)
    with pytest.raises(UnknownAdapter, match="controls: canny does not fit this checkpoint"):
        family.encode(request())


def test_a_single_file_steers_as_its_folder_does(random_manifest: Manifest, families: dict[str, Any]) -> None:
    entry = random_manifest.controlnets["canny"]
    assert entry.source.folder is not None
    file = Source(file=entry.source.folder / "diffusion_pytorch_model.safetensors")
    entries = {**random_manifest.controlnets, "canny": entry.model_copy(update={"source": file})}
    alone = open_family(random_manifest.model_copy(update={"controlnets": entries}), SD15)
    assert np.array_equal(draw(alone, request()), draw(families[SD15], request()))


@pytest.mark.parametrize(
    ("control", "prefix"), [(CANNY, "control_model."), (CANNY, ""), (CANNY_XL, "control_model.")]
)
def test_a_file_of_the_original_layout_steers_as_diffusers_folder_does(
    control: Control, prefix: str, tmp_path: Path, random_manifest: Manifest, families: dict[str, Any]
) -> None:
    folder = random_manifest.path.parent / "controlnets" / FILES[control.name]
    network = ControlNetModel.from_pretrained(folder)
    write_controlnet(network, tmp_path / "control.safetensors", prefix)
    entry = random_manifest.controlnets[control.name]
    file = entry.model_copy(update={"source": Source(file=tmp_path / "control.safetensors")})
    asked = request(pipeline=XL if control is CANNY_XL else SD15, controls=(control,))
    alone = open_family(
        random_manifest.model_copy(update={"controlnets": {control.name: file}}), asked.pipeline
    )
    assert np.array_equal(draw(alone, asked), draw(families[asked.pipeline], asked))
    if control is CANNY:  # diffusers' own leaves out the size that SDXL's are told
        config = {"config": str(folder), "local_files_only": True}
        theirs: Any = ControlNetModel.from_single_file(str(tmp_path / "control.safetensors"), **config)
        ours = network.state_dict()
        assert all(torch.equal(tensor, ours[name]) for name, tensor in theirs.state_dict().items())


def test_a_controlnet_of_another_shape_is_refused(random_manifest: Manifest) -> None:
    from pipelines.weights.entries import ControlNetEntry, Source

    entry = ControlNetEntry(source=Source(folder=Path("controlnets/sdxl_canny")), family="sd15")
    family = open_family(random_manifest.model_copy(update={"controlnets": {"wrong": entry}}), SD15)
    with pytest.raises(UnknownAdapter, match="controls: wrong does not fit this checkpoint"):
        family.encode(request(controls=(replace(CANNY, name="wrong"),)))


def test_the_pool_counts_the_controlnets_that_requests_opened(random_manifest: Manifest) -> None:
    folder = random_manifest.path.parent
    pool = PipelinePool(random_manifest, folder, torch.device("cpu"), budget_bytes=10**9)
    family = pool.open(SD15)
    before = pool.used_bytes
    family.encode(request(controls=(CANNY, OPENPOSE)))
    pool.open(SD15)
    opened = {name: network for name, network in family.modules.items() if name.startswith("controlnet:")}
    assert set(opened) == {"controlnet:canny", "controlnet:openpose"}
    assert pool.used_bytes == before + module_bytes(opened)
    pool.clear_cache()
    pool.open(SD15)
    assert pool.used_bytes == before
