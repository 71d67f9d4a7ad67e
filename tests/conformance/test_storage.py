"""One suite for every place where outputs can live."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from server.errors import NotFound
from server.settings import Settings
from server.storage import Storage, open_storage

DAY = 86400.0


class Clock:
    """The time, ahead of the real one by as much as a test wants."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3", "s3 with a prefix"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if request.param == "folder":
        return Settings(data=tmp_path / "not" / "there" / "yet")
    endpoint = request.getfixturevalue("s3_endpoint")
    bucket = f"pictures-{tmp_path.name.replace('_', '-').lower()}"[:60].rstrip("-")
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="someone",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket=bucket)
    return Settings(
        data=tmp_path,
        storage_url=f"s3://{bucket}" + ("/understudy/outputs" if "prefix" in request.param else ""),
        storage_endpoint=endpoint,
        storage_access_key=SecretStr("someone"),
        storage_secret_key=SecretStr("secret"),
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(settings: Settings, clock: Clock) -> Storage:
    return open_storage(settings, clock=clock)


async def present(storage: Storage, *names: str) -> list[str]:
    found: list[str] = []
    for name in names:
        try:
            await storage.get(name)
        except NotFound:
            continue
        found.append(name)
    return found


def test_what_was_put_is_got_with_its_content_type(storage: Storage) -> None:
    async def scenario() -> None:
        files = {
            "a-0.png": (b"\x89PNG", "image/png"),
            "a-1.jpg": (b"\xff\xd8", "image/jpeg"),
            "a-2.jpeg": (b"\xff\xd8", "image/jpeg"),
            "A_3.webp": (b"RIFF", "image/webp"),
            "a-4.base64": (b"aGFsbG8=", "text/plain"),
            "noextension": (b"\0" * 3_000_000, "application/octet-stream"),
            "page.html": (b"<script>", "application/octet-stream"),
            "empty.png": (b"", "image/png"),
        }
        await asyncio.gather(*(storage.put(name, *file) for name, file in files.items()))
        assert {name: await storage.get(name) for name in files} == files

    asyncio.run(scenario())


def test_the_data_is_really_bytes(storage: Storage) -> None:
    async def scenario() -> None:
        await storage.put("a.png", b"abc", "image/png")
        assert type((await storage.get("a.png"))[0]) is bytes

    asyncio.run(scenario())


def test_putting_again_replaces(storage: Storage) -> None:
    async def scenario() -> None:
        await storage.put("a.png", b"a longer first one", "image/png")
        await storage.put("a.png", b"second", "image/png")
        assert await storage.get("a.png") == (b"second", "image/png")

    asyncio.run(scenario())


def test_a_name_that_was_never_put_is_not_found(storage: Storage) -> None:
    with pytest.raises(NotFound, match="File not found"):
        asyncio.run(storage.get("nothing.png"))


BAD_NAMES = ["", ".", "..", "../a.png", "a/b.png", "/etc/passwd", ".hidden", "a\\b.png", "a b.png", "ä.png"]
BAD_NAMES += ["kept/a.png", "%2e%2e", "a.png\n", "a\0.png", "x" * 201, "~root", "a:b.png"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_not_one_path_segment_reaches_nothing(storage: Storage, name: str) -> None:
    async def scenario() -> None:
        await storage.put("a.png", b"abc", "image/png")
        with pytest.raises(ValueError, match="not a name"):
            await storage.put(name, b"abc", "image/png")
        with pytest.raises(NotFound):
            await storage.get(name)
        await storage.delete(name)
        assert await present(storage, "a.png") == ["a.png"]

    asyncio.run(scenario())


def test_a_content_type_that_would_be_served_differently_is_refused(storage: Storage) -> None:
    with pytest.raises(ValueError, match=r"a\.png would be served as image/png, not as image/jpeg"):
        asyncio.run(storage.put("a.png", b"abc", "image/jpeg"))


def test_what_was_deleted_is_gone_and_can_be_deleted_again(storage: Storage) -> None:
    async def scenario() -> None:
        await storage.put("a.png", b"abc", "image/png")
        await storage.put("b.png", b"abc", "image/png", temporary=True)
        for name in ("a.png", "b.png", "a.png", "never.png"):
            await storage.delete(name)
        assert await present(storage, "a.png", "b.png") == []

    asyncio.run(scenario())


@pytest.mark.parametrize(("temporary", "lifetime"), [(False, 7 * DAY), (True, DAY)])
def test_an_expired_object_is_not_served_even_before_the_sweep(
    storage: Storage, clock: Clock, temporary: bool, lifetime: float
) -> None:
    async def scenario() -> None:
        await storage.put("a.png", b"abc", "image/png", temporary=temporary)
        clock.ahead = timedelta(seconds=lifetime - 60)
        assert await present(storage, "a.png") == ["a.png"]
        clock.ahead = timedelta(seconds=lifetime + 60)
        assert await present(storage, "a.png") == []
        clock.ahead = timedelta()
        assert await present(storage, "a.png") == ["a.png"]

    asyncio.run(scenario())


def test_the_sweep_removes_what_is_too_old_and_nothing_else(storage: Storage, clock: Clock) -> None:
    async def scenario() -> None:
        assert await storage.sweep() == 0
        await storage.put("kept.png", b"abc", "image/png")
        for name in ("temporary-0.png", "temporary-1.base64"):
            await storage.put(name, b"abc", content_type(name), temporary=True)
        assert await storage.sweep() == 0

        clock.ahead = timedelta(seconds=DAY + 60)
        assert await storage.sweep() == 2
        assert await storage.sweep() == 0
        clock.ahead = timedelta()
        assert await present(storage, "kept.png", "temporary-0.png", "temporary-1.base64") == ["kept.png"]

        clock.ahead = timedelta(seconds=7 * DAY + 60)
        assert await storage.sweep() == 1
        clock.ahead = timedelta()
        assert await present(storage, "kept.png") == []

    asyncio.run(scenario())


def content_type(name: str) -> str:
    return "image/png" if name.endswith("png") else "text/plain"


def test_a_sweep_goes_through_more_objects_than_one_listing_holds(tmp_path: Path, clock: Clock) -> None:
    storage = open_storage(Settings(data=tmp_path), clock=clock)

    async def scenario() -> None:
        await asyncio.gather(*(storage.put(f"{n}.png", b"a", "image/png") for n in range(1200)))
        clock.ahead = timedelta(days=8)
        assert await storage.sweep() == 1200
        assert await storage.sweep() == 0

    asyncio.run(scenario())


def test_two_servers_may_sweep_one_store_at_the_same_time(settings: Settings, clock: Clock) -> None:
    async def scenario() -> None:
        servers = [open_storage(settings, clock=clock) for _ in range(2)]
        await asyncio.gather(*(servers[0].put(f"{n}.png", b"a", "image/png") for n in range(30)))
        clock.ahead = timedelta(days=8)
        await asyncio.gather(*(server.sweep() for server in servers))
        while await servers[0].sweep():
            pass
        clock.ahead = timedelta()
        assert await present(servers[0], *(f"{n}.png" for n in range(30))) == []

    asyncio.run(scenario())


def test_another_server_on_the_same_settings_finds_the_objects(settings: Settings) -> None:
    async def scenario() -> None:
        await open_storage(settings).put("a.png", b"abc", "image/png", temporary=True)
        assert await open_storage(settings).get("a.png") == (b"abc", "image/png")

    asyncio.run(scenario())


def test_a_folder_keeps_the_objects_under_the_data_folder(tmp_path: Path) -> None:
    storage = open_storage(Settings(data=tmp_path))
    asyncio.run(storage.put("a.png", b"abc", "image/png"))
    assert (tmp_path / "outputs" / "kept" / "a.png").read_bytes() == b"abc"


def test_a_relative_data_folder_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = open_storage(Settings(data=Path("state")))
    asyncio.run(storage.put("a.png", b"abc", "image/png"))
    assert os.listdir("state/outputs/kept") == ["a.png"]


@pytest.mark.parametrize("url", ["gs://bucket/prefix", "az://container/prefix"])
def test_the_other_clouds_open_by_url_without_being_contacted(url: str) -> None:
    key = "c2VjcmV0" if url.startswith("az") else None
    settings = Settings(
        storage_url=url,
        storage_access_key=SecretStr("account"),
        storage_secret_key=SecretStr(key) if key else None,
    )
    assert isinstance(open_storage(settings), Storage)


@pytest.mark.parametrize("url", ["ftp://somewhere/x", "bucket", "http://127.0.0.1/bucket"])
def test_an_unknown_kind_of_store_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="does not begin with s3://, gs:// or az:// and a bucket"):
        open_storage(Settings(storage_url=url))


def test_a_store_that_is_down_is_an_error_within_seconds_and_not_a_missing_file(
    unused_port: int, tmp_path: Path
) -> None:
    storage = open_storage(
        Settings(
            data=tmp_path,
            storage_url="s3://bucket",
            storage_endpoint=f"http://127.0.0.1:{unused_port}",
            storage_access_key=SecretStr("someone"),
            storage_secret_key=SecretStr("secret"),
        )
    )

    async def scenario() -> None:
        async with asyncio.timeout(20):
            with pytest.raises(Exception, match=r"127\.0\.0\.1") as caught:
                await storage.get("a.png")
            assert not isinstance(caught.value, NotFound)

    asyncio.run(scenario())


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_part_of_an_object_is_read_without_the_rest(storage: Storage) -> None:
    async def scenario() -> None:
        await storage.put("a.png", b"0123456789", "image/png")
        file = await storage.find("a.png")
        assert (file.size, file.content_type) == (10, "image/png")
        assert await storage.read(file, 2, 5) == b"234"
        assert await storage.read(file, 9, 10) == b"9"
        assert await storage.read(file, 4, 4) == b""
        await storage.delete("a.png")
        with pytest.raises(NotFound):
            await storage.read(file, 2, 5)

    asyncio.run(scenario())


def test_other_bytes_under_a_name_have_another_tag(storage: Storage) -> None:
    async def scenario() -> None:
        await storage.put("a.png", b"first", "image/png")
        first, again = await storage.find("a.png"), await storage.find("a.png")
        await storage.put("a.png", b"second", "image/png")
        assert first.etag == again.etag != (await storage.find("a.png")).etag

    asyncio.run(scenario())


@pytest.mark.parametrize(("temporary", "lifetime"), [(False, 7 * DAY), (True, DAY)])
def test_an_object_says_how_long_it_will_be_there(
    storage: Storage, clock: Clock, temporary: bool, lifetime: float
) -> None:
    async def scenario() -> None:
        await storage.put("a.png", b"abc", "image/png", temporary=temporary)
        clock.ahead = timedelta(seconds=lifetime / 2)
        left = (await storage.find("a.png")).expires_in.total_seconds()
        assert lifetime / 2 - 60 < left <= lifetime / 2

    asyncio.run(scenario())
