"""The enterprise operations that take a picture and no prompt: enlarging, checking, storing it."""

from __future__ import annotations

from tests.contract.parameters.effects import (
    SENT,
    announced,
    answer,
    drawings,
    drawn,
    picture,
    sent_picture,
    shown,
)
from tests.contract.parameters.live_values import a_new_word, a_receiver, an_api_key
from tests.contract.parameters.rows import Page, every, row
from tests.contract.parameters.stage import ENTERPRISE

RED, GREEN = (200, 30, 30), (30, 200, 30)

SHARED = (
    row("key", an_api_key, answer(status="success"), drawings(1)),
    row("Idempotency-Key", a_new_word, drawings(1), times=2),
    row("webhook", a_receiver, announced(url=SENT, status="success")),
    row("track_id", "mine", announced(track_id=SENT), beside={"webhook": a_receiver}),
    row("track_id", 12, announced(track_id=SENT), beside={"webhook": a_receiver}),
)

SUPER_RESOLUTION = Page(
    f"{ENTERPRISE}/super_resolution",
    {"url": sent_picture(RED)},
    (
        *SHARED,
        row("url", sent_picture(GREEN), drawn(image=shown(GREEN, 8, 8))),
        *every(
            "scale",
            {
                1: drawn(width=8, height=8),
                2: drawn(width=16, height=16),
                3: drawn(width=24, height=24),
                4: drawn(width=32, height=32),
            },
            default=2,
        ),
        row("face_enhance", True, drawn(face_restorer="faces")),
        row("model_id", "fine", drawn(pipeline=SENT)),
    ),
)

NSFW_IMAGE_CHECK = Page(
    f"{ENTERPRISE}/nsfw_image_check",
    {"init_image": sent_picture(RED)},
    (
        *SHARED,
        row("init_image", sent_picture(GREEN), drawn(image=shown(GREEN, 8, 8))),
    ),
)

UPLOAD_IMAGE = Page(
    f"{ENTERPRISE}/upload_image",
    {"base64_image": sent_picture(RED, "BMP")},
    (
        row("key", an_api_key, answer(status="success"), picture(colour=RED)),
        row("base64_image", sent_picture(GREEN, "BMP"), picture(colour=GREEN, format="BMP")),
        *every(
            "image_type",
            {
                "png": picture(format="PNG", content_type="image/png"),
                "jpg": picture(format="JPEG", content_type="image/jpeg"),
                "jpeg": picture(format="JPEG", content_type="image/jpeg"),
                "webp": picture(format="WEBP", content_type="image/webp"),
            },
        ),
    ),
)

BASE64_CROP = Page(
    "/api/v3/base64_crop",
    {"image": sent_picture(RED, size=(8, 6))},
    (
        row("key", an_api_key, answer(status="success"), picture(colour=RED)),
        row("image", sent_picture(GREEN, "BMP"), picture(colour=GREEN, format="BMP")),
        row("crop", "true", picture(size=(6, 6))),
    ),
)

BASE64_TO_URL = tuple(
    Page(
        path,
        {"base64_string": sent_picture(RED)},
        (
            row("key", an_api_key, answer(status="success"), picture(colour=RED)),
            row("base64_string", sent_picture(GREEN, "BMP"), picture(colour=GREEN, format="BMP")),
        ),
    )
    for path in ("/api/v6/base64_to_url", "/api/v6/image_editing/base64_to_url")
)

PAGES = (SUPER_RESOLUTION, NSFW_IMAGE_CHECK, UPLOAD_IMAGE, BASE64_CROP, *BASE64_TO_URL)
