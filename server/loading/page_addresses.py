"""The address of a page on which a file is shown, turned into that of the file where that is certain.

People copy what stands in the browser's address bar. Where the address of the file follows from that of its
page it is taken instead; where it does not, the refusal says what to copy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com")
"""The hosts of the model hub, of its short links and of a mirror with the same paths."""

_FILE_PAGES = ("blob", "blame", "raw", "resolve", "edit")
"""The second part of the hub's paths behind a repository that leads to one file."""
_NO_REPOSITORIES = {
    "datasets": "the page of a dataset", "spaces": "the page of a space", "collections": "a collection",
    "papers": "the page of a paper", "docs": "documentation", "models": "a list of models",
    "organizations": "an organisation's page", "blog": "an article", "posts": "an article", "join": "a login",
    "login": "a login", "settings": "a settings page",
}  # fmt: skip
"""What the hub's paths of two parts are that do not name a repository, by their first part."""

_CIVITAI = re.compile(r"(www\.)?civitai\.(com|red|green)")
_AIR = re.compile(r"urn:air:[\w.-]+:[\w.-]+:civitai:(?P<model>\d+)(@(?P<version>\d+))?", re.IGNORECASE)
_OWNER_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OWNER_NAME_FILE = re.compile(r"(?P<hub>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)/(?P<file>[^?#]+\.\w+)")


class NotAFile(Exception):
    """A page that is not one file's; ``str(error)`` says what it is, and what to give instead."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address of what is to be loaded.

    Attributes:
        origin: the URL of a file, or ``owner/name`` of a repository of the hub.
        revision: the branch, tag or commit that the address names; None if it names none.
    """

    origin: str
    revision: str | None = None


Rule: TypeAlias = Callable[[SplitResult], Address | None]
"""What a site's addresses are turned into; None for one that stays as it is."""


def file_address(text: str, hub_hosts: Iterable[str] = HUB_HOSTS) -> Address:
    """The address of a file or repository that a text names.

    Args:
        text: a URL, an ``owner/name``, or anything else, which stays as it is.
        hub_hosts: hosts, with their port if it is not the usual one, whose paths are those of the hub. Those
            that are not in `HUB_HOSTS` may have other paths besides, which stay as they are.
    Raises:
        NotAFile: the text names a page from which the file does not follow.
    """
    text = text.strip()
    if air := _AIR.fullmatch(text):
        return _civitai_version(air["version"], "civitai.com", "")
    if text.startswith("hf://"):
        text = _hub_url_of_scheme(text)
    hosts = tuple(hub_hosts)
    bare = text.partition("/")[0].lower()
    if "://" not in text and (bare in hosts or _rule(bare, hosts) is not None):
        text = f"https://{text}"
    if "://" not in text:
        return _repository(text)
    try:
        url = urlsplit(text)
        host = url.netloc.rpartition("@")[2].lower()
    except ValueError:
        return Address(text)
    rule = _rule(host, hosts)
    try:
        found = rule(url) if rule is not None else _gitlab(url)
    except NotAFile:
        if host not in hosts or host in HUB_HOSTS:
            raise
        found = None
    return found or Address(text)


def _rule(host: str, hub_hosts: tuple[str, ...]) -> Rule | None:
    if host in hub_hosts:
        return _hub
    if _CIVITAI.fullmatch(host):
        return _civitai
    if host.endswith(".sharepoint.com"):
        return _onedrive
    return _RULES.get(host.removeprefix("www."))


def _repository(text: str) -> Address:
    bare = text.rstrip("/")
    name, at, revision = bare.partition("@")
    if at and _OWNER_NAME.fullmatch(name) and revision:
        return Address(name, revision)
    if found := _OWNER_NAME_FILE.fullmatch(bare):
        url = f"https://{HUB_HOSTS[0]}/{found['hub']}/resolve/main/{quote(found['file'])}"
        raise NotAFile(f"names a file in a repository; if it is one of the hub give {url}")
    if _OWNER_NAME.fullmatch(bare) and bare.lower().endswith(".safetensors"):
        raise NotAFile("is neither a URL, which begins with https://, nor a repository as owner/name")
    return Address(bare if _OWNER_NAME.fullmatch(bare) else text)


