"""The options of an enterprise job: what is written is what is read, also from rows of earlier versions."""

from __future__ import annotations

import json

import pytest

from server.endpoints.enterprise.options import EnterpriseOptions, WebhookReceiver

RECEIVER = WebhookReceiver(url="https://receiver.example/done", public_url="https://pictures.example")


@pytest.mark.parametrize("track_id", ["seven", 7, 7.5, None])
@pytest.mark.parametrize("webhook", [RECEIVER, None])
def test_a_record_gives_back_the_options_it_was_made_of(
    track_id: str | float | None, webhook: WebhookReceiver | None
):
    options = EnterpriseOptions(
        warning="nothing was checked", meta={"seed": 7, "lora": None}, track_id=track_id, webhook=webhook
    )
    stored = json.loads(json.dumps(options.to_json()))
    assert EnterpriseOptions.from_json(stored) == options


def test_the_record_has_the_form_that_other_versions_of_the_server_know():
    options = EnterpriseOptions(meta={"seed": 7}, track_id="seven", webhook=RECEIVER)
    assert json.dumps(options.to_json()) == (
        '{"warning": null, "meta": {"seed": 7}, "track_id": "seven", "webhook": '
        '{"url": "https://receiver.example/done", "public_url": "https://pictures.example"}}'
    )


def test_a_row_of_an_earlier_version_may_lack_a_warning():
    stored = {"meta": {"scale": 2}, "track_id": None, "webhook": None}
    assert EnterpriseOptions.from_json(stored) == EnterpriseOptions(meta={"scale": 2})


def test_a_job_of_another_dialect_has_nobody_to_tell():
    assert EnterpriseOptions.from_json({}) == EnterpriseOptions()
