"""What is said of texts that are longer than a text encoder reads."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.checkpoints.tokenizers import glm_tokenizer
from pipelines.demo.checkpoints.parts import byte_level_tokenizer
from pipelines.prompts.cut_texts import LONGEST_QUOTE, cut_warnings, unread


@pytest.fixture(scope="module")
def clip() -> Any:
    """One token for each byte."""
    return byte_level_tokenizer()


@pytest.fixture(scope="module")
def chatglm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return glm_tokenizer(tmp_path_factory.mktemp("tokenizer"), words=())


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("", ""),
        ("a" * 75, ""),
        ("a" * 76, "a"),
        ("ab " * 37 + "c", ""),
        ("ab " * 37 + "cd", "cd"),
        ("ab " * 37 + "c de fg", "de fg"),
        ("ab " * 37 + "\n\t  ", ""),
        (" " * 500, ""),
        ("é" * 37, ""),
        ("é" * 38, "é" * 38),
    ],
)
def test_the_rest_begins_with_the_word_that_does_not_fit(clip: Any, text: str, rest: str):
    assert unread(text, clip, 77) == rest


@pytest.mark.parametrize("text", ["猫" * 600, "一只红色的猫，" * 90, "🦊" * 300])
def test_scripts_without_blanks_are_cut_where_the_encoder_stops(chatglm: Any, text: str):
    rest = unread(text, chatglm, 256)
    read = text.removesuffix(rest)
    assert len(chatglm(read)["input_ids"]) <= 256 < len(chatglm(read + rest[0])["input_ids"])


def test_blanks_that_are_cut_are_not_worth_a_word(chatglm: Any):
    assert len(chatglm(" " * 5000)["input_ids"]) > 256
    assert cut_warnings({"prompt": " " * 5000}, chatglm, 256, "ChatGLM") == ()
    fits = " ".join("a" * 127)
    assert unread(fits + " " * 50, chatglm, 256) == ""
    assert unread(fits + " " * 50 + "cat", chatglm, 256).strip() == "cat"


def test_each_text_that_is_cut_is_named_with_its_first_words(clip: Any):
    texts = {"prompt": "ab " * 37 + "cats in hats", "negative_prompt": "ab " * 37 + "rain", "other": None}
    assert cut_warnings(texts, clip, 77, "CLIP") == (
        'prompt: CLIP reads only its first 77 tokens; what begins with "cats in hats" is left out',
        'negative_prompt: CLIP reads only its first 77 tokens; what begins with "rain" is left out',
    )


def test_texts_that_fit_are_not_mentioned(clip: Any):
    assert cut_warnings({"prompt": "a cat", "negative_prompt": ""}, clip, 77, "CLIP") == ()


def test_a_long_rest_is_quoted_in_brief_and_on_one_line(clip: Any):
    (warning,) = cut_warnings({"prompt": "ab " * 37 + "one\ntwo\r\n" * 900}, clip, 77, "CLIP")
    quoted = ("one two " * 8)[:LONGEST_QUOTE].rstrip()
    assert warning == (
        f'prompt: CLIP reads only its first 77 tokens; what begins with "{quoted}..." is left out'
    )