def _hub(url: SplitResult) -> Address | None:
    parts = [part for part in url.path.split("/") if part]
    prefix = parts[:1] if parts[:1] in (["datasets"], ["spaces"]) else []
    rest = parts[len(prefix) :]
    if len(rest) >= 5 and rest[2] in _FILE_PAGES:
        if rest[2] == "resolve":
            return None
        path = "/".join([*prefix, *rest[:2], "resolve", *rest[3:]])
        return Address(urlunsplit((url.scheme, url.netloc, f"/{path}", "", "")))
    if not rest:
        raise NotAFile(f"is {_NO_REPOSITORIES.get(''.join(prefix), 'the front page of the hub')}, no model")
    if parts[0] == "api":
        return Address("/".join(parts[2:])) if parts[1:2] == ["models"] and len(parts) == 4 else None
    if prefix or parts[0] in _NO_REPOSITORIES:
        raise NotAFile(f"is {_NO_REPOSITORIES[parts[0]]}, not a model's: give a repository as owner/name")
    if len(rest) == 1:
        raise NotAFile(
            "names an owner or a repository without its owner: give owner/name, as it stands at the head of"
            " the model's page"
        )
    hub = "/".join(rest[:2])
    if len(rest) == 2 or (len(rest) == 3 and rest[2] in ("tree", "files")):
        return Address(hub)
    if rest[2] in ("tree", "commits", "commit") and len(rest) == 4:
        return Address(hub, unquote(rest[3]))
    if rest[2] == "tree":
        raise NotAFile("is a folder in a repository: open the file that you want and copy its download link")
    raise NotAFile(f"is a page about {hub}: give {hub}, or the download link of one of its files")


def _hub_url_of_scheme(text: str) -> str:
    """The URL of ``hf://owner/name``, with ``@revision`` and a file where they are there."""
    owner, _, rest = text.removeprefix("hf://").removeprefix("models/").partition("/")
    name, _, file = rest.partition("/")
    name, _, revision = name.partition("@")
    page = f"https://{HUB_HOSTS[0]}/{owner}/{name}"
    if file:
        return f"{page}/blob/{revision or 'main'}/{file}"
    return f"{page}/tree/{revision}" if revision else page


def _civitai(url: SplitResult) -> Address | None:
    parts = [part for part in url.path.split("/") if part]
    query = url.query.replace("?", "&")  # a token is often put behind a second question mark
    asked = dict(parse_qsl(query))
    kept = urlencode({"token": asked["token"]}) if "token" in asked else ""
    match parts:
        case ["api", "download", "models", _]:
            return Address(urlunsplit((url.scheme, url.netloc, url.path, query, "")))
        case ["models", _, *_]:
            return _civitai_version(asked.get("modelVersionId"), url.netloc, kept)
        case ["api", "v1", "model-versions", version] | ["model-versions", version]:
            return _civitai_version(version, url.netloc, kept)
        case _:
            return _civitai_version(None, url.netloc, "")


def _civitai_version(version: str | None, host: str, query: str) -> Address:
    if version is None or not version.isdecimal():
        raise NotAFile(
            "is a page, and not of one version of a model: choose a version and copy the link of its Download"
            f" button, https://{host}/api/download/models/VERSION"
        )
    return Address(urlunsplit(("https", host, f"/api/download/models/{version}", query, "")))


