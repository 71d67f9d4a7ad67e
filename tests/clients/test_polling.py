"""Published clients whose picture is not done when they are answered: each asks again in its own way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.test_enterprise_others import command_line
from tests.clients.test_enterprise_python import (
    MODEL,
    SMALL,
    Published,
    local,
    modelslab_py,
    picture,
)
from tests.running_server import RunningServer, eventually, preloading, start_server

pytestmark = pytest.mark.slow

LONGER = {**SMALL, "num_inference_steps": 12}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, demo_manifest_path: Path) -> Iterator[RunningServer]:
    """A server that never waits for a picture before it answers."""
    folder = tmp_path_factory.mktemp("impatient")
    manifest = preloading(demo_manifest_path, folder / "manifest", MODEL)
    running = start_server(folder, manifest, sync_wait_s="0")
    yield running
    running.stop()


def done(ask: Callable[[], dict[str, object]]) -> list[str]:
    """The output once the job is done, asked for as its client does."""

    def look() -> object:
        said = ask()
        assert said["status"] in ("processing", "success"), said
        return said["output"] if said["status"] == "success" else None

    output = eventually(look)
    assert isinstance(output, list)
    return output


@pytest.mark.client("modelslab-py", "Python", happy="processing, then fetch")
@pytest.mark.parametrize("enterprise", [True, False])
def test_the_vendors_sdk_asks_again(server: RunningServer, published: Published, enterprise: bool):
    published("modelslab-py")
    from modelslab_py.schemas.community import Text2Image

    api = modelslab_py(server.key, enterprise)
    api.client.fetch_retry = 60
    said = api.text_to_image(Text2Image(prompt="a cat", model_id=MODEL, **LONGER))
    assert (said["status"], said["output"]) == ("processing", [])
    fetched = api.fetch(str(said["id"]))
    assert fetched["status"] == "success"
    assert fetched["output"] == said["future_links"]
    picture(local(fetched["output"][0], server))


@pytest.mark.client("modelslab", "Python", happy="processing, then fetch")
def test_the_older_sdk_asks_again(server: RunningServer, published: Published):
    published("modelslab")
    from modelslab import ModelsLab

    said = server.answer("text2img", prompt="a cat", model_id=MODEL, **LONGER)
    api = ModelsLab()
    for fetch in (api.ep_txt2img.fetch_queued, api.community_models.fetch_queued):
        output = done(lambda fetch=fetch: json.loads(fetch(server.key, said["id"])))
        picture(local(output[0], server))


@pytest.mark.client("modelslab-cli", "Go", happy="processing, then fetch")
def test_the_vendors_command_waits_for_its_picture(
    server: RunningServer, published: Published, tmp_path: Path
):
    given = ["--model", MODEL, "--prompt", "a cat", "--width", "256", "--height", "256", "--steps", "12"]
    drawn = command_line(
        published, server, server.key, "generate", "image", *given, "--output-dir", str(tmp_path)
    )
    assert drawn.returncode == 0, drawn.stderr
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.client("agno", "Python", happy="processing, whose links open later")
def test_an_agents_tool_hands_on_links_that_open_later(server: RunningServer, published: Published):
    published("agno")
    from agno.models.response import FileType
    from agno.tools.models_labs import ModelsLabTools

    tool = ModelsLabTools(api_key=server.key, file_type=FileType.PNG, model_id=MODEL, width=256, height=256)
    result = tool.generate_media("a cat")
    assert "will be ready in" in result.content
    [image] = result.images

    def opens() -> bool:
        try:
            picture(local(image.url, server))
        except AssertionError:
            return False
        return True

    eventually(opens)
