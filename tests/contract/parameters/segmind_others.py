"""Segmind's operations beside the model pages, what is found under an output's URL, and the engines."""

from __future__ import annotations

from tests.contract.parameters.effects import SENT, answer, picture, sent_picture, status
from tests.contract.parameters.live_values import an_api_key, an_earlier_request, an_output
from tests.contract.parameters.rows import Page, row
from tests.contract.parameters.stage import PAINT

GREEN = (30, 200, 30)
UNKNOWN_REQUEST = "6ad2c1a8-94c2-4a51-9a3e-3a5c74a1b0d2"

REQUESTS = tuple(
    Page(
        path,
        {"request_id": an_earlier_request},
        (
            row("x-api-key", an_api_key, status(200), answer(status="COMPLETED")),
            row("request_id", an_earlier_request, answer(request_id=SENT), instead=UNKNOWN_REQUEST),
        ),
        method="GET",
    )
    for path in ("/v2/requests/{request_id}/status", "/v2/requests/{request_id}", "/v1/requests/{request_id}")
)

CREDITS = Page(
    "/v1/get-user-credits",
    {},
    (row("x-api-key", an_api_key, status(200), answer(**{"free-credits": 0.0})),),
    method="GET",
)

UPLOAD = Page(
    "/upload-asset",
    {"data_urls": [f"data:image/png;base64,{sent_picture(PAINT)}"]},
    (
        row("x-api-key", an_api_key, status(200), picture(colour=PAINT)),
        row("data_urls", [f"data:image/png;base64,{sent_picture(GREEN)}"], picture(colour=GREEN)),
    ),
)

OUTPUTS = Page(
    "/generations/{name}",
    {},
    (row("name", an_output, status(200), picture(colour=PAINT), instead="unknown.png"),),
    method="GET",
)

ENGINES = Page("/engines", {}, (row("x-api-key", an_api_key, status(200)),), method="GET")

PAGES = (*REQUESTS, CREDITS, UPLOAD, OUTPUTS, ENGINES)
