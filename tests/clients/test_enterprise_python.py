"""Published Python clients of the enterprise dialect, unchanged, against a running server."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.running_server import HTTP, RunningServer

MODEL = "stable-diffusion-v1-5"
SMALL: dict[str, Any] = {"width": 256, "height": 256, "num_inference_steps": 2, "safety_checker": "no"}

Published = Callable[[str], Path]


def picture(url: str) -> Image.Image:
    """What an output's URL leads to, whichever of the vendors' hosts it is on; it is not flat."""
    answer = HTTP.get(url)
    assert answer.status_code == 200
    opened = Image.open(BytesIO(answer.content))
    assert any(low != high for low, high in opened.convert("RGB").getextrema())
    return opened


def local(url: str, server: RunningServer) -> str:
    """The same URL with the server's own host."""
    return server.url + "/" + url.split("/", 3)[3]


def encoded(size: tuple[int, int] = (256, 256)) -> str:
    """A picture in base64."""
    file = BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "PNG")
    return b64encode(file.getvalue()).decode()


# modelslab-py, the vendor's SDK


def modelslab_py(key: str, enterprise: bool = False, api: str = "Community") -> Any:
    from modelslab_py.core.apis import community, image_editing, realtime
    from modelslab_py.core.client import Client

    client = Client(api_key=key, fetch_retry=3, fetch_timeout=1)
    found = {"Community": community, "Realtime": realtime, "Image_editing": image_editing}[api]
    return getattr(found, api)(client=client, enterprise=enterprise)


@pytest.mark.client("modelslab-py", "Python", happy="text2img, fetch (v1 and v6)")
@pytest.mark.parametrize("enterprise", [True, False])
def test_the_vendors_sdk_draws_and_fetches(server: RunningServer, published: Published, enterprise: bool):
    published("modelslab-py")
    from modelslab_py.schemas.community import Text2Image

    api = modelslab_py(server.key, enterprise)
    said = api.text_to_image(Text2Image(prompt="a cat", model_id=MODEL, **SMALL))
    assert said["status"] == "success", said
    assert picture(local(said["output"][0], server)).size == (256, 256)
    assert api.fetch(str(said["id"]))["output"] == said["output"]


@pytest.mark.slow
@pytest.mark.client("modelslab-py", "Python", happy="img2img, inpaint, controlnet")
@pytest.mark.parametrize("enterprise", [True, False])
def test_the_vendors_sdk_draws_from_pictures(server: RunningServer, published: Published, enterprise: bool):
    published("modelslab-py")
    from modelslab_py.schemas.community import ControlNet, Image2Image, Inpainting

    api = modelslab_py(server.key, enterprise)
    given = {"prompt": "a cat", "model_id": MODEL, "init_image": encoded(), "base64": "yes", **SMALL}
    answers = [
        api.image_to_image(Image2Image(**given, strength=0.5)),
        api.inpainting(Inpainting(**given, mask_image=encoded())),
        api.controlnet(ControlNet(**given, controlnet_model="canny", controlnet_type="canny")),
    ]
    assert [answer["status"] for answer in answers] == ["success"] * 3, answers


@pytest.mark.client("modelslab-py", "Python", happy="realtime")
def test_the_vendors_sdk_draws_in_real_time(server: RunningServer, published: Published):
    published("modelslab-py")
    from modelslab_py.schemas.realtime import RealtimeText2ImageSchema

    api = modelslab_py(server.key, api="Realtime")
    said = api.text_to_image(RealtimeText2ImageSchema(prompt="a cat", width=256, height=256))
    assert said["status"] == "success", said
    picture(local(said["output"][0], server))


@pytest.mark.slow
@pytest.mark.client("modelslab-py", "Python", happy="super_resolution")
@pytest.mark.parametrize("enterprise", [True, False])
def test_the_vendors_sdk_enlarges(server: RunningServer, published: Published, enterprise: bool):
    published("modelslab-py")
    from modelslab_py.schemas.image_editing import SuperResolutionSchema

    drawn = server.answer("text2img", prompt="a cat", model_id=MODEL, **SMALL)["output"][0]
    api = modelslab_py(server.key, enterprise, "Image_editing")
    said = api.super_resolution(SuperResolutionSchema(init_image=drawn, url=drawn))
    assert said["status"] == "success", said
    output = said["output"] if isinstance(said["output"], str) else said["output"][0]
    assert picture(local(output, server)).size[0] > 256


@pytest.mark.client("modelslab-py", "Python", happy="system_details")
def test_the_vendors_sdk_asks_how_the_server_is(server: RunningServer, published: Published):
    published("modelslab-py")
    said = modelslab_py(server.key, enterprise=True).system_details()
    assert said["status"] == "ok"


@pytest.mark.client("modelslab-py", "Python", error="bad key, no credits, unknown model, wrong value")
@pytest.mark.parametrize("enterprise", [True, False])
def test_the_vendors_sdk_hands_on_what_is_wrong(
    server: RunningServer, published: Published, enterprise: bool
):
    published("modelslab-py")
    from modelslab_py.schemas.community import Text2Image

    def said(key: str = server.key, **fields: Any) -> Any:
        given = {"prompt": "a cat", "model_id": MODEL, **SMALL, **fields}
        answer = modelslab_py(key, enterprise).text_to_image(Text2Image(**given))
        assert answer["status"] == "error"
        return answer["message"]

    poor = server.account(f"poor {enterprise}", 0)
    assert said("wrong") == "Invalid Api Key"
    assert said(poor) == "Insufficient credits. Please add more credits to continue."
    assert said(model_id="nothing") == "Model id not found"
    assert said(width=257) == {"width": ["width must be divisible by 8"]}


