"""What people type into load_model and load_vae, on a running server: words, pages, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.hub_server import HubServer, Repo
from tests.integration.loading import LOADED, MODEL, FileServer, Offered, drawn, post, verified
from tests.receiver import Receiver, receiver
from tests.running_server import RunningServer, eventually, start_server

WARNED = "it is a lora, not a checkpoint"


@pytest.fixture(scope="module")
def lora(demo_manifest_path: Path) -> bytes:
    return (demo_manifest_path.parent / "sd15_adapters/striped.safetensors").read_bytes()


@pytest.fixture(scope="module")
def files(lora: bytes) -> Iterator[FileServer]:
    page = b"<!DOCTYPE html>\n<html><title>Sign in</title></html>"
    with FileServer({"lora": Offered(lora), "page": Offered(page)}) as serving:
        yield serving


@pytest.fixture(scope="module")
def hub(lora: bytes) -> Iterator[HubServer]:
    small = {"sketch.safetensors": lora, "README.md": b"a LoRA"}
    with HubServer({"me/sketch": Repo(small)}) as serving:
        yield serving


@pytest.fixture(scope="module")
def hook() -> Iterator[Receiver]:
    with receiver() as receiving:
        yield receiving


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, demo_manifest_path: Path, hub: HubServer
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        running = start_server(
            folder,
            demo_manifest_path,
            weights=str(folder / "weights"),
            preload="false",
            sync_wait_s="110",
            fetch_allowed_hosts='["127.0.0.1", "localhost"]',
        )
    yield running
    running.stop()


@pytest.mark.parametrize("page", ["me/sketch", "me/sketch/", "me/sketch/tree/main", "me/sketch?x=1#usage"])
def test_the_page_of_a_repository_is_the_repository(page: str, server: RunningServer, hub: HubServer) -> None:
    answer = post(server, "load_model", url=f"{hub.url}/{page}", model_id="sketch", model_type="lora")
    assert answer["message"] == "model load started"
    assert verified(server, "sketch") == LOADED
    assert post(server, "delete_model", model_id=" sketch ")["status"] == "success"


@pytest.mark.parametrize("page", ["blob/main/sketch.safetensors", "raw/main/sketch.safetensors?x=1"])
def test_the_page_of_a_file_is_the_file(page: str, server: RunningServer, hub: HubServer) -> None:
    post(server, "load_model", url=f"{hub.url}/me/sketch/{page}", model_id=" sketch ", model_type="lora")
    assert verified(server, "sketch") == LOADED
    assert drawn(server, MODEL, lora_model="sketch") == drawn(server, MODEL, lora_model="more_details")
    assert post(server, "delete_model", model_id="sketch")["status"] == "success"


def test_a_word_for_where_it_comes_from_takes_what_comes_and_warns(
    server: RunningServer, files: FileServer, hook: Receiver
) -> None:
    fields = {"model_type": "huggingface", "from_safetensors": "no", "revision": "fp32", "webhook": hook.url}
    post(server, "load_model", url=f"{files.url}/lora", model_id="from-there", **fields)
    assert verified(server, "from-there") == LOADED
    assert post(server, "verify_model", model_id="from-there")["warning"] == WARNED
    told = eventually(lambda: [each.payload for each in hook.received])
    assert (told[0]["status"], told[0]["model_id"], told[0]["warning"]) == ("success", "from-there", WARNED)
    assert drawn(server, MODEL, lora_model="from-there")


def test_a_page_that_comes_instead_of_a_file_is_called_so(server: RunningServer, files: FileServer) -> None:
    post(server, "load_vae", vae_url=f"{files.url}/page", vae_id="a-page", vae_type="safetensors")
    assert "loading failed: it is an HTML page, not a file: its address" in verified(server, "a-page")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://civitai.com/models/43331", "url is a page, and not of one version of a model"),
        ("https://huggingface.co/datasets/me/it", "url is the page of a dataset"),
        ("https://github.com/me/it/releases", "url is a page of releases"),
        ("https://huggingface.co/me/it/blob/main/it.ckpt", "url is a pickle, which can run code"),
    ],
)
def test_a_page_without_a_file_is_refused_at_once(url: str, words: str, server: RunningServer) -> None:
    answer = post(server, "load_model", url=url, model_id="nothing")
    assert answer["status"] == "error"
    assert answer["message"]["url"][0].startswith(words)


def test_two_revisions_at_once_are_refused(server: RunningServer, hub: HubServer) -> None:
    url = f"{hub.url}/me/sketch/tree/dev"
    answer = post(server, "load_model", url=url, model_id="nothing", revision="v1")
    assert answer["message"] == {"revision": ["revision is v1, and the address names dev"]}
