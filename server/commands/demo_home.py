"""The demo's own folder: its settings, its account and its one API key, apart from those of `serve`."""

from __future__ import annotations

import os
import secrets
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from server import errors
from server.accounts.accounts import Accounts
from server.accounts.credits import Credits
from server.commands.configuration import FILE, read_settings, variable
from server.database.database import Database, database_url
from server.settings import Settings

FOLDER = "demo"
"""The demo's folder below the data folder. `serve` reads nothing of it."""

KEY_FILE = "api-key"
ACCOUNT = "demo"
CREDITS_MILLI = 1_000_000
_LABEL = "demo"

OF_THE_MACHINE = frozenset(
    {
        "host",
        "port",
        "devices",
        "torch_threads",
        "memory_budget_gb",
        "host_memory_gb",
        "group_megapixels",
        "engine_silence_s",
        "load_stalled_s",
    }
)
"""The settings that the demo takes from the environment: those of the machine. Database, storage, manifest,
secrets, prices and whatever else is the real server's are left to it."""

_QUIET = {"DIFFUSERS_VERBOSITY": "error", "TORCH_LOGS": "-torch.utils._pytree"}
"""What keeps the libraries' warnings about each other out of what the demo shows."""


def demo_settings(environment: MutableMapping[str, str] = os.environ, **given: object) -> Settings:
    """The settings of the demo's server, in its own folder below the data folder.

    Args:
        environment: the environment of this process, which forgets the real server's settings, so that no
            process that the demo starts finds them either.
        given: what the command's options say; None: they do not say it.
    Raises:
        CommandFailed: a variable is no setting, or a setting of the machine cannot be what it is.
    """
    theirs = {variable(name) for name in Settings.model_fields.keys() - OF_THE_MACHINE - {"data"}}
    for name in [*environment]:
        if name.upper().removesuffix(FILE) in theirs:
            del environment[name]
    for name, value in _QUIET.items():
        environment.setdefault(name, value)
    settings = read_settings(environment, **given)
    home = settings.data / FOLDER
    # Nothing is loaded beforehand: the first picture is drawn while other checkpoints are still being built.
    own = {"data": home, "weights": home / "weights", "preload": False, "log_level": "warning"}
    return settings.model_copy(update=own)


async def demo_key(settings: Settings) -> str:
    """The API key of the demo's account, the same one at each start; account and credits are seen to.

    The account is no administrator's. One of these keys that was lost is revoked when a new one is made.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    database = Database(database_url(settings))
    try:
        await database.migrate()
        accounts = Accounts(database)
        account = await accounts.find(ACCOUNT) or await accounts.create(ACCOUNT)
        if account.balance < CREDITS_MILLI:
            await Credits(database).grant(account.id, CREDITS_MILLI - account.balance, "demo")
        kept = settings.data / KEY_FILE
        with suppress(FileNotFoundError, errors.InvalidKey, UnicodeDecodeError):
            api_key = kept.read_text().strip()
            if (await accounts.authenticate(api_key)).id == account.id:
                kept.chmod(0o600)
                return api_key
        for row in await accounts.keys():
            if row.account == ACCOUNT and row.label == _LABEL and row.revoked_at is None:
                await accounts.revoke_key(row.id)
        api_key = await accounts.create_key(account.id, _LABEL)
        _keep(kept, api_key)
        return api_key
    finally:
        await database.close()


def _keep(path: Path, api_key: str) -> None:
    """Write the key, whole or not at all, so that nobody but the owner reads it."""
    draft = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{api_key}\n")
    draft.replace(path)
