"""`understudy webhooks`, as an operator types it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.__main__ import main
from server.accounts.accounts import Accounts
from server.database.database import Database, database_url
from server.settings import Settings
from server.webhooks.outbox import Webhook, Webhooks, WebhookStatus
from server.webhooks.secret import webhook_secret

URL = "https://receiver.example/done"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database in the folder has a delivered, a given up and a pending webhook, in this order."""
    for name in ("DATABASE_URL", "WEBHOOK_SECRET"):
        monkeypatch.delenv(f"UNDERSTUDY_{name}", raising=False)
    monkeypatch.setenv("UNDERSTUDY_DATA", str(tmp_path / "data"))

    async def fill() -> None:
        database = Database(database_url(Settings()))
        await database.migrate()
        account = await Accounts(database).create("ada")
        outbox = Webhooks(database)
        for topic in ("job 1", "job 2", "job 3"):
            await outbox.enqueue(account.id, URL, {}, topic=topic)
        delivered, failed, pending = await outbox.all()
        await outbox.mark_delivered(delivered, datetime.now(UTC))
        await outbox.give_up(failed, "the receiver answered 500", datetime.now(UTC))
        await outbox.postpone(pending, "it took too long", datetime.now(UTC) + timedelta(hours=5))
        await database.close()

    asyncio.run(fill())


def outbox() -> list[Webhook]:
    async def look() -> list[Webhook]:
        database = Database(database_url(Settings()))
        try:
            return await Webhooks(database).all()
        finally:
            await database.close()

    return asyncio.run(look())


def understudy(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], str]:
    """Exit status, printed lines, complaints."""
    status = main(["webhooks", *arguments])
    printed, complaints = capsys.readouterr()
    return status, printed.splitlines(), complaints


def test_the_list_says_what_became_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines, _ = understudy(capsys, "list")
    assert status == 0
    heading, *lines = lines
    assert heading.split() == ["ID", "STATE", "ATTEMPTS", "WHEN", "TOPIC", "URL", "PROBLEM"]
    assert [line.split()[:2] for line in lines] == [["1", "delivered"], ["2", "failed"], ["3", "pending"]]
    assert all(URL in line for line in lines)
    assert "the receiver answered 500" in lines[1]
    assert f"next {outbox()[2].due_at:%Y-%m-%d %H:%M}" in lines[2]
    assert "job 3" in lines[2]


@pytest.mark.parametrize(("option", "id"), [("--failed", "2"), ("--pending", "3")])
def test_a_list_can_be_of_one_kind(capsys: pytest.CaptureFixture[str], option: str, id: str) -> None:
    _, lines, _ = understudy(capsys, "list", option)
    assert [line.split()[0] for line in lines[1:]] == [id]


def test_a_retry_makes_what_was_given_up_or_delivered_due_now(capsys: pytest.CaptureFixture[str]) -> None:
    assert understudy(capsys, "retry", "1", "2")[0] == 0
    for webhook in outbox()[:2]:
        assert (webhook.status, webhook.attempts) == (WebhookStatus.pending, 0)
        assert webhook.due_at
        assert webhook.due_at <= datetime.now(UTC)


def test_a_number_that_is_none_of_theirs_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = outbox()
    status, lines, complaints = understudy(capsys, "retry", "2", "4711")
    assert (status, lines, complaints) == (2, [], "There is no webhook 4711\n")
    assert outbox() == before


def test_the_secret_is_the_one_that_the_server_signs_with(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines, _ = understudy(capsys, "secret")
    assert (status, lines) == (0, [webhook_secret(Settings())])


def test_an_unreadable_secret_is_told_in_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDERSTUDY_WEBHOOK_SECRET", "guessable")
    status, lines, complaints = understudy(capsys, "secret")
    assert (status, lines) == (2, [])
    assert "24 to 64 bytes" in complaints
    assert "guessable" not in complaints
