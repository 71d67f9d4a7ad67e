"""The settings of a server, from its environment: where it runs. Frozen, read once."""

from __future__ import annotations

import base64
import binascii
import json
import re
from pathlib import Path
from typing import Annotated, Literal, cast
from urllib.parse import urlsplit

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SECRETS = ("database_url", "storage_access_key", "storage_secret_key", "webhook_secret")
"""The settings that are never shown, and that a file may hold in place of the environment."""

STORES = frozenset({"s3", "gs", "az"})
"""The schemes of the stores that outputs can be in."""

DEVICE = re.compile(r"[a-z]+(:\d+)?")
"""The name of a torch device."""


class Settings(BaseSettings):
    """The settings, each from ``UNDERSTUDY_<NAME>``. The defaults need one machine and nothing else."""

    model_config = SettingsConfigDict(
        env_prefix="UNDERSTUDY_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
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
    output_retention_s: PositiveFloat = 7 * 86400
    temporary_retention_s: PositiveFloat = 86400

    manifest: Path = Path("weights.yaml")
    """The file that says what can be drawn."""
    weights: Path = Path("weights")
    """The folder of downloaded checkpoints and their lock."""
    devices: str = "auto"
    """The devices to draw on: ``auto`` (all CUDA devices, else the CPU) or a comma list of torch devices."""
    memory_budget_gb: PositiveFloat | None = None
    """The most gigabytes of weights on a device; None: what activations leave of it, 8 on a CPU."""
    host_memory_gb: NonNegativeFloat = 16.0
    """The most gigabytes of weights that wait in host memory per engine; unused on a CPU."""
    group_megapixels: PositiveFloat | None = None
    """The megapixels drawn at the same time per engine; None: 16 on CUDA, 4 on a CPU."""
    engine_silence_s: PositiveFloat = 600.0
    """The seconds of silence after which an engine process that has work is killed and started again."""
    torch_threads: PositiveInt | None = None
    max_load_gb: PositiveFloat = 20.0
    """The most gigabytes that `load_model` downloads for one model."""
    load_stalled_s: PositiveFloat = 60.0
    """The seconds for which a download from a URL may bring nothing before it is given up."""
    preload: bool = True
    """Whether an engine loads the manifest's resident pipelines before it says that it is ready."""

    auth: Literal["keys", "open"] = "keys"
    """The way callers are known; ``open`` is for a trusted network: any key, nothing charged."""
    prices_millicredits: dict[str, NonNegativeInt] = Field(default_factory=dict)
    """The base price per endpoint in thousandths of a credit, overriding the ones beside each endpoint."""
    queue_limit: PositiveInt = 1000
    """The most requests that wait on the whole server; the next one is answered 429."""
    queue_limit_per_account: PositiveInt = 200
    queue_timeout_s: PositiveFloat = 600.0
    """The seconds for which a request may wait before it fails."""
    sync_wait_s: NonNegativeFloat = 60.0
    """The seconds for which a call of enterprise waits before it answers ``processing``."""
    enterprise_errors: Literal["legacy", "standard"] = "legacy"
    """The statuses of enterprise's errors. ``legacy``: 200, as documented; ``standard``: 4xx and 5xx."""

    max_body_mb: PositiveFloat = 32.0
    max_image_mb: PositiveFloat = 20.0
    max_image_megapixels: PositiveFloat = 50.0
    fetch_timeout_s: PositiveFloat = 15.0
    """The seconds for fetching a picture from a caller's URL, redirects included."""
    fetch_allowed_hosts: Annotated[frozenset[str], NoDecode] = frozenset()
    """The private hosts (names, addresses or networks) that callers' URLs may name all the same, of pictures
    and of webhooks; a comma list or JSON."""
    webhook_secret: SecretStr | None = None
    """The secret that signs webhooks: ``whsec_`` and base64 of 24 to 64 bytes; None: made in ``data``."""
    png_metadata: bool = True
    """Whether the generation parameters are written into PNGs."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def base_price(self, name: str, default: int) -> int:
        """The base price of an endpoint in millicredits: the operator's, or the one beside the endpoint."""
        return self.prices_millicredits.get(name, default)

    @field_validator("public_url", "storage_endpoint")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is not None and not _is_address(url):
            raise ValueError(f"{url} is not like https://pictures.example.com")
        return url

    @field_validator("storage_url")
    @classmethod
    def _is_a_bucket(cls, url: str | None) -> str | None:
        if url is not None and (urlsplit(url).scheme not in STORES or not urlsplit(url).netloc):
            raise ValueError(f"{url} does not begin with s3://, gs:// or az:// and a bucket")
        return url

    @field_validator("devices")
    @classmethod
    def _are_devices(cls, devices: str) -> str:
        names = [name.strip() for name in devices.split(",") if name.strip()]
        wrong = [name for name in names if not DEVICE.fullmatch(name) and names != ["auto"]]
        if wrong or not names:
            raise ValueError(
                f"{', '.join(wrong) or 'nothing'} is no device; write auto, cpu, cuda:0 or a comma list"
            )
        return devices

    @field_validator("fetch_allowed_hosts", mode="before")
    @classmethod
    def _listed(cls, hosts: object) -> object:
        """The hosts of a comma list, which is what people write, or of JSON."""
        if not isinstance(hosts, str):
            return hosts
        if not hosts.strip().startswith("["):
            return frozenset(host.strip() for host in hosts.split(",") if host.strip())
        try:
            return cast(object, json.loads(hosts))
        except ValueError:
            raise ValueError(f"{hosts} is no JSON; a comma list is enough") from None

    @field_validator("webhook_secret")
    @classmethod
    def _is_readable(cls, secret: SecretStr | None) -> SecretStr | None:
        return secret and SecretStr(readable_secret(secret.get_secret_value()))


def _is_address(url: str) -> bool:
    """Whether a URL is one of HTTP with a host and, if any, a port that exists."""
    try:
        parsed = urlsplit(url)
        return parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        return False


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
