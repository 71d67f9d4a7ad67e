"""The vendor's other path families: documented samples, what differs from the enterprise pages, fetching."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.request import ImageToImage, Inpainting, TextToImage, Upscaling
from server.app import create_app
from server.endpoints.enterprise.families import ELSEWHERE, FAMILIES, TAGS, family_of
from server.endpoints.enterprise.wire import PREFIX
from server.settings import Settings
from tests.contract.parameters.effects import sent_picture
from tests.contract.parameters.families import FURTHER_PATHS
from tests.contract.parameters.stage import Stage, opened
from tests.documented_family_bodies import (
    CHECKPOINT,
    MASK,
    PICTURE,
    REALTIME_IMG2IMG,
    REALTIME_TEXT2IMG,
    SUPER_RESOLUTION,
    UPSCALING,
    V3_IMG2IMG,
    V3_INPAINT,
    V3_TEXT2IMG,
    V4_IMG2IMG,
    V4_TEXT2IMG,
    V5_CONTROLNET,
    V6_TEXT2IMG,
    Sample,
)

MINE = {PICTURE: sent_picture((200, 30, 30)), MASK: sent_picture((255, 255, 255)), CHECKPOINT: "photographs"}
"""What this test sends for the words of the samples."""

DEFAULT = "drawings"
"""The stage's default checkpoint: the first one of its file, as none is loaded at the start."""

README = Path(__file__).parents[2] / "server" / "README.md"

