"""The bodies of the vendor's pages of load_model, load_model_v2 and load_vae, sent as they are printed there.

Only the receivers of webhooks are others, so that nobody is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.contract.parameters.stage import Stage, opened

HOOK = {"webhook": "http://127.0.0.1:9/"}
CIVITAI = "https://civitai.com/api/download/models/94640"
UPLOADED = "https://civitai.com/api/download/models/132760?type=Model&format=SafeTensor&size=pruned&fp=fp16"
INPAINTING = "stable-diffusion-xl-1.0-inpainting-0.1"
SAMPLES: Mapping[str, tuple[str, Mapping[str, object], Mapping[str, object]]] = {
    "a file": (
        "load_model",
        {
            "url": CIVITAI, "model_id": "majicmix-realistic", "model_type": "custom_ckpt",
            "from_safetensors": "yes", **HOOK, "revision": "fp32", "upcast_attention": "no",
        },
        {"name": "majicmix-realistic", "url": CIVITAI, "family": None, "precision": "fp32"},
    ),
    "a file, second version": (
        "load_model_v2",
        {
            "url": CIVITAI, "model_id": "majicmix-realistic", "model_category": "stable_diffusion",
            "model_format": "safetensors", **HOOK, "revision": "fp16",
        },
        {"name": "majicmix-realistic", "url": CIVITAI, "family": None, "precision": "fp16"},
    ),
    "a repository": (
        "load_model",
        {
            "url": "wavymulder/Analog-Diffusion", "model_id": "analog-diffusion", "model_type": "huggingface",
            "from_safetensors": "no", **HOOK, "revision": "fp32", "upcast_attention": "no",
        },
        {
            "name": "analog-diffusion", "hub": "wavymulder/Analog-Diffusion", "revision": "main",
            "family": None, "precision": "fp32",
        },
    ),
    "a ControlNet": (
        "load_model",
        {
            "url": "lllyasviel/control_v11p_sd15_canny", "model_id": "canny", "model_type": "controlnet",
            **HOOK, "revision": "fp32", "upcast_attention": "no",
        },
        {
            "name": "canny", "hub": "lllyasviel/control_v11p_sd15_canny", "revision": "main", "family": None,
            "precision": "fp32",
        },
    ),
    "a file of SDXL, as the page of uploads has it": (
        "load_model",
        {
            "url": UPLOADED, "revision": "fp32", "model_id": "stable-diffusion-1.0-inpainting-0.1",
            "force_load": "yes", "model_category": "stable_diffusion_xl", "model_format": "safetensors",
            "model_visibility": "public", "model_name": "stable-diffusion-1.0-inpainting-0.1",
            "model_image": "https://assets.modelslab.com/generations/95aebdb1", "hf_upload": "no",
        },
        {
            "name": "stable-diffusion-1.0-inpainting-0.1", "url": UPLOADED, "family": "sdxl",
            "precision": "fp32",
        },
    ),
    "a repository of SDXL, as the page of uploads has it": (
        "load_model_v2",
        {
            "url": f"diffusers/{INPAINTING}", "revision": "fp16", "model_id": INPAINTING, "force_load": "yes",
            "model_category": "stable_diffusion_xl", "model_format": "diffusers", "hf_upload": "no",
        },
        {
            "name": INPAINTING, "hub": f"diffusers/{INPAINTING}", "revision": "main", "family": "sdxl",
            "precision": "fp16",
        },
    ),
    "a VAE": (
        "load_vae",
        {
            **HOOK, "vae_id": "vae-kl-f8-anime2", "vae_url": "bullhug/kl-f8-anime2", "vae_type": "diffusers",
        },
        {
            "name": "vae-kl-f8-anime2", "hub": "bullhug/kl-f8-anime2", "revision": "main", "family": None,
            "precision": None,
        },
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("server")) as stage:
        yield stage


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_body_of_the_vendors_pages_begins_the_load_that_it_means(stage: Stage, sample: str) -> None:
    operation, body, expected = SAMPLES[sample]
    taken = "canny" in stage.services.catalogue.own.controlnets and expected["name"] == "canny"
    if taken:  # the manifest has one of that name
        body, expected = {**body, "model_id": "my-canny"}, {**expected, "name": "my-canny"}
    answer = stage.ask(operation, key=stage.key, **body)
    started = "VAE load started" if operation == "load_vae" else "model load started"
    assert (answer["status"], answer["message"], answer["messege"]) == ("success", started, started)
    stage.loading_problem(expected["name"])
    assert stage.loader.wanted[-1] == expected
    stage.ask("delete_model", model_id=expected["name"])
