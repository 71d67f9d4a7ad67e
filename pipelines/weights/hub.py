"""The model hub, through huggingface_hub: the files of a repository, and its failures in plain words."""

# pyright: reportUnknownVariableType=false
# huggingface_hub is only partly typed.

from __future__ import annotations

import errno
import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from pipelines.weights.repositories import Repository
from pipelines.weights.xet import XetBroken, XetStorage

log = logging.getLogger(__name__)

XET_FROM_BYTES = 1_000_000
"""The least bytes of a file that is fetched from Xet storage: a smaller one comes sooner in one answer."""


class Bar(Protocol):
    """Is told of the bytes that come. It may raise, which ends the transfer; what came is kept."""

    def update(self, n: float, /) -> object:
        """``n`` more bytes have come; fewer than none, where they have to come again."""


class PullError(Exception):
    """A repository could not be pulled; ``str(error)`` says why and what to do.

    Attributes:
        exit_code: exit status of the command line.
        fatal: whether the next repository would fail as well.
    """

    exit_code = 1
    fatal = False


class NoNetwork(PullError):
    """The hub does not answer."""

    exit_code = 3
    fatal = True


class AccessDenied(PullError):
    """The hub wants a token, another token, or agreement to a repository's terms."""

    exit_code = 4


class NotOnTheHub(PullError):
    """The hub has no such repository, revision or file."""

    exit_code = 5


class Corrupted(PullError):
    """The bytes that arrived are not the ones that the hub announced, or are not weights."""

    exit_code = 6


class DiskFull(PullError):
    """The disk has no room for the repository."""

    exit_code = 7
    fatal = True


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository; ``upstream`` is its SHA-256 if it is large, else git's blob id."""

    size: int
    upstream: str


class Hub:
    """The hub as this project needs it, through huggingface_hub; every failure is a `PullError`."""

    def __init__(
        self, endpoint: str | None = None, token: str | None = None, xet: XetStorage | None = None
    ) -> None:
        """
        Args:
            endpoint: URL of the hub; None for the one that huggingface_hub's environment names.
            token: access token; None for the one that huggingface_hub finds (``HF_TOKEN``, an earlier login).
            xet: the storage that large files are streamed from where the hub offers it.
        """
        from huggingface_hub import HfApi

        self._token = token or None
        self._xet = XetStorage() if xet is None else xet
        self._api = HfApi(endpoint=endpoint.rstrip("/") if endpoint else None, token=self._token)
        self.endpoint = self._api.endpoint

    def commit(self, repository: Repository) -> str:
        """The commit that the repository's revision names now."""
        with _errors_in_words(repository, self.endpoint):
            found = self._api.model_info(repository.hub, revision=repository.revision).sha
        assert found is not None
        return found

    def listing(self, repository: Repository, commit: str) -> dict[str, RemoteFile]:
        """Every file that a repository has at that commit, by its name."""
        from huggingface_hub.hf_api import RepoFile

        with _errors_in_words(repository, self.endpoint):
            tree = list(self._api.list_repo_tree(repository.hub, recursive=True, revision=commit))
        return {
            file.path: RemoteFile(file.size, file.lfs.sha256 if file.lfs else file.blob_id)
            for file in tree
            if isinstance(file, RepoFile)
        }

    def fetch(
        self,
        repository: Repository,
        commit: str,
        name: str,
        remote: RemoteFile,
        partial: Path,
        bar: Bar | None = None,
    ) -> None:
        """Append to a partial download what is missing of the file.

        The client's own download keeps nothing of a transfer that was killed, so the partial file is kept
        here and only its rest is asked for. Large files lie behind addresses that are signed for a while; one
        that has expired in the middle is asked for anew.
        """
        from huggingface_hub import errors

        with _errors_in_words(repository, self.endpoint), partial.open("ab") as file:
            while True:
                before = file.tell()
                try:
                    return self._fetch_rest(repository, commit, name, remote, file, bar)
                except errors.HfHubHTTPError as error:
                    if error.response.status_code != 403 or file.tell() == before:
                        raise

    def _fetch_rest(
        self,
        repository: Repository,
        commit: str,
        name: str,
        remote: RemoteFile,
        file: BinaryIO,
        bar: Bar | None,
    ) -> None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(repository.hub, name, revision=commit, endpoint=self.endpoint)
        metadata = get_hf_file_metadata(url, token=self._token, endpoint=self.endpoint)
        if metadata.xet_file_data is not None and remote.size >= XET_FROM_BYTES and self._xet.is_usable():
            own = build_hf_headers(token=self._token)
            try:
                self._xet.fetch(metadata.xet_file_data, own, remote.size, file, bar)
                return
            except XetBroken as error:
                log.warning("%s/%s goes on over plain HTTP: %s", repository.hub, name, error)
        location = metadata.location
        stays = location.startswith(f"{self.endpoint}/")
        headers = build_hf_headers(token=self._token if stays else False)
        headers["Accept-Encoding"] = "identity"
        http_get(
            location,
            file,
            resume_size=file.tell(),
            headers=cast(dict[str, Any], headers),
            expected_size=remote.size,
            displayed_filename=f"{repository.hub}/{name}",
            _tqdm_bar=cast(Any, bar),
        )


@contextmanager
def _errors_in_words(repository: Repository, endpoint: str) -> Generator[None]:
    """Turn what the client raises into what a person can act upon."""
    import httpx2
    from huggingface_hub import errors

    page = f"{endpoint}/{repository.hub}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise AccessDenied(
            f"{repository.hub} is given only to accounts that accepted its terms. Open {page} while "
            f"logged in and accept them, make a token with read access at {endpoint}/settings/tokens, and "
            f"pull again with HF_TOKEN=<token> in the environment."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise NotOnTheHub(f"{repository.hub} has no revision {repository.revision}.") from error
    except errors.RemoteEntryNotFoundError as error:
        raise NotOnTheHub(f"{repository.hub} lost a file while it was pulled; pull again.") from error
    except errors.RepositoryNotFoundError as error:
        raise NotOnTheHub(
            f"{repository.hub} is not on the hub, or is private: check its name in the manifest; for a "
            f"private repository put HF_TOKEN=<token> into the environment."
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise AccessDenied(
                f"The hub does not accept the token for {repository.hub}: make one at "
                f"{endpoint}/settings/tokens and put it into the environment as HF_TOKEN."
            ) from error
        if status == 403:
            raise AccessDenied(
                f"The token in HF_TOKEN may not read {repository.hub}: give it read access to that "
                f"repository at {endpoint}/settings/tokens."
            ) from error
        raise NoNetwork(f"The hub answered {status} for {repository.hub}; try again later.") from error
    except (httpx2.TransportError, errors.OfflineModeIsEnabled, errors.FileMetadataError) as error:
        raise NoNetwork(
            f"{endpoint} does not answer: check the network, HTTPS_PROXY and HF_ENDPOINT, then pull again; "
            f"what is already here is kept."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"The disk is full; free some room and pull {repository.hub} again.") from error
        if error.errno is not None:
            raise
        raise Corrupted(f"{repository.hub}: a file arrived incomplete; pull again.") from error
