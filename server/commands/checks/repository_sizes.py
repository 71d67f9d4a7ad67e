"""The hub: whether it answers, whether it gives what is gated, and how large is what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import httpx

from pipelines.weights.repositories import Repository, components_of, select
from server.commands.checks.finding import PATIENCE_S, Finding, within

HUB = "https://huggingface.co"

TOKEN_REMEDY = "Make a token with read access at {hub}/settings/tokens and set HF_TOKEN."


@dataclass(frozen=True, slots=True)
class Remote:
    """What the hub says of a repository.

    Attributes:
        size: the bytes of the files that are needed; None: it does not say.
        status: how it answers who asks for one of them; None: not asked.
    """

    size: int | None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class HubClient:
    """The hub as it is asked without its own client, whose patience nobody can bound."""

    endpoint: str
    token: str | None

    def get(self, path: str, **given: Any) -> httpx.Response:
        """The answer to a question."""
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        url = f"{self.endpoint}{path}"
        return httpx.get(url, headers=headers, timeout=PATIENCE_S / 2, follow_redirects=True, **given)

    def look(self, repository: Repository) -> Remote:
        """The size of what is needed of a repository, and whether it is given.

        Raises:
            httpx.HTTPError: the hub does not answer.
        """
        answer = self.get(f"/api/models/{repository.hub}/revision/{repository.revision}")
        if answer.status_code != 200:
            return Remote(None, answer.status_code)
        commit = answer.json()["sha"]
        tree = self.get(f"/api/models/{repository.hub}/tree/{commit}", params={"recursive": "true"})
        if tree.status_code != 200:
            return Remote(None, tree.status_code)
        entries = cast("list[dict[str, Any]]", tree.json())
        sizes = {entry["path"]: int(entry["size"]) for entry in entries if entry["type"] == "file"}
        beyond = f"/{repository.hub}/resolve/{commit}"
        components, status = None, None
        if "model_index.json" in sizes and not repository.files:
            index = self.get(f"{beyond}/model_index.json")
            status = index.status_code
            folders = {name.partition("/")[0] for name in sizes if "/" in name}
            components = components_of(index.json()) if status == 200 else sorted(folders)
        chosen = select(sizes, repository, components)
        if status is None and chosen:
            headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
            url = f"{self.endpoint}{beyond}/{next(iter(chosen))}"
            status = httpx.head(url, headers=headers, timeout=PATIENCE_S / 2).status_code
        return Remote(sum(sizes[name] for name in chosen), status)


def look_at_hub(hub: HubClient, missing: Sequence[Repository]) -> tuple[dict[str, Remote], list[Finding]]:
    """What the hub says of the missing repositories, and what is wrong with it, its terms or the token."""
    if not missing:
        return {}, []
    works = {repository.key: lambda each=repository: hub.look(each) for repository in missing}
    answers = within(PATIENCE_S, works)
    remote = {key: answer for key, answer in answers.items() if isinstance(answer, Remote)}
    if not remote:
        words = f"{hub.endpoint} does not answer; sizes are computed"
        remedy = "Check the network, HTTPS_PROXY and HF_ENDPOINT before pulling weights."
        return {}, [Finding("hub", "warning", words, remedy)]
    findings = [Finding("hub", "ok", f"{hub.endpoint} answers")]
    refused = [each for each in missing if each.key in remote and _is_refused(remote[each.key])]
    if hub.token and any(remote[each.key].status == 401 for each in refused):
        words = "the hub does not accept HF_TOKEN"
        remedy = TOKEN_REMEDY.format(hub=hub.endpoint)
        return remote, [*findings, Finding("token", "warning", words, remedy)]
    for repository in refused:
        findings.append(_refusal(hub, repository, remote[repository.key]))
    if not refused and any(each.gated for each in missing):
        gated = ", ".join(each.hub for each in missing if each.gated)
        findings.append(Finding("token", "ok", f"HF_TOKEN opens what is gated: {gated}"))
    return remote, findings


def token_finding(missing: Sequence[Repository], token: str | None) -> list[Finding]:
    """Whether there is a token for what is gated, where the hub itself cannot be asked."""
    gated = [each.hub for each in missing if each.gated]
    if not gated or token:
        return []
    words = f"HF_TOKEN is not set; gated: {', '.join(gated)}"
    return [Finding("token", "warning", words, TOKEN_REMEDY.format(hub=HUB))]


def _is_refused(remote: Remote) -> bool:
    return remote.status is not None and remote.status >= 400


def _refusal(hub: HubClient, repository: Repository, remote: Remote) -> Finding:
    name = f"token for {repository.hub}"
    page = f"{hub.endpoint}/{repository.hub}"
    if remote.size is None:
        words = f"{repository.hub} is not on the hub, or is private (it answers {remote.status})"
        return Finding("hub", "warning", words, "Check its name in the manifest; private ones need HF_TOKEN.")
    if hub.token:
        words = "HF_TOKEN's account has not accepted the terms, or may not read it"
        return Finding(name, "warning", words, f"Open {page} while logged in and accept them.")
    words = "gated, and HF_TOKEN is not set"
    remedy = f"Accept the terms on {page}. {TOKEN_REMEDY.format(hub=hub.endpoint)}"
    return Finding(name, "warning", words, remedy)
