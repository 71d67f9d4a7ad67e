"""The settings of a server, from its environment: where it runs. Frozen, read once."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The settings, each from ``UNDERSTUDY_<NAME>``. The defaults need one machine and nothing else."""

    model_config = SettingsConfigDict(
        env_prefix="UNDERSTUDY_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(default=8000, ge=1, le=65535)
    public_url: str | None = None
    """The URL by which clients reach this server, for output URLs; None: each request's Host header."""

    data: Path = Path("understudy-data")
    """The folder for the database, outputs and small checkpoints."""
    database_url: str | None = None
    """The SQLAlchemy URL of the database (``postgresql+asyncpg://...``); None: SQLite in the data folder."""
    storage_url: str | None = None
    """The URL of the storage (``s3://bucket/prefix``, ``gs://``, ``az://``); None: a folder in ``data``."""
    storage_endpoint: str | None = None
    """The endpoint of an S3-compatible store."""
    storage_access_key: SecretStr | None = None
    storage_secret_key: SecretStr | None = None
    storage_region: str = "us-east-1"
    output_retention_s: float = 7 * 86400
    temporary_retention_s: float = 86400

    manifest: Path = Path("weights.yaml")
    """The file that says what can be drawn."""
    weights: Path = Path("weights")
    """The folder of downloaded checkpoints and their lock."""
    devices: str = "auto"
    """The devices to draw on: ``auto`` (all CUDA devices, else the CPU) or a comma list of torch devices."""
    memory_budget_gb: float | None = None
    """The most gigabytes of resident weights per engine; None: what the CUDA device has, 8 on a CPU."""
    host_memory_gb: float = 16.0
    """The most gigabytes of evicted weights kept in host memory per engine; unused on a CPU."""
    group_megapixels: float | None = None
    """The megapixels drawn at the same time per engine; None: 16 on CUDA, 4 on a CPU."""
    engine_silence_s: float = Field(default=600.0, gt=0)
    """The seconds of silence after which an engine process that has work is killed and started again."""
    torch_threads: int | None = None
    max_load_gb: float = 20.0
    """The most gigabytes that `load_model` downloads for one model."""
    load_stalled_s: float = Field(default=60.0, gt=0)
    """The seconds for which a download from a URL may bring nothing before it is given up."""
    preload: bool = True
    """Whether an engine loads the manifest's resident pipelines before it says that it is ready."""

    auth: Literal["keys", "open"] = "keys"
    """The way callers are known; ``open`` is for a trusted network: any key, nothing charged."""
    prices_millicredits: dict[str, int] = Field(default_factory=dict)
    """The base price per endpoint in thousandths of a credit, overriding the ones beside each endpoint."""
    queue_limit: int = 1000
    """The most requests that wait on the whole server; the next one is answered 429."""
    queue_limit_per_account: int = 200
    queue_timeout_s: float = 600.0
    """The seconds for which a request may wait before it fails."""
    sync_wait_s: float = 60.0
    """The seconds for which a call of enterprise waits before it answers ``processing``."""
    enterprise_errors: Literal["legacy", "standard"] = "legacy"
    """The statuses of enterprise's errors. ``legacy``: 200, as documented; ``standard``: 4xx and 5xx."""

    max_body_mb: float = 32.0
    max_image_mb: float = 20.0
    max_image_megapixels: float = 50.0
    fetch_timeout_s: float = 15.0
    """The seconds for fetching a picture from a caller's URL, redirects included."""
    fetch_allowed_hosts: frozenset[str] = frozenset()
    """The private hosts (names, addresses or networks) that callers' URLs may name all the same, of pictures
    and of webhooks."""
    webhook_secret: SecretStr | None = None
    """The secret that signs webhooks: ``whsec_`` and base64 of 24 to 64 bytes; None: made in ``data``."""
    png_metadata: bool = True
    """Whether the generation parameters are written into PNGs."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def base_price(self, name: str, default: int) -> int:
        """The base price of an endpoint in millicredits: the operator's, or the one beside the endpoint."""
        return self.prices_millicredits.get(name, default)

    @field_validator("webhook_secret")
    @classmethod
    def _is_readable(cls, secret: SecretStr | None) -> SecretStr | None:
        return secret and SecretStr(readable_secret(secret.get_secret_value()))


def readable_secret(text: str) -> str:
    """The text, when it is a signing secret of the Standard Webhooks specification.

    Raises:
        ValueError
    """
    try:
        length = len(base64.b64decode(text.removeprefix("whsec_"), validate=True))
    except (binascii.Error, ValueError):
        length = 0
    if not text.startswith("whsec_") or not 24 <= length <= 64:
        raise ValueError("a webhook secret is whsec_ and the base64 of 24 to 64 bytes")
    return text
