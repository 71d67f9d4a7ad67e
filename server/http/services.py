"""The services of the running server, as endpoints reach them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from fastapi import Request

from pipelines.weights.manifest import Manifest
from server.accounts.accounts import Accounts
from server.accounts.credits import Credits
from server.engines.dispatch import Dispatch
from server.loading.catalogue import Catalogue
from server.loading.loads import Loads
from server.metrics import Metrics
from server.outside.public_http import PublicHTTP
from server.outside.remote_images import RemoteImages
from server.settings import Settings
from server.storage import Storage
from server.studio import Studio
from server.webhooks.outbox import Webhooks


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts of the server that endpoints reach; built once by the composition root."""

    settings: Settings
    accounts: Accounts
    credits: Credits
    studio: Studio
    storage: Storage
    images: RemoteImages
    catalogue: Catalogue
    loads: Loads
    dispatch: Dispatch
    metrics: Metrics
    public_http: PublicHTTP
    webhooks: Webhooks

    @property
    def manifest(self) -> Manifest:
        """The manifest of all that can be drawn at this moment."""
        return self.catalogue.manifest


def services(request: Request) -> Services:
    """The services of the running server that this request has reached."""
    return cast(Services, request.app.state.services)