def _github(url: SplitResult) -> Address | None:
    match [part for part in url.path.split("/") if part]:
        case [_, _, "raw", _, _, *_] | [_, _, "releases", "download", _, _, *_]:
            return None
        case [_, _, "releases", "latest", "download", _]:
            return None
        case [owner, name, "blob", *rest] if len(rest) >= 2:
            # This host's own address of the bytes, since it also serves files from the large-file storage.
            path = "/".join([owner, name, "raw", *rest])
            return Address(urlunsplit((url.scheme, url.netloc, f"/{path}", "", "")))
        case [_, _, "releases", *_]:
            raise NotAFile("is a page of releases: copy the link of the .safetensors file among its assets")
        case _:
            raise NotAFile("is a page: open the .safetensors file and copy the link of its Download button")


def _gitlab(url: SplitResult) -> Address | None:
    """GitLab is run on many hosts; its paths tell it."""
    if "/-/blob/" not in url.path:
        return None
    path = url.path.replace("/-/blob/", "/-/raw/", 1)
    return Address(urlunsplit((url.scheme, url.netloc, path, "", "")))


def _google_drive(url: SplitResult) -> Address | None:
    asked = dict(parse_qsl(url.query))
    match [part for part in url.path.split("/") if part]:
        case ["file", "d", file, *_] | ["file", "u", _, "d", file, *_]:
            pass
        case ["open" | "uc"] | ["u", _, "open" | "uc"] if "id" in asked:
            file = asked["id"]
        case ["drive", *_] | ["folders", *_]:
            raise NotAFile("is a folder: share the .safetensors file itself and copy its link")
        case _:
            raise NotAFile("is a page: share the .safetensors file itself and copy its link")
    # Behind `confirm` there is no page that asks first whether an unscanned file is really wanted.
    query = {"id": file, "export": "download", "confirm": "t"}
    if "resourcekey" in asked:
        query["resourcekey"] = asked["resourcekey"]
    return Address(f"https://drive.usercontent.google.com/download?{urlencode(query)}")


def _dropbox(url: SplitResult) -> Address | None:
    parts = [part for part in url.path.split("/") if part]
    if parts[:1] == ["sh"] or parts[:2] == ["scl", "fo"]:
        raise NotAFile("is a folder: share the .safetensors file itself and copy its link")
    if parts[:1] != ["s"] and parts[:2] != ["scl", "fi"]:
        raise NotAFile("is a page: share the .safetensors file itself and copy its link")
    asked = [(name, value) for name, value in parse_qsl(url.query) if name not in ("dl", "raw")]
    query = urlencode([*asked, ("dl", "1")])
    return Address(urlunsplit((url.scheme, url.netloc, url.path, query, "")))


def _modelscope(url: SplitResult) -> Address | None:
    match [part for part in url.path.split("/") if part]:
        case ["models", owner, name, "file", "view", revision, *file] if file:
            path = "/".join(["models", owner, name, "resolve", revision, *file])
            return Address(urlunsplit((url.scheme, url.netloc, f"/{path}", "", "")))
        case ["models", _, _, "resolve", _, *_] | ["api", *_]:
            return None
        case _:
            raise NotAFile("is a page: open the .safetensors file and copy its download link")


def _onedrive(url: SplitResult) -> Address | None:
    if url.path.rstrip("/").endswith(("/download", "/download.aspx", "/content")):
        return None
    raise NotAFile("is a share page: open it, begin the download, and copy the address of that download")


def _shown_only(url: SplitResult) -> Address | None:
    raise NotAFile(
        f"is a page of {url.netloc}, which has no address for the file: put the file where a plain download"
        " finds it"
    )


_RULES: Mapping[str, Rule] = {
    "github.com": _github,
    "drive.google.com": _google_drive,
    "docs.google.com": _google_drive,
    "dropbox.com": _dropbox,
    "modelscope.ai": _modelscope,
    "modelscope.cn": _modelscope,
    "1drv.ms": _onedrive,
    "onedrive.live.com": _onedrive,
    "mega.nz": _shown_only,
    "mega.co.nz": _shown_only,
    "mediafire.com": _shown_only,
    "wetransfer.com": _shown_only,
    "we.tl": _shown_only,
    "pan.baidu.com": _shown_only,
}
"""The rule of each site by its host, without www."""
