"""The command line works while a server works with the same database."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from server.accounts.accounts import Account, Accounts
from server.accounts.credits import Credits
from server.database.database import Database, database_url
from server.settings import Settings


def test_the_command_line_works_beside_a_busy_server(tmp_path: Path) -> None:
    environment = os.environ | {"UNDERSTUDY_DATA": str(tmp_path)}
    environment.pop("UNDERSTUDY_DATABASE_URL", None)
    command = [sys.executable, "-m", "server", "keys", "create", "--account", "ada", "--credits", "5"]

    async def serve() -> tuple[Account, int]:
        database = Database(database_url(Settings(data=tmp_path)))
        await database.migrate()
        server = await Accounts(database).create("server")
        creating = asyncio.create_task(
            asyncio.to_thread(
                subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60
            )
        )
        writes = 0
        while not creating.done():
            await Credits(database).grant(server.id, 1)
            writes += 1
        created = await creating
        assert created.returncode == 0, created.stderr
        try:
            assert await Credits(database).balance(server.id) == writes
            return await Accounts(database).authenticate(created.stdout.strip()), writes
        finally:
            await database.close()

    account, writes = asyncio.run(serve())
    assert (account.name, account.balance) == ("ada", 5000)
    assert writes > 0
