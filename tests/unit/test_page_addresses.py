"""Addresses as people copy them: the file's own follows from its page's, or the refusal says what to copy."""

from __future__ import annotations

import pytest

from server.loading.page_addresses import HUB_HOSTS, Address, NotAFile, file_address

HUB = "https://huggingface.co"
SITE = "https://civitai.com"
DRIVE = "https://drive.usercontent.google.com/download?id=1a-B_c&export=download&confirm=t"


@pytest.mark.parametrize(
    ("copied", "origin", "revision"),
    [
        # Repositories of the hub.
        ("me/it", "me/it", None),
        ("  me/it \n", "me/it", None),
        ("me/it/", "me/it", None),
        ("me/it@v1.0", "me/it", "v1.0"),
        (f"{HUB}/me/it", "me/it", None),
        (f"{HUB}/me/it/", "me/it", None),
        (f"{HUB}//me/it", "me/it", None),
        (f"{HUB}/me/it?library=diffusers", "me/it", None),
        (f"{HUB}/me/it#usage", "me/it", None),
        (f"{HUB}/me/it/tree/main", "me/it", "main"),
        (f"{HUB}/me/it/tree/fp16/", "me/it", "fp16"),
        (f"{HUB}/me/it/tree/refs%2Fpr%2F1", "me/it", "refs/pr/1"),
        (f"{HUB}/me/it/commit/{'a' * 40}", "me/it", "a" * 40),
        (f"{HUB}/me/it/tree", "me/it", None),
        (f"{HUB}/api/models/me/it", "me/it", None),
        ("http://www.huggingface.co/me/it", "me/it", None),
        ("https://hf.co/me/it", "me/it", None),
        ("huggingface.co/me/it", "me/it", None),
        ("hf.co/me/it/tree/dev", "me/it", "dev"),
        ("https://hf-mirror.com/me/it", "me/it", None),
        ("hf://me/it", "me/it", None),
        ("hf://models/me/it@dev", "me/it", "dev"),
        # Files of the hub.
        (f"{HUB}/me/it/blob/main/a.safetensors", f"{HUB}/me/it/resolve/main/a.safetensors", None),
        (f"{HUB}/me/it/blob/main/a.safetensors?x=1#L2", f"{HUB}/me/it/resolve/main/a.safetensors", None),
        (f"{HUB}/me/it/raw/main/d/a.safetensors", f"{HUB}/me/it/resolve/main/d/a.safetensors", None),
        (f"{HUB}/me/it/blame/v1/a.safetensors", f"{HUB}/me/it/resolve/v1/a.safetensors", None),
        (
            f"{HUB}/me/it/blob/refs%2Fpr%2F1/a%20b.safetensors",
            f"{HUB}/me/it/resolve/refs%2Fpr%2F1/a%20b.safetensors",
            None,
        ),
        (
            f"{HUB}/me/it/resolve/main/a.safetensors?download=true",
            f"{HUB}/me/it/resolve/main/a.safetensors?download=true",
            None,
        ),
        (
            f"{HUB}/datasets/me/it/blob/main/a.safetensors",
            f"{HUB}/datasets/me/it/resolve/main/a.safetensors",
            None,
        ),
        ("huggingface.co/me/it/blob/main/a.safetensors", f"{HUB}/me/it/resolve/main/a.safetensors", None),
        ("hf://me/it/d/a.safetensors", f"{HUB}/me/it/resolve/main/d/a.safetensors", None),
        ("hf://me/it@dev/a.safetensors", f"{HUB}/me/it/resolve/dev/a.safetensors", None),
        # A site of models.
        (f"{SITE}/api/download/models/94640", f"{SITE}/api/download/models/94640", None),
        (f"{SITE}/models/43331?modelVersionId=94640", f"{SITE}/api/download/models/94640", None),
        (f"{SITE}/models/43331/majicmix?modelVersionId=94640", f"{SITE}/api/download/models/94640", None),
        (f"{SITE}/models/1/a?modelVersionId=2&token=t", f"{SITE}/api/download/models/2?token=t", None),
        (f"{SITE}/api/v1/model-versions/94640", f"{SITE}/api/download/models/94640", None),
        ("civitai.com/models/1?modelVersionId=2", f"{SITE}/api/download/models/2", None),
        (
            "https://civitai.red/api/download/models/2?type=Model&fp=fp16?token=t",
            "https://civitai.red/api/download/models/2?type=Model&fp=fp16&token=t",
            None,
        ),
        ("urn:air:sd1:checkpoint:civitai:4201@130072", f"{SITE}/api/download/models/130072", None),
        # Sites of code.
        (
            "https://github.com/me/it/blob/main/a/b.safetensors",
            "https://github.com/me/it/raw/main/a/b.safetensors",
            None,
        ),
        (
            "https://github.com/me/it/releases/download/v1/a.safetensors",
            "https://github.com/me/it/releases/download/v1/a.safetensors",
            None,
        ),
        (
            "https://gitlab.com/g/s/it/-/blob/main/a.safetensors?ref_type=heads",
            "https://gitlab.com/g/s/it/-/raw/main/a.safetensors",
            None,
        ),
        ("https://git.example.org/me/it/-/blob/v1/a", "https://git.example.org/me/it/-/raw/v1/a", None),
        # Shared files.
        ("https://drive.google.com/file/d/1a-B_c/view?usp=sharing", DRIVE, None),
        ("https://drive.google.com/file/d/1a-B_c", DRIVE, None),
        ("https://drive.google.com/open?id=1a-B_c", DRIVE, None),
        ("https://drive.google.com/uc?export=download&id=1a-B_c", DRIVE, None),
        ("https://docs.google.com/uc?id=1a-B_c", DRIVE, None),
        ("https://drive.google.com/file/d/1a-B_c/view?resourcekey=0-k", f"{DRIVE}&resourcekey=0-k", None),
        (
            "https://www.dropbox.com/s/k/a?dl=0",
            "https://www.dropbox.com/s/k/a?dl=1",
            None,
        ),
        ("https://dropbox.com/s/k/a.safetensors", "https://dropbox.com/s/k/a.safetensors?dl=1", None),
        (
            "https://www.dropbox.com/scl/fi/k/a.safetensors?rlkey=r&st=s&dl=0",
            "https://www.dropbox.com/scl/fi/k/a.safetensors?rlkey=r&st=s&dl=1",
            None,
        ),
        (
            "https://modelscope.cn/models/me/it/file/view/master/a.safetensors?status=1",
            "https://modelscope.cn/models/me/it/resolve/master/a.safetensors",
            None,
        ),
        # Whatever else there is stays as it is.
        ("https://example.com/blob/main/a.safetensors", "https://example.com/blob/main/a.safetensors", None),
        (
            "https://download1.mediafire.com/k/a",
            "https://download1.mediafire.com/k/a",
            None,
        ),
        ("https://a.sharepoint.com/x/download?t=1", "https://a.sharepoint.com/x/download?t=1", None),
        ("/etc/passwd", "/etc/passwd", None),
        ("file:///etc/passwd", "file:///etc/passwd", None),
        ("https://[::1", "https://[::1", None),
        ("", "", None),
    ],
)
def test_the_address_of_what_is_to_be_loaded(copied: str, origin: str, revision: str | None) -> None:
    assert file_address(copied) == Address(origin, revision)


