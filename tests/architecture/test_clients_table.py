"""The README's table of clients is what the tests do, and was written by running them."""

from __future__ import annotations

from tests.clients.table import PASSED, PATHS, README, SKIPPED, marked_steps, rendered, written


def test_the_table_has_what_the_tests_do_and_nothing_else():
    assert written().keys() == marked_steps(), "run: python -m tests.clients.table"


def test_the_table_is_as_its_program_writes_it():
    assert rendered(written()) in README.read_text()


def test_every_client_that_was_run_has_gone_both_ways():
    """Clients of the documentation's own text are rows for what is printed there."""
    outcomes = written()
    assert set(outcomes.values()) <= {PASSED, SKIPPED}
    for client in {step[:2] for step in outcomes}:
        assert {step[2] for step in outcomes if step[:2] == client} == set(PATHS), client
