"""Brackets in prompts, and prompts cut into chunks."""

from __future__ import annotations

import time

import pytest

from pipelines.prompts.weighting import Phrase, Word, chunks, weighted_phrases

UP, DOWN = 1.1, 1 / 1.1


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("a red fox", [("a red fox", 1)]),
        ("", [("", 1)]),
        ("a (red) fox", [("a ", 1), ("red", UP), (" fox", 1)]),
        ("((fox))", [("fox", UP * UP)]),
        ("(((fox)))", [("fox", UP * UP * UP)]),
        ("[fox]", [("fox", DOWN)]),
        ("[[fox]]", [("fox", DOWN * DOWN)]),
        ("(fox:1.3)", [("fox", 1.3)]),
        ("(fox : .5 ) in snow", [("fox ", 0.5), (" in snow", 1)]),
        ("(fox:-1)", [("fox", -1)]),
        ("(a (red:1.5) fox)", [("a ", UP), ("red", UP * 1.5), (" fox", UP)]),
        ("a (red (fox:2)", [("a ", 1), ("red ", UP), ("fox", UP * 2)]),
        ("[(fox)]", [("fox", 1)]),
        ("(one [two) three] four", [("one ", UP), ("two", UP * DOWN), (" three", DOWN), (" four", 1)]),
        # what nothing opened is a character
        ("a) b] c", [("a) b] c", 1)]),
        ("fox:1.3)", [("fox:1.3)", 1)]),
        # a weight is for round brackets alone
        ("[fox:1.3]", [("fox:1.3", DOWN)]),
        # no number
        ("(fox:big)", [("fox:big", UP)]),
        ("(fox:1.2.3)", [("fox:1.2.3", UP)]),
        ("(fox:)", [("fox:", UP)]),
        # escaped
        (r"fox \(animal\)", [("fox (animal)", 1)]),
        (r"(fox \(animal\):1.3)", [("fox (animal)", 1.3)]),
        (r"\[a\] \\ b\c", [("[a] \\ b\\c", 1)]),
        # neighbours of equal weight are one phrase
        ("a (b:1.0) c", [("a b c", 1)]),
        ("(a)(b)", [("ab", UP)]),
        ("()", [("", 1)]),
        # bounded
        ("(fox:99999)", [("fox", 10)]),
        ("(fox:" + "9" * 400 + ")", [("fox", 10)]),
        ("(((fox:-9):9):9)", [("fox", -10)]),
    ],
)
def test_brackets_weigh_as_users_of_the_syntax_know(prompt: str, phrases: list[tuple[str, float]]):
    assert [(phrase.text, phrase.weight) for phrase in weighted_phrases(prompt)] == [
        (text, pytest.approx(weight)) for text, weight in phrases
    ]


@pytest.mark.parametrize("prompt", ["a [b] (c:1.0)", r"\(", "(fox", "one two"])
def test_a_weight_of_one_is_exactly_one_around_and_after_brackets(prompt: str):
    phrases = weighted_phrases(f"before [(({prompt})):0.3) after")
    assert phrases[0] == Phrase("before ", 1.0)
    assert weighted_phrases("x (y) z")[-1] == Phrase(" z", 1.0)


@pytest.mark.parametrize(
    "prompt",
    ["(a" * 5000, "[" * 10_000, "(" * 5000 + "a" + ")" * 5000, ":" * 10_000, ":" + "1" * 10_000, ": " * 5000],
    ids=lambda prompt: prompt[:4],
)
def test_no_prompt_takes_long_to_read(prompt: str):
    before = time.process_time()
    weighted_phrases(prompt)
    assert time.process_time() - before < 2


def cut(words: list[Word], length: int = 6) -> list[tuple[int, ...]]:
    return [chunk.tokens for chunk in chunks(words, length=length, start=100, end=101, padding=102)]


def test_chunks_are_full_but_for_the_last_and_each_has_its_start_and_end():
    words = [Word((token,)) for token in range(6)]
    assert cut(words) == [(100, 0, 1, 2, 3, 101), (100, 4, 5, 101, 102, 102)]
    assert cut(words[:4]) == [(100, 0, 1, 2, 3, 101)]
    assert cut([]) == [(100, 101, 102, 102, 102, 102)]


def test_a_word_of_several_tokens_is_not_torn_unless_it_is_longer_than_a_chunk():
    assert cut([Word((1,)), Word((2,)), Word((3, 4, 5))]) == [
        (100, 1, 2, 101, 102, 102),
        (100, 3, 4, 5, 101, 102),
    ]
    assert cut([Word((1, 2, 3, 4, 5))]) == [(100, 1, 2, 3, 4, 101), (100, 5, 101, 102, 102, 102)]


def test_every_token_has_the_weight_of_its_word_and_what_is_added_weighs_one():
    (chunk,) = chunks([Word((1, 2), 1.5), Word((3,), 0.5)], length=6, start=9, end=9, padding=9)
    assert chunk.weights == (1.0, 1.5, 1.5, 0.5, 1.0, 1.0)
