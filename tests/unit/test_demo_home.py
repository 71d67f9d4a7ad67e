"""The demo's folder: nothing of the real server's in it, and nothing of it valid on the real server."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from server import errors
from server.accounts.accounts import Account, Accounts
from server.commands import demo_home
from server.commands.demo_home import CREDITS_MILLI, KEY_FILE, demo_key, demo_settings
from server.commands.failure import CommandFailed
from server.database.database import Database, database_url
from server.settings import Settings
from server.storage import open_storage
from server.webhooks.secret import webhook_secret

OF_THE_REAL_SERVER = {
    "DATABASE_URL": "postgresql+asyncpg://real.example/understudy",
    "STORAGE_URL": "s3://real-bucket/pictures",
    "STORAGE_ENDPOINT": "https://store.example",
    "STORAGE_REGION": "eu-central-1",
    "STORAGE_ACCESS_KEY": "access",
    "STORAGE_SECRET_KEY": "secret",
    "MANIFEST": "/srv/weights.yaml",
    "WEIGHTS": "/srv/weights",
    "PUBLIC_URL": "https://pictures.example",
    "WEBHOOK_SECRET": "whsec_" + "A" * 40,
    "AUTH": "open",
    "PRICES_MILLICREDITS": '{"kolors": 1000000000}',
    "ENTERPRISE_ERRORS": "standard",
    "OUTPUT_RETENTION_S": "1",
    "QUEUE_LIMIT": "1",
    "FETCH_ALLOWED_HOSTS": '["10.0.0.0/8"]',
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNDERSTUDY_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("UNDERSTUDY_DATABASE_URL", raising=False)
    return tmp_path / "data"


def account_of(settings: Settings, api_key: str) -> Account:
    async def authenticate() -> Account:
        database = Database(database_url(settings))
        try:
            await database.migrate()
            return await Accounts(database).authenticate(api_key)
        finally:
            await database.close()

    return asyncio.run(authenticate())


def test_no_setting_of_the_real_server_reaches_the_demo(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = demo_settings()
    for name, value in OF_THE_REAL_SERVER.items():
        monkeypatch.setenv(f"UNDERSTUDY_{name}", value)
    real = Settings()
    for name in OF_THE_REAL_SERVER:
        assert getattr(real, name.lower()) != getattr(plain, name.lower()), name
    assert demo_settings().model_dump() == plain.model_dump()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UNDERSTUDY_PRICES_MILLICREDITS", "no JSON"),
        ("UNDERSTUDY_DATABASE_URL", "no database"),
        ("UNDERSTUDY_DATABASE_URL_FILE", "/nowhere/secret"),
        ("understudy_webhook_secret", "no secret"),
    ],
)
def test_what_is_wrong_with_a_setting_of_the_real_server_does_not_matter(
    data: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    plain = demo_settings()
    monkeypatch.setenv(name, value)
    assert demo_settings() == plain
    assert name not in os.environ


def test_a_variable_that_is_no_setting_is_refused_all_the_same(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDERSTUDY_DATABASE", "x")
    with pytest.raises(CommandFailed, match="is no setting"):
        demo_settings()


def test_every_setting_that_names_something_of_the_servers_own_is_left_out() -> None:
    of_the_machine = {name.upper() for name in demo_home.OF_THE_MACHINE}
    assert not of_the_machine & OF_THE_REAL_SERVER.keys()
    assert Settings.model_fields.keys() >= demo_home.OF_THE_MACHINE


def test_the_settings_of_the_machine_reach_the_demo(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_HOST", "0.0.0.0")
    monkeypatch.setenv("UNDERSTUDY_PORT", "9000")
    monkeypatch.setenv("UNDERSTUDY_DEVICES", "cpu")
    monkeypatch.setenv("UNDERSTUDY_TORCH_THREADS", "2")
    settings = demo_settings()
    assert (settings.host, settings.port, settings.devices, settings.torch_threads) == (
        "0.0.0.0",
        9000,
        "cpu",
        2,
    )
    assert demo_settings(port=9001).port == 9001


def test_everything_of_the_demo_lies_in_its_own_folder(data: Path) -> None:
    settings = demo_settings()
    assert settings.data == data / "demo"
    assert str(data / "demo" / "understudy.db") in str(database_url(settings))
    assert settings.weights.is_relative_to(data / "demo")
    assert webhook_secret(settings)
    open_storage(settings)
    asyncio.run(demo_key(settings))
    assert {path.name for path in data.iterdir()} == {"demo"}


def test_the_key_is_the_same_at_each_start_and_only_its_owner_reads_it(data: Path) -> None:
    settings = demo_settings()
    first = asyncio.run(demo_key(settings))
    kept = settings.data / KEY_FILE
    assert kept.read_text() == f"{first}\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    kept.chmod(0o644)
    assert asyncio.run(demo_key(settings)) == first
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_the_key_is_no_administrators(data: Path) -> None:
    account = account_of(demo_settings(), asyncio.run(demo_key(demo_settings())))
    assert (account.name, account.is_administrator) == ("demo", False)
    assert account.balance >= CREDITS_MILLI


@pytest.mark.parametrize("left", [None, b"", b"us-of-another-database", b"\xff\xfe"])
def test_a_key_that_was_lost_is_replaced_and_no_longer_valid(data: Path, left: bytes | None) -> None:
    settings = demo_settings()
    lost = asyncio.run(demo_key(settings))
    kept = settings.data / KEY_FILE
    kept.unlink() if left is None else kept.write_bytes(left)
    new = asyncio.run(demo_key(settings))
    assert account_of(settings, new).name == "demo"
    with pytest.raises(errors.InvalidKey):
        account_of(settings, lost)
    assert asyncio.run(demo_key(settings)) == new


def test_what_the_demo_made_is_not_valid_on_a_server_in_the_same_data_folder(data: Path) -> None:
    api_key = asyncio.run(demo_key(demo_settings()))
    demo_secret = webhook_secret(demo_settings())
    with pytest.raises(errors.InvalidKey):
        account_of(Settings(), api_key)
    assert webhook_secret(Settings()) != demo_secret
