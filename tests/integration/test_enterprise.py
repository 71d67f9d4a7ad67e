"""The enterprise dialect over real HTTP: answers, paths, keys, fetching, errors."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
import requests
from PIL import Image

from tests.documented_bodies import TEXT2IMG
from tests.running_server import ENTERPRISE, HTTP, RunningServer

MODEL = "stable-diffusion-v1-5"
SMALL = {"model_id": MODEL, "prompt": "a cat", "width": 256, "height": 256, "num_inference_steps": 2}


def drawn(server: RunningServer, **fields: Any) -> dict[str, Any]:
    answer = server.post("text2img", **{**SMALL, **fields})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["status"] == "success", body
    return body


def picture(url: str) -> Image.Image:
    answer = HTTP.get(url)
    assert answer.status_code == 200
    return Image.open(io.BytesIO(answer.content))


@pytest.mark.client("requests, as documented", "Python", happy="text2img")
def test_the_documented_sample_works_with_only_the_host_changed(server: RunningServer):
    url = f"{server.url}/api/v1/enterprise/text2img"
    payload = json.dumps({**TEXT2IMG, "key": server.key, "model_id": MODEL})
    response = requests.request(
        "POST", url, headers={"Content-Type": "application/json"}, data=payload, timeout=120
    )
    body = response.json()
    assert body["status"] == "success", body
    assert isinstance(body["id"], int)
    assert isinstance(body["generationTime"], float)
    assert body["nsfw_content_detected"] is False
    assert body["meta"].keys() >= {
        "prompt", "model_id", "negative_prompt", "scheduler", "revision", "safetychecker", "W", "H",
        "enable_attention_slicing", "file_prefix", "guidance_scale", "seed", "steps", "n_samples", "upscale",
        "multi_lingual", "panorama", "self_attention", "embeddings", "lora", "outdir", "vae",
    }  # fmt: skip
    assert {type(body["meta"][name]) for name in ("W", "H", "seed", "steps", "n_samples")} == {int}
    assert picture(body["output"][0]).size == (512, 512)
    assert body["output"][0].endswith(f"{body['meta']['file_prefix']}-0.png")


def test_the_seed_that_is_reported_draws_the_same_picture_again(server: RunningServer):
    first = drawn(server)
    again = drawn(server, seed=first["meta"]["seed"])
    other = drawn(server)
    assert picture(first["output"][0]).tobytes() == picture(again["output"][0]).tobytes()
    assert picture(first["output"][0]).tobytes() != picture(other["output"][0]).tobytes()


@pytest.mark.parametrize(
    "name", ["KarrasVeScheduler", "ScoreSdeVeScheduler", "DDIMInverseScheduler", "IPNDMScheduler"]
)
def test_schedulers_that_diffusers_has_for_other_uses_draw(server: RunningServer, name: str):
    body = drawn(server, scheduler=name, seed=3)
    assert picture(body["output"][0]).size == (256, 256)
    assert (body["meta"]["scheduler"], body["meta"]["use_karras_sigmas"]) == (name, "no effect")
    assert "had no effect" not in body.get("warning", "")
    assert "had no effect" in drawn(server, scheduler=name, use_karras_sigmas="yes")["warning"]


def test_a_picture_says_how_it_was_drawn(server: RunningServer):
    body = drawn(server, seed=11, enhance_prompt="no", negative_prompt="blur")
    said = picture(body["output"][0]).info["parameters"]
    assert said.splitlines()[:2] == ["a cat", "Negative prompt: blur"]
    assert {"Steps: 2", "CFG scale: 7.5", "Seed: 11", "Size: 256x256", f"Model: {MODEL}"} <= set(
        said.splitlines()[2].split(", ")
    )


def test_a_panorama_may_be_wider_than_other_pictures(server: RunningServer):
    body = drawn(server, panorama="yes", self_attention="yes", width=1032, num_inference_steps=1)
    assert picture(body["output"][0]).size == (1032, 256)
    assert (body["meta"]["W"], body["meta"]["panorama"], body["meta"]["self_attention"]) == (
        1032,
        "yes",
        "yes",
    )


def test_several_samples_are_several_pictures(server: RunningServer):
    body = drawn(server, samples="3", seed="7")
    pictures = [picture(url).tobytes() for url in body["output"]]
    assert len(set(pictures)) == 3
    assert (body["meta"]["n_samples"], body["meta"]["seed"]) == (3, 7)


@pytest.mark.parametrize("family", ["", "/images", "/community", "/txt2img"])
def test_every_path_family_of_the_published_sdks_works(server: RunningServer, family: str):
    answer = HTTP.post(
        f"{server.url}{ENTERPRISE}{family}/text2img", json={"key": server.key, **SMALL}, timeout=120
    )
    assert answer.json()["status"] == "success"


def test_a_bearer_token_replaces_the_key(server: RunningServer):
    headers = {"Authorization": f"Bearer {server.key}"}
    answer = HTTP.post(f"{server.url}{ENTERPRISE}/text2img", json=SMALL, headers=headers, timeout=120)
    assert answer.json()["status"] == "success"
    assert float(answer.headers["x-remaining-credits"]) > 0


def test_a_finished_call_can_be_fetched_in_both_forms_by_its_account_alone(server: RunningServer):
    body = drawn(server)
    by_field = server.post("fetch", request_id=str(body["id"])).json()
    by_path = server.post(f"fetch/{body['id']}").json()
    assert by_field == by_path
    assert (by_field["status"], by_field["id"], by_field["output"], by_field["meta"]) == (
        "success",
        body["id"],
        body["output"],
        body["meta"],
    )
    stranger = server.post("fetch", request_id=body["id"], key=server.admin_key).json()
    assert stranger["message"] == stranger["messege"] == f"Request {body['id']} not found"


def test_base64_outputs_are_text_files(server: RunningServer):
    body = drawn(server, base64="yes", temp="yes")
    assert body["output"][0].endswith(".base64")
    text = HTTP.get(body["output"][0])
    assert text.headers["content-type"].startswith("text/plain")
    assert Image.open(io.BytesIO(base64.b64decode(text.text))).size == (256, 256)


def test_adapters_change_the_picture_and_leave_no_trace(server: RunningServer):
    plain = drawn(server, seed=3)
    adapted = [
        drawn(server, seed=3, lora_model="more_details,animie", lora_strength="1,0.5"),
        drawn(server, seed=3, vae="sd-vae-ft-mse"),
        drawn(server, seed=3, clip_skip=2),
        drawn(server, seed=3, tomesd="no"),
        drawn(server, seed=3, prompt="a cat night_scene", embeddings_model="night_scene"),
    ]
    again = drawn(server, seed=3)
    first = picture(plain["output"][0]).tobytes()
    assert picture(again["output"][0]).tobytes() == first
    assert all(picture(body["output"][0]).tobytes() != first for body in adapted)


def test_sdxl_class_checkpoints_draw_too(server: RunningServer):
    body = drawn(server, model_id="sdxl")
    assert picture(body["output"][0]).size == (256, 256)


def test_the_missing_safety_checker_is_told(server: RunningServer):
    body = drawn(server, model_id="sdxl", safety_checker="yes")
    assert (body["meta"]["safetychecker"], body["meta"]["nsfw"]) == ("no", [])
    assert "safety checker" in body["warning"]


def test_the_safety_checkers_word_is_said_of_every_picture(server: RunningServer):
    body = drawn(server, samples=2, safety_checker="yes")
    assert (body["meta"]["safetychecker"], body["meta"]["nsfw"]) == ("yes", ["no", "no"])
    assert "safety checker" not in body.get("warning", "")


ERRORS: list[tuple[dict[str, Any], object]] = [
    ({"prompt": None}, {"prompt": ["The prompt field is required."]}),
    ({"width": 100}, {"width": ["width must be between 256 and 1024"]}),
    ({"height": 513}, {"height": ["height must be divisible by 8"]}),
    ({"samples": "five"}, {"samples": ["samples must be a whole number"]}),
    ({"key": None}, {"key": ["The key field is required."]}),
    ({"key": "no such key"}, "Invalid Api Key"),
    ({"model_id": "no such model"}, "Model id not found"),
    ({"lora_model": "unheard"}, {"lora_model": ["lora_model unheard is not on this server"]}),
    (
        {"scheduler": "DPMSolverSinglestepScheduler", "algorithm_type": "sde-dpmsolver"},
        {
            "algorithm_type": [
                "algorithm_type must be one of dpmsolver, dpmsolver++, sde-dpmsolver++ with "
                "DPMSolverSinglestepScheduler"
            ]
        },
    ),
    ({"panorama": "yes", "width": 2056}, {"width": ["width must be between 256 and 2048"]}),
]


@pytest.mark.parametrize(("changes", "message"), ERRORS, ids=lambda value: str(value)[:40])
def test_errors_are_the_documented_ones(server: RunningServer, changes: dict[str, Any], message: object):
    answer = server.post("text2img", **{**SMALL, **changes})
    body = answer.json()
    assert (answer.status_code, body["status"]) == (200, "error")
    assert body["message"] == message
    # One typed client decodes the misspelt text as a map, and would fail at this one.
    assert body.get("messege") == (None if message == "Invalid Api Key" else message)


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b"\xff\xfe", b"[" * 40_000])
def test_malformed_json_is_an_error_in_words(server: RunningServer, content: bytes):
    answer = HTTP.post(f"{server.url}{ENTERPRISE}/text2img", content=content)
    assert answer.json()["status"] == "error"
    assert "JSON" in str(answer.json()["message"])


def test_a_poor_account_is_told_and_not_charged(server: RunningServer):
    key = server.account("poor", 0)
    body = server.post("text2img", **SMALL, key=key).json()
    assert body["message"] == "Insufficient credits. Please add more credits to continue."


def test_unknown_operations_and_verbs_answer_in_the_dialect(server: RunningServer):
    unknown = HTTP.post(f"{server.url}{ENTERPRISE}/no_such_operation", json={"key": server.key})
    assert (unknown.status_code, unknown.json()["status"]) == (404, "error")
    assert float(unknown.headers["x-remaining-credits"]) > 0
    wrong_verb = HTTP.get(f"{server.url}{ENTERPRISE}/text2img")
    assert (wrong_verb.status_code, wrong_verb.headers["allow"]) == (405, "POST")
    assert wrong_verb.json()["message"] == "Method not allowed"


def test_what_the_server_has_is_listed(server: RunningServer):
    assert len(server.post("schedulers_list").json()["schedulers"]) == 18
    models = server.post("get_all_models").json()["models"]
    assert {model["model_id"] for model in models} == {MODEL, "runwayml/stable-diffusion-v1-5", "sdxl"}
    assert set(models[0]) == {"load_data", "model_id"}
    details = server.post("system_details").json()
    assert (details["model_count"], details["status"]) == (2, "ok")
    assert server.post("verify_model", model_id=MODEL).json()["message"] == "Model exists on server"
    assert server.post("verify_model", model_id="kolors").json()["message"] == "Model id not found"


def test_companions_need_a_key(server: RunningServer):
    for operation in ("schedulers_list", "get_all_models", "system_details", "fetch/1"):
        assert server.post(operation, key="wrong").json()["message"] == "Invalid Api Key"


def test_a_retry_with_an_idempotency_key_is_billed_once(server: RunningServer):
    key = server.account("retrying", 1)
    headers = {"Idempotency-Key": "once"}
    first, second = (
        HTTP.post(
            f"{server.url}{ENTERPRISE}/text2img", json={"key": key, **SMALL}, headers=headers, timeout=120
        )
        for _ in range(2)
    )
    assert first.json() == second.json()
    assert float(second.headers["x-remaining-credits"]) == pytest.approx(1 - 0.001)
    other = HTTP.post(
        f"{server.url}{ENTERPRISE}/text2img",
        json={"key": key, **SMALL, "seed": 5},
        headers=headers,
        timeout=120,
    )
    assert "Idempotency-Key" in other.json()["message"]
    endless = HTTP.post(
        f"{server.url}{ENTERPRISE}/text2img",
        json={"key": key, **SMALL},
        headers={"Idempotency-Key": "x" * 256},
    )
    assert endless.json()["message"] == {
        "Idempotency-Key": ["Idempotency-Key must be at most 255 characters long"]
    }
