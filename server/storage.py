"""The storage of outputs until they are too old: a local folder, S3, GCS or Azure, all through obstore."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from server.errors import NotFound
from server.settings import Settings

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import AzureConfig, ClientConfig, GCSConfig, RetryConfig, S3Config

CONTENT_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
    "json": "application/json",
    "base64": "text/plain",
    "txt": "text/plain",
}
"""The media type of each extension. All else is served as plain bytes, so nothing acts as a web page."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_KEPT, _TEMPORARY = "kept", "temporary"
"""The prefixes of objects that live long and short: an object's age tells whether its time is over."""


def now() -> datetime:
    """The present time, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An object that is there, before any of its bytes are read.

    Attributes:
        path: where the store has it.
        size: bytes.
        etag: a strong validator, in quotation marks: other bytes under this name would have another one.
        expires_in: the time until the object is gone.
    """

    path: str
    content_type: str
    size: int
    etag: str
    last_modified: datetime
    expires_in: timedelta


class Storage:
    """Named objects that expire. A name is one path segment of letters, digits, dot, dash and underscore, and
    does not begin with a dot; its extension alone says the content type.

    Attributes:
        store: where the objects are; owned by this object.
        kept_for, temporary_for: age at which an object is gone, whether or not `sweep` came by.
        clock: the time, in UTC; ages are counted against the store's own time stamps.
    """

    def __init__(
        self,
        store: LocalStore | S3Store | GCSStore | AzureStore,
        *,
        kept_for: timedelta,
        temporary_for: timedelta,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._store = store
        self._lifetimes = {_KEPT: kept_for, _TEMPORARY: temporary_for}
        self._clock = clock

    async def put(self, name: str, data: bytes, content_type: str, *, temporary: bool = False) -> None:
        """Store under that name in a thread; see `write`."""
        await asyncio.to_thread(self.write, name, data, content_type, temporary=temporary)

    def write(self, name: str, data: bytes, content_type: str, *, temporary: bool = False) -> None:
        """Store under that name, replacing what is there; all of it or nothing. Blocking.

        Raises:
            ValueError: not a name, or ``content_type`` is not what the name's extension says.
            obstore.exceptions.BaseError, OSError: the store cannot be reached or is full.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name for stored objects")
        if content_type != content_type_of(name):
            raise ValueError(f"{name} would be served as {content_type_of(name)}, not as {content_type}")
        prefix = _TEMPORARY if temporary else _KEPT
        # A file system has no place for attributes; elsewhere they serve whoever reads the bucket directly.
        attributes = None if isinstance(self._store, LocalStore) else {"Content-Type": content_type}
        self._store.put(f"{prefix}/{name}", data, attributes=attributes)

    async def get(self, name: str) -> tuple[bytes, str]:
        """The bytes of an object and their content type.

        Raises:
            NotFound: no such object, or its time is over.
            obstore.exceptions.BaseError, OSError: the store cannot be reached.
        """
        file = await self.find(name)
        return await self.read(file, 0, file.size), file.content_type

    async def find(self, name: str) -> StoredFile:
        """The object of that name; `read` gives its bytes.

        Raises:
            NotFound: no such object, or its time is over.
            obstore.exceptions.BaseError, OSError: the store cannot be reached.
        """
        if _NAME.fullmatch(name):
            for prefix, lifetime in self._lifetimes.items():
                path = f"{prefix}/{name}"
                try:
                    found = await self._store.head_async(path)
                except FileNotFoundError:
                    continue
                if not self._expired(prefix, found["last_modified"]):
                    return StoredFile(
                        path=path,
                        content_type=content_type_of(name),
                        size=found["size"],
                        etag=_etag(found),
                        last_modified=found["last_modified"],
                        expires_in=lifetime - (self._clock() - found["last_modified"]),
                    )
        raise NotFound("File not found")

    async def read(self, file: StoredFile, start: int, end: int) -> bytes:
        """The bytes of an object from ``start`` to before ``end``; no others leave the store.

        Raises:
            NotFound: the object was removed meanwhile.
            obstore.exceptions.BaseError, OSError: the store cannot be reached.
        """
        if start == end:
            return b""
        try:
            return bytes(await self._store.get_range_async(file.path, start=start, end=end))
        except FileNotFoundError:
            raise NotFound("File not found") from None

    async def delete(self, name: str) -> None:
        """Remove the object; nothing happens when there is none."""
        if _NAME.fullmatch(name):
            for prefix in self._lifetimes:
                await self._remove([f"{prefix}/{name}"])

    async def sweep(self) -> int:
        """Remove every object whose time is over; return how many."""
        removed = 0
        for prefix in self._lifetimes:
            listed = self._store.list(prefix)  # pyright: ignore[reportUnknownMemberType]
            async for objects in listed:
                expired = [item["path"] for item in objects if self._expired(prefix, item["last_modified"])]
                if expired:
                    await self._remove(expired)
                removed += len(expired)
        return removed

    def _expired(self, prefix: str, last_modified: datetime) -> bool:
        return self._clock() - last_modified >= self._lifetimes[prefix]

    async def _remove(self, paths: list[str]) -> None:
        try:
            await self._store.delete_async(paths)
        except FileNotFoundError:
            # Another server that shares the store was faster; what this call left over, the next sweep finds.
            return


def _etag(found: ObjectMeta) -> str:
    # Stores disagree about the form of their own tags, and some have none.
    facts = (found["e_tag"], found["size"], found["last_modified"].timestamp())
    return f'"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}"'


def content_type_of(name: str) -> str:
    """The media type by which a stored object is served."""
    return CONTENT_TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream")


def open_storage(settings: Settings, *, clock: Callable[[], datetime] = now) -> Storage:
    """Open what ``settings.storage_url`` names; without one, the folder ``outputs`` in the data folder.

    Keys: ``storage_access_key`` and ``storage_secret_key`` are the key pair of S3, account name and key of
    Azure; Google takes its service-account JSON in ``storage_secret_key``. Where they are absent, each
    cloud's own environment variables and instance roles apply. Nothing is contacted yet.

    Raises:
        ValueError: a URL of another scheme.
        obstore.exceptions.BaseError: the URL or a key is malformed.
    """
    return Storage(
        _open_store(settings),
        kept_for=timedelta(seconds=settings.output_retention_s),
        temporary_for=timedelta(seconds=settings.temporary_retention_s),
        clock=clock,
    )


def _open_store(settings: Settings) -> LocalStore | S3Store | GCSStore | AzureStore:
    if settings.storage_url is None:
        return LocalStore(settings.data.absolute() / "outputs", mkdir=True)
    url, endpoint = settings.storage_url, settings.storage_endpoint
    access_key = settings.storage_access_key.get_secret_value() if settings.storage_access_key else None
    secret_key = settings.storage_secret_key.get_secret_value() if settings.storage_secret_key else None
    client: ClientConfig = {
        "allow_http": (endpoint or "").startswith("http://"),
        "connect_timeout": timedelta(seconds=5),
        "timeout": timedelta(seconds=60),
    }
    # The caller is waiting for the answer: better an error soon than obstore's three minutes.
    retry: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
    match urlsplit(url).scheme:
        case "s3":
            given = _given(endpoint=endpoint, access_key_id=access_key, secret_access_key=secret_key)
            s3 = cast("S3Config", given | {"region": settings.storage_region})
            return S3Store.from_url(url, config=s3, client_options=client, retry_config=retry)
        case "gs":
            gcs = cast("GCSConfig", _given(base_url=endpoint, service_account_key=secret_key))
            return GCSStore.from_url(url, config=gcs, client_options=client, retry_config=retry)
        case "az":
            given = _given(endpoint=endpoint, account_name=access_key, account_key=secret_key)
            azure = cast("AzureConfig", given)
            return AzureStore.from_url(url, config=azure, client_options=client, retry_config=retry)
        case scheme:
            raise ValueError(f"UNDERSTUDY_STORAGE_URL must begin with s3://, gs:// or az://, not {scheme}://")


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}
