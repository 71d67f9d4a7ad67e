"""The secret that webhooks are signed with: configured, or made once and kept in the data folder."""

from __future__ import annotations

import base64
import os
import secrets
from contextlib import suppress
from pathlib import Path

from server.settings import Settings, readable_secret

_FILE = "webhook-secret"
_BYTES = 32


def webhook_secret(settings: Settings) -> str:
    """The signing secret as the Standard Webhooks libraries take it: ``whsec_`` and base64.

    Raises:
        ValueError: the file in the data folder holds something else.
    """
    if settings.webhook_secret is not None:
        return settings.webhook_secret.get_secret_value()
    kept = settings.data / _FILE
    if not kept.exists():
        _create(kept)
    return readable_secret(kept.read_text().strip())


def _create(path: Path) -> None:
    """Write a new secret, whole or not at all; of two processes the second one finds the first one's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{_FILE}-{secrets.token_hex(8)}")
    secret = base64.b64encode(secrets.token_bytes(_BYTES)).decode()
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"whsec_{secret}\n")
    try:
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