# modelslab, an older SDK, which hands the answer on as text


@pytest.mark.client("modelslab", "Python", happy="system_details, get_all_models, schedulers_list, fetch")
def test_the_older_sdk_looks_after_the_server(server: RunningServer, published: Published):
    published("modelslab")
    from modelslab import ModelsLab

    api = ModelsLab().ep_txt2img
    assert json.loads(api.system_details(server.key))["status"] == "ok"
    assert MODEL in [entry["model_id"] for entry in json.loads(api.get_all_models(server.key))["models"]]
    assert "UniPCMultistepScheduler" in json.loads(api.schedulers_list(server.key))["schedulers"]
    drawn = server.answer("text2img", prompt="a cat", model_id=MODEL, **SMALL)
    fetched = json.loads(api.fetch_queued(server.key, drawn["id"]))
    assert fetched["output"] == [drawn["output"][0].replace(server.url, "http://modelslab.com")]
    assert json.loads(ModelsLab().ep_realtime.system_details(server.key))["status"] == "ok"


@pytest.mark.client("modelslab", "Python", happy="realtime text2img")
def test_the_older_sdk_draws_in_real_time(server: RunningServer, published: Published):
    published("modelslab")
    from modelslab import ModelsLab

    said = json.loads(ModelsLab().ep_realtime.text2img(server.key, "a cat", "a dog", "256", "256", False))
    assert said["status"] == "success", said
    picture(local(said["output"][0], server))


COMMUNITY = {
    "negative_prompt": None,
    "width": "256",
    "height": "256",
    "samples": "1",
    "safety_checker": "no",
    "enhance_prompt": "yes",
    "guidance_scale": 7.5,
    "embeddings_model": None,
    "lora_model": None,
    "tomesd": "yes",
    "use_karras_sigmas": "yes",
    "vae": None,
    "lora_strength": None,
    "scheduler": "UniPCMultistepScheduler",
    "seed": None,
    "webhook": None,
    "track_id": None,
}


@pytest.mark.client("modelslab", "Python", happy="text2img, img2img, inpaint (v6)")
def test_the_older_sdk_draws_with_community_models(server: RunningServer, published: Published):
    published("modelslab")
    from modelslab import ModelsLab

    api = ModelsLab().community_models
    flags = dict.fromkeys(["multi_lingual", "panorama", "self_attention", "upscale"], "no")
    texts = {**COMMUNITY, **flags, "num_inference_steps": "2", "clip_skip": "2"}
    drawn = json.loads(api.txt2img(server.key, MODEL, "a cat", **texts))
    assert drawn["status"] == "success", drawn
    picture(local(drawn["output"][0], server))
    own = drawn["output"][0]
    given = {"init_image": own, "mask_image": own, "strength": 0.7, "steps": "2"}
    inpainted = json.loads(api.inpaint(server.key, MODEL, "a dog", **COMMUNITY, **given))
    assert inpainted["status"] == "success", inpainted
    assert json.loads(api.fetch_queued(server.key, drawn["id"]))["status"] == "success"


@pytest.mark.client("modelslab", "Python", happy="controlnet (v5)")
def test_the_older_sdk_draws_with_a_controlnet(server: RunningServer, published: Published):
    published("modelslab")
    from modelslab import ModelsLab

    drawn = server.answer("text2img", prompt="a cat", model_id=MODEL, **SMALL)["output"][0]
    given = {"width": "256", "height": "256", "num_inference_steps": "2", "prompt": "a cat"}
    said = json.loads(
        ModelsLab().controlnet.controlnet_main(server.key, "canny", "canny", MODEL, drawn, **given)
    )
    assert said["status"] == "success", said
    picture(local(said["output"][0], server))


@pytest.mark.client("modelslab", "Python", error="bad key, not an administrator, unknown operation")
def test_the_older_sdk_hands_on_what_is_wrong(server: RunningServer, published: Published):
    published("modelslab")
    from modelslab import ModelsLab

    api = ModelsLab().ep_txt2img
    assert json.loads(api.get_all_models("wrong"))["message"] == "Invalid Api Key"
    assert json.loads(api.delete_model(server.key, "nothing"))["status"] == "error"
    # An operation of the vendor that is not here.
    unknown = json.loads(ModelsLab().ai_video.system_details(server.key))
    assert unknown["status"] == "error"
    assert unknown["message"]


# agno, tools for agents


@pytest.mark.client("agno", "Python", happy="text2img")
def test_an_agents_tool_draws(server: RunningServer, published: Published):
    published("agno")
    from agno.models.response import FileType
    from agno.tools.models_labs import ModelsLabTools

    given = {"file_type": FileType.PNG, "model_id": MODEL, "width": 256, "height": 256}
    result = ModelsLabTools(api_key=server.key, wait_for_completion=True, **given).generate_media("a cat")
    assert result.content == "Image generated successfully (PNG)"
    assert picture(local(result.images[0].url, server)).format == "PNG"


@pytest.mark.client("agno", "Python", error="bad key, unknown model, wrong value")
def test_an_agents_tool_says_what_is_wrong(server: RunningServer, published: Published):
    published("agno")
    from agno.models.response import FileType
    from agno.tools.models_labs import ModelsLabTools

    def said(key: str, **options: Any) -> str:
        options = {"model_id": MODEL, **options}
        return ModelsLabTools(api_key=key, file_type=FileType.PNG, **options).generate_media("a cat").content

    assert said("wrong") == "Error: Invalid Api Key"
    assert said(server.key, model_id="flux") == "Error: Model id not found"
    assert "width must be between 256 and 1024" in said(server.key, width=64)
