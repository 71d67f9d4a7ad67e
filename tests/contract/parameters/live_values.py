"""Values that only the running server can give; a table names the function that gets one."""

from __future__ import annotations

from typing import Any

from tests.contract.parameters.stage import Stage


def an_api_key(stage: Stage) -> str:
    """The key of the account that calls."""
    return stage.key


def a_new_word(stage: Stage) -> str:
    """A word that no call has sent yet."""
    return f"word-{next(stage.numbers)}"


def a_receiver(stage: Stage) -> str:
    """The URL of a receiver of webhooks that nobody has named yet."""
    return f"http://127.0.0.1:9/receiver/{next(stage.numbers)}"


def an_earlier_request(stage: Stage) -> str:
    """The id of a finished Segmind request."""
    body = {"prompt": "a cat", "img_width": 512, "img_height": 512}
    return stage.send("POST", "/v1/kandinsky2.2-txt2img", body).headers["x-request-id"]


def an_earlier_job(stage: Stage) -> int:
    """The id of a finished enterprise call."""
    return _drawn(stage)["id"]


def an_output(stage: Stage) -> str:
    """The name of a picture that the engine has painted."""
    return _drawn(stage)["output"][0].rpartition("/")[2]


def something_loaded(stage: Stage) -> str:
    """The name of a LoRA that was loaded while the server runs."""
    name = a_new_word(stage)
    stage.ask("load_model", model_id=name, url="their/lora")
    assert stage.loading_problem(name) is None
    return name


def _drawn(stage: Stage) -> dict[str, Any]:
    return stage.ask("text2img", model_id="drawings", prompt="a cat", width=256, height=256)
