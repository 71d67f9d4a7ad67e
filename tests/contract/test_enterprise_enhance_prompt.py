"""enhance_prompt, as the page's own request and answer show it: what is added to the prompt, and what to the
negative prompt."""

from __future__ import annotations

import pytest

from server.endpoints.enterprise.drawing.phrases import (
    NEGATIVE_PHRASES,
    PROMPT_PHRASES,
    enhanced_negative_prompt,
    enhanced_prompt,
)


def test_the_enhancement_repeats_nothing_that_is_there():
    prompt = enhanced_prompt("a cat, cinematic lighting, (raw)")
    assert prompt.lower().count("cinematic lighting") == 1
    assert prompt.lower().count("raw") == 1
    assert enhanced_prompt(prompt) == prompt


@pytest.mark.parametrize(
    "prompt",
    ["a cat, 8K, RAW, in-frame", "8k, ((RAW)) , in-frame,", "sharp focus,Redshift, f/1.4, a cat, 8K  "],
)
def test_a_prompt_with_three_phrases_stays_as_it_is_to_the_byte(prompt: str):
    assert enhanced_prompt(prompt) == prompt


@pytest.mark.parametrize(
    "prompt", ["a cat, 8K, RAW", "a cat, 8K, 8K, 8K", "8K RAW in-frame", "a cat, 8Kx, unedited film, (raw"]
)
def test_a_prompt_with_fewer_gets_those_that_it_lacks(prompt: str):
    lacking = [phrase for phrase in PROMPT_PHRASES if phrase not in ("8K", "RAW")]
    assert enhanced_prompt(prompt).startswith(f"{prompt}, DSLR photography, sharp focus")
    assert [phrase for phrase in lacking if phrase not in enhanced_prompt(prompt)] == []


@pytest.mark.parametrize("negative", ["blurry", "ugly, (((mutation))),", ", ".join(NEGATIVE_PHRASES), " a "])
def test_the_whole_negative_list_is_appended_after_a_blank_whatever_is_there(negative: str):
    assert enhanced_negative_prompt(negative) == f"{negative} {', '.join(NEGATIVE_PHRASES)}"


def test_an_empty_negative_prompt_becomes_the_vendors_list():
    assert enhanced_negative_prompt("") == ", ".join(NEGATIVE_PHRASES)