PATHS = {
    (f"{family.prefix}/{name}" if name else family.prefix): slug
    for family in FAMILIES
    for name, slug in (family.operations or {}).items()
}
"""Every path of the families that name their operations, and the operation's slug."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("server")) as stage:
        yield stage


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """The paths of the OpenAPI document."""
    folder: Path = tmp_path_factory.mktemp("never started")
    return create_app(Settings(data=folder)).openapi()["paths"]


def body_of(path: str, slug: str) -> dict[str, object]:
    """A body with which every page of that slug draws; where a checkpoint has to be named, it is."""
    drawn = {"prompt": "a cat", "width": 256, "height": 256, "model_id": "photographs", "seed": 7}
    pictures = {"init_image": MINE[PICTURE], "mask_image": MINE[MASK]}
    return {
        "text2img": drawn,
        "img2img": {**drawn, "init_image": MINE[PICTURE]},
        "inpaint": {**drawn, **pictures},
        "controlnet": {**drawn, "init_image": MINE[PICTURE], "controlnet_model": "canny"},
        "super_resolution": {"url": MINE[PICTURE]},
        "nsfw_image_check": {"init_image": MINE[PICTURE]},
    }[slug]


def sent(stage: Stage, sample: Sample) -> tuple[Any, Any]:
    """The answer to a documented sample, and what the engine was asked for."""
    body = {
        name: MINE.get(value, value) if isinstance(value, str) else value
        for name, value in sample.body.items()
    }
    outcome = stage.outcome("POST", sample.path, body)
    said = outcome.answer.json()
    assert said["status"] == "success", said
    return said, outcome.requests[-1]


@pytest.mark.parametrize(
    ("sample", "kind", "pipeline", "steps"),
    [
        (V3_TEXT2IMG, TextToImage, DEFAULT, 20),
        (V3_IMG2IMG, ImageToImage, DEFAULT, 30),
        (V3_INPAINT, Inpainting, DEFAULT, 30),
        (V4_TEXT2IMG, TextToImage, "photographs", 30),
        (V4_TEXT2IMG._replace(path="/api/v3/dreambooth"), TextToImage, "photographs", 30),
        (V4_IMG2IMG, ImageToImage, "photographs", 30),
        (V4_IMG2IMG._replace(path="/api/v3/dreambooth/img2img"), ImageToImage, "photographs", 30),
        (V5_CONTROLNET, TextToImage, "photographs", 30),
        (V5_CONTROLNET._replace(path="/api/v6/controlnet"), TextToImage, "photographs", 30),
        (V5_CONTROLNET._replace(path="/api/v6/images/controlnet"), TextToImage, "photographs", 30),
        (V6_TEXT2IMG, TextToImage, "photographs", 31),
        (REALTIME_TEXT2IMG, TextToImage, DEFAULT, 8),
        (REALTIME_IMG2IMG, ImageToImage, DEFAULT, 8),
        (REALTIME_TEXT2IMG._replace(path=f"{PREFIX}/realtime/text2img"), TextToImage, DEFAULT, 8),
    ],
    ids=lambda value: value.path if isinstance(value, Sample) else "",
)
def test_a_documented_sample_is_drawn(
    stage: Stage, sample: Sample, kind: type[Any], pipeline: str, steps: int
) -> None:
    said, asked = sent(stage, sample)
    assert (type(asked), asked.pipeline, asked.num_inference_steps) == (kind, pipeline, steps)
    assert (asked.width, asked.height, len(said["output"])) == (512, 512, 1)
    assert (said["meta"]["model_id"], said["meta"]["steps"]) == (pipeline, steps)


@pytest.mark.parametrize("sample", UPSCALING, ids=lambda sample: sample.path)
def test_a_documented_sample_is_enlarged(stage: Stage, sample: Sample) -> None:
    said, asked = sent(stage, sample)
    assert isinstance(asked, Upscaling)
    assert (asked.pipeline, asked.width) == ("fast", 8 * sample.body["scale"])
    output = said["output"]
    if "image_editing" in sample.path:
        (output,) = output
    assert output.endswith(".png")


def test_the_documented_crop_and_system_load(stage: Stage) -> None:
    crop = {"key": "", "image": f"data:image/png;base64,{MINE[PICTURE]}", "crop": "true"}
    said = stage.send("POST", "/api/v3/base64_crop", crop).json()
    assert (said["status"], said["messege"]) == ("success", "image uploaded")
    assert stage.stored(said["link"]).headers["content-type"] == "image/png"
    assert isinstance(said["request_id"], int)
    load = stage.send("POST", "/api/v3/system_load", {"key": ""}).json()
    assert {"queue_num": 0, "queue_time": 0, "status": "ok"}.items() <= load.items()


@pytest.mark.parametrize(
    "path", [path for path, slug in PATHS.items() if slug == "fetch" and "{id}" not in path]
)
def test_the_name_that_the_first_answer_gives_an_id_is_known_to_fetch(stage: Stage, path: str) -> None:
    id = stage.ask("text2img", model_id="drawings", prompt="a cat", width=256, height=256)["id"]
    for sent in (id, str(id)):
        assert stage.send("POST", path, {"id": sent}).json()["status"] == "success"


@pytest.mark.parametrize("version", ["v4", "v3"])
def test_a_model_list_is_get_all_models_as_a_bare_array(stage: Stage, version: str) -> None:
    models = stage.send("POST", f"/api/{version}/dreambooth/model_list", {}).json()
    all_models = stage.ask("get_all_models")["models"]
    assert [each["model_id"] for each in models] == [each["model_id"] for each in all_models]
    first = models[0]
    assert {*first} == {
        "model_id", "status", "created_at", "instance_prompt", "model_name", "description", "screenshots",
    }  # fmt: skip
    assert (first["status"], first["model_name"]) == ("model_ready", first["model_id"])
    assert all(isinstance(first[name], str) for name in ("model_name", "description", "screenshots"))


def test_a_picture_is_fetched_and_a_model_found_in_every_family(stage: Stage) -> None:
    id = stage.ask("text2img", model_id="drawings", prompt="a cat", width=256, height=256)["id"]
    for path, slug in PATHS.items():
        if slug == "fetch":
            said = stage.send("POST", path.replace("{id}", str(id)), {"request_id": id}).json()
            assert (said["status"], said["id"]) == ("success", id), path
        if slug == "verify_model":
            assert stage.send("POST", path, {"model_id": "drawings"}).json()["status"] == "success", path


@pytest.mark.parametrize(
    "path", [path for path, slug in PATHS.items() if slug in ("text2img", "super_resolution")]
)
def test_errors_of_every_family_are_this_dialects(stage: Stage, path: str) -> None:
    said = stage.send("POST", path, {}).json()
    field = "url" if PATHS[path] == "super_resolution" else "prompt"
    assert (said["status"], said["message"][field]) == ("error", [f"The {field} field is required."])
    assert said["messege"] == said["message"]


def test_a_caller_is_told_to_fetch_in_the_family_that_it_has_called(tmp_path: Path) -> None:
    with opened(tmp_path, sync_wait_s=0) as stage:
        for path, slug in PATHS.items():
            if slug not in (
                "text2img",
                "img2img",
                "inpaint",
                "controlnet",
                "super_resolution",
                "nsfw_image_check",
            ):
                continue
            said = stage.send("POST", path, body_of(path, slug)).json()
            assert said["status"] == "processing", said
            family = family_of(path)
            own = said["fetch_result"].partition("/api/")[2]
            assert own == f"{family.prefix.removeprefix('/api/')}/fetch/{said['id']}"
            assert stage.send("POST", f"/api/{own}", {}).json()["id"] == said["id"]


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        (f"{PREFIX}/super_resolution", PREFIX),
        (f"{PREFIX}/super_resolution/make", f"{PREFIX}/super_resolution"),
        (f"{PREFIX}/text2img", PREFIX),
        (f"{PREFIX}/images/text2img", f"{PREFIX}/images"),
        (f"{PREFIX}/images/text2img/text2img", f"{PREFIX}/images/text2img"),
        (f"{PREFIX}/txt2img/text2img", f"{PREFIX}/txt2img"),
        ("/api/v3/dreambooth", "/api/v3/dreambooth"),
        ("/api/v3/text2img", "/api/v3"),
        ("/api/v6/images/controlnet", "/api/v6/images"),
        ("/api/v6/controlnet", "/api/v6"),
        ("/api/v9/anything", PREFIX),
    ],
)
def test_a_path_belongs_to_the_family_that_has_it(path: str, prefix: str) -> None:
    assert family_of(path).prefix == prefix


@pytest.mark.parametrize(
    "family",
    ["images", "images/text2img", "image_editing", "community", "txt2img"],
)
def test_the_sdks_paths_have_every_operation_of_the_documentation(stage: Stage, family: str) -> None:
    body = {"prompt": "a cat", "model": "drawings", "width": 256, "height": 256, "seed": 7}
    outcome = stage.outcome("POST", f"{PREFIX}/{family}/text2img", body)
    assert outcome.answer.json()["status"] == "success"
    assert outcome.requests[-1].pipeline == "drawings"
    id = outcome.answer.json()["id"]
    assert stage.send("POST", f"{PREFIX}/{family}/fetch/{id}", {}).json()["id"] == id
    for operation in ("system_details", "get_all_models", "clear_queue", "clear_cache", "update"):
        said = stage.send("POST", f"{PREFIX}/{family}/{operation}", {}).json()
        assert said["status"] in ("ok", "success")


def test_an_sdk_that_edits_pictures_names_no_checkpoint(stage: Stage) -> None:
    body = {name: value for name, value in body_of("", "inpaint").items() if name != "model_id"}
    for prefix in (f"{PREFIX}/image_editing", "/api/v6/image_editing"):
        outcome = stage.outcome("POST", f"{prefix}/inpaint", body)
        assert outcome.requests[-1].pipeline == DEFAULT


@pytest.mark.parametrize(("steps", "drawn"), [(51, True), (52, False)])
def test_v3_takes_one_step_more(stage: Stage, steps: int, drawn: bool) -> None:
    body = {"prompt": "a cat", "num_inference_steps": steps, "width": 256, "height": 256}
    said = stage.send("POST", "/api/v3/text2img", body).json()
    assert (said["status"] == "success") is drawn
    if not drawn:
        assert said["message"] == {"num_inference_steps": ["num_inference_steps must be between 1 and 51"]}


def test_a_server_without_checkpoints_says_so(tmp_path: Path) -> None:
    with opened(tmp_path) as stage:
        stage.services.catalogue.own.pipelines.clear()
        stage.services.catalogue.manifest.pipelines.clear()
        said = stage.send("POST", "/api/v3/text2img", {"prompt": "a cat"}).json()
        assert said["message"].startswith("This server has no checkpoint")


def test_documents_show_each_family_under_its_tag(documents: Mapping[str, Any]) -> None:
    shown = {
        path: operation["post"]["tags"] for path, operation in documents.items() if path.startswith("/api/")
    }
    assert FURTHER_PATHS.keys() <= shown.keys()
    assert {tag for tags in shown.values() for tag in tags} == {name for name, _ in TAGS}


@pytest.mark.parametrize("path", FURTHER_PATHS)
def test_a_further_path_documents_the_fields_of_its_page(documents: Mapping[str, Any], path: str) -> None:
    page, further = documents[FURTHER_PATHS[path]]["post"], documents[path]["post"]
    assert further.get("parameters", []) == page.get("parameters", [])
    fields, other = (_properties(each) for each in (page, further))
    assert fields.keys() == other.keys()
    changed = {name for name in fields if fields[name] != other[name]}
    family = family_of(path)
    slug = PATHS[path]
    assert changed <= family.differences.get(slug, {}).keys()
    assert slug not in ELSEWHERE


def test_the_readme_has_every_family_with_its_operations() -> None:
    text = README.read_text()
    for family in FAMILIES:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{family.prefix}` |"))
        operations, source = row.split(" | ")[1], row.rstrip(" |").rpartition(" | ")[2]
        assert source == family.source
        if family.operations is None:
            assert operations == "every operation"
        else:
            assert all(f"`{name}`" in operations for name in family.operations if name and "{" not in name)


def _properties(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    content = operation["requestBody"]["content"]["application/json"]
    assert content["example"].keys() <= {*content["schema"]["properties"], "steps"}
    return content["schema"]["properties"]


def test_a_replaced_upscaler_is_named_in_the_answer(stage: Stage) -> None:
    body = {**SUPER_RESOLUTION, "url": MINE[PICTURE], "model_id": "RealESRGAN_x2plus"}
    said = stage.send("POST", "/api/v5/super_resolution", body).json()
    assert said["warning"] == "RealESRGAN_x2plus is not on this server; fast was used instead"
    assert said["meta"]["model_id"] == "fast"


@pytest.mark.parametrize("path", ["/api/v5/controlnet", "/api/v6/controlnet", f"{PREFIX}/controlnet"])
def test_a_controlnet_for_inpainting_is_asked_for_with_a_mask(stage: Stage, path: str) -> None:
    body = {**body_of(path, "controlnet"), "controlnet_type": "inpaint", "mask_image": MINE[MASK]}
    outcome = stage.outcome("POST", path, body)
    assert outcome.answer.json()["status"] == "success"
    (asked,) = outcome.requests
    assert isinstance(asked, Inpainting)
    assert [control.preprocessor for control in asked.controls] == ["inpaint"]


@pytest.mark.parametrize(
    ("path", "preprocessor", "steps"),
    [
        ("/api/v5/controlnet", "canny", 30),
        ("/api/v6/images/controlnet", "canny", 30),
        (f"{PREFIX}/controlnet", None, 21),
    ],
)
def test_hints_and_steps_are_by_default_what_each_page_documents(
    stage: Stage, path: str, preprocessor: str | None, steps: int
) -> None:
    (asked,) = stage.outcome("POST", path, body_of(path, "controlnet")).requests
    assert isinstance(asked, TextToImage)
    assert [control.preprocessor for control in asked.controls] == [preprocessor]
    assert asked.num_inference_steps == steps


@pytest.mark.parametrize("name", ["base64_string", "init_image"])
def test_a_picture_as_text_becomes_one_under_a_url(stage: Stage, name: str) -> None:
    for path in ("/api/v6/base64_to_url", "/api/v6/image_editing/base64_to_url"):
        said = stage.send("POST", path, {name: f"data:image/png;base64,{MINE[PICTURE]}"}).json()
        assert stage.stored(said["output"][0]).headers["content-type"] == "image/png"
        refused = stage.send("POST", path, {name: "https://example.com/a.png"}).json()
        assert refused["message"] == {"base64_string": ["base64_string must be base64 text"]}


@pytest.mark.parametrize("operation", ["text2img", "verify_model", "delete_model", "super_resolution"])
def test_a_model_may_be_named_as_model(stage: Stage, operation: str) -> None:
    body = {"prompt": "a cat", "url": MINE[PICTURE], "model": "unheard-of"}
    assert stage.ask(operation, **body)["message"] == "Model id not found"