@pytest.mark.parametrize(
    ("copied", "words"),
    [
        (f"{HUB}/", "the front page of the hub"),
        (f"{HUB}/me", "give owner/name"),
        (f"{HUB}/models?search=anime", "a list of models"),
        (f"{HUB}/datasets/me/it", "the page of a dataset"),
        (f"{HUB}/datasets/me/it/tree/main", "the page of a dataset"),
        (f"{HUB}/datasets", "the page of a dataset"),
        (f"{HUB}/spaces/me/it", "the page of a space"),
        (f"{HUB}/collections/me/it-1", "a collection"),
        (f"{HUB}/papers/2112.10752", "the page of a paper"),
        (f"{HUB}/me/it/tree/main/unet", "a folder in a repository"),
        (f"{HUB}/me/it/discussions/3", "a page about me/it: give me/it"),
        (f"{HUB}/me/it/blob/main", "a page about me/it: give me/it"),
        ("me/it/a.safetensors", f"give {HUB}/me/it/resolve/main/a.safetensors"),
        ("me/it.safetensors", "neither a URL"),
        (f"{SITE}/models/43331", f"copy the link of its Download button, {SITE}/api/download/models/VERSION"),
        (f"{SITE}/models/43331/majicmix", "choose a version"),
        (f"{SITE}/models/43331?modelVersionId=newest", "choose a version"),
        (f"{SITE}/images/1", "choose a version"),
        (f"{SITE}/", "choose a version"),
        (f"{SITE}/api/v1/models/43331", "choose a version"),
        ("urn:air:sd1:checkpoint:civitai:4201", "choose a version"),
        ("https://github.com/me/it", "is a page"),
        ("https://github.com/me/it/tree/main/models", "is a page"),
        ("https://github.com/me/it/releases", "among its assets"),
        ("https://github.com/me/it/releases/tag/v1", "among its assets"),
        ("https://github.com/me/it/releases/latest", "among its assets"),
        ("https://drive.google.com/drive/folders/1a", "is a folder"),
        ("https://drive.google.com/drive/u/0/folders/1a", "is a folder"),
        ("https://docs.google.com/document/d/1a/edit", "is a page"),
        ("https://www.dropbox.com/sh/k/l?dl=0", "is a folder"),
        ("https://www.dropbox.com/scl/fo/k/l?rlkey=r&dl=0", "is a folder"),
        ("https://www.dropbox.com/home", "is a page"),
        ("https://1drv.ms/u/s!Ak", "a share page"),
        ("https://onedrive.live.com/?cid=1&id=2", "a share page"),
        ("https://a-my.sharepoint.com/:u:/p/me/Ek?e=1", "a share page"),
        ("https://modelscope.cn/models/me/it", "is a page"),
        ("https://mega.nz/file/k#l", "a page of mega.nz"),
        ("https://www.mediafire.com/file/k/a.safetensors/file", "a page of www.mediafire.com"),
        ("https://we.tl/t-k", "a page of we.tl"),
    ],
)
def test_a_page_from_which_no_file_follows_is_refused_with_what_to_copy(copied: str, words: str) -> None:
    with pytest.raises(NotAFile) as refused:
        file_address(copied)
    assert words in str(refused.value)


def test_another_hub_has_the_same_paths() -> None:
    hosts = (*HUB_HOSTS, "hub.example:8080")
    page = "http://hub.example:8080/me/it"
    assert file_address(page, hosts) == Address("me/it")
    found = file_address(f"{page}/blob/main/a.safetensors", hosts)
    assert found == Address(f"{page}/resolve/main/a.safetensors")
    assert file_address(page) == Address(page)
    other = "http://hub.example:8080/files/me/it/main/a.safetensors"
    assert file_address(other, hosts) == Address(other)


@pytest.mark.parametrize("site", ["github.com.example.org", "example.org/github.com", "xcivitai.com"])
def test_a_host_that_only_looks_like_a_site_is_none(site: str) -> None:
    url = f"https://{site}/models/1"
    assert file_address(url) == Address(url)
