"""The digest that is stored with an idempotency key: the same for the same meaning, and in every version."""

from __future__ import annotations

import hashlib

from server.endpoints.enterprise.wire import Operation
from server.endpoints.fields import RANDOM_SEED, Seed, Text, WholeNumber, body_digest, read


class Drawing(Operation):
    prompt: Text
    samples: WholeNumber = 1
    seed: Seed = RANDOM_SEED


def digest(slug: str | None = None, **body: object) -> str:
    return body_digest(read(Drawing, {"prompt": "a cat", **body}), slug)


def test_stored_digests_are_made_of_this_text() -> None:
    said = "[('prompt', 'a cat'), ('samples', 1), ('seed', -1)]"
    assert digest() == hashlib.sha256(said.encode()).hexdigest()
    assert digest("kolors") == hashlib.sha256(f"('kolors', {said})".encode()).hexdigest()


def test_bodies_that_mean_the_same_have_one_digest() -> None:
    assert digest(samples="1", seed="", key="one") == digest(seed=-1, key="another")


def test_another_body_has_another_digest() -> None:
    assert len({digest(), digest(prompt="a dog"), digest(samples=2), digest(seed=0), digest("kolors")}) == 5
