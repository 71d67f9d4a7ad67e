"""The enterprise operations that say what is there, find what was drawn, or look after the server."""

from __future__ import annotations

from tests.contract.parameters.effects import SENT, answer, names_models, refusal
from tests.contract.parameters.enterprise_drawing import SCHEDULERS
from tests.contract.parameters.live_values import an_api_key, an_earlier_job
from tests.contract.parameters.rows import Page, row
from tests.contract.parameters.stage import ENTERPRISE

UNKNOWN_ID = 10**9

FETCH = Page(
    f"{ENTERPRISE}/fetch",
    {"request_id": an_earlier_job},
    (
        row("key", an_api_key, answer(status="success")),
        row("request_id", an_earlier_job, answer(status="success", id=SENT)),
    ),
)

FETCH_BY_PATH = Page(
    f"{ENTERPRISE}/fetch/{{id}}",
    {"id": an_earlier_job},
    (
        row("key", an_api_key, answer(status="success")),
        # The id in the path counts; the one in the body has to be a number, and is not asked for.
        row(
            "id",
            an_earlier_job,
            answer(status="success", id=SENT),
            beside={"request_id": UNKNOWN_ID},
            instead=UNKNOWN_ID,
        ),
        row("request_id", "the last one", refusal("request_id", "must be a whole number")),
    ),
)

VERIFY_MODEL = Page(
    f"{ENTERPRISE}/verify_model",
    {"model_id": "drawings"},
    (
        row("key", an_api_key, answer(status="success")),
        row("model_id", "photographs", answer(message="Model exists on server"), instead="unheard-of"),
    ),
)

KEY_ALONE = tuple(
    Page(f"{ENTERPRISE}/{operation}", {}, (row("key", an_api_key, effect),))
    for operation, effect in {
        "get_all_models": answer(status="success"),
        "schedulers_list": answer(status="success", message="list of schedulers", schedulers=[*SCHEDULERS]),
        "system_details": answer(status="ok", queue_num=0),
        "clear_queue": answer(status="success", cleared=0),
        "clear_cache": answer(status="success", message="Cache cleared successfully"),
        "restart_server": answer(status="success", message="server restarting"),
        "update_server": answer(status="success", message="server updating"),
        "update": answer(status="success", message="server updating"),
    }.items()
)

MODEL_LISTS = tuple(
    Page(path, {}, (row("key", an_api_key, names_models("photographs", "drawings")),))
    for path in ("/api/v4/dreambooth/model_list", "/api/v3/dreambooth/model_list")
)

PAGES = (FETCH, FETCH_BY_PATH, VERIFY_MODEL, *KEY_ALONE, *MODEL_LISTS)
