"""Syntax of other programs in the prompts of Segmind's pages, which have no LoRAs: all of it is in vain."""

from __future__ import annotations

from typing import TypeVar

from server.endpoints.prompt_syntax import TAG, meaningless, quoted, without_tags
from server.endpoints.segmind.page import Page

P = TypeVar("P", bound=Page)

_PROMPTS = ("prompt", "negative_prompt")
_MOST_WARNINGS = 12
"""The most that are told of one page, because headers have to be short."""


def read_prompt_syntax(fields: P) -> tuple[P, list[str]]:
    """Take the tags out of a page's prompts, because no program reads them as words.

    Returns:
        The fields as they are drawn, and a warning for each thing that has no meaning here.
    """
    changes: dict[str, str] = {}
    warnings: list[str] = []
    for name in _PROMPTS:
        prompt = getattr(fields, name, None)
        if not isinstance(prompt, str):
            continue
        tags = list(dict.fromkeys(found[0] for found in TAG.finditer(prompt)))
        if tags:
            changes[name] = without_tags(prompt)
        warnings += [
            f"{name}: {quoted(tag)} had no effect: this page has no LoRAs or hypernetworks" for tag in tags
        ]
        warnings += [f"{name}: {sentence}" for sentence in meaningless(prompt, advice=False)]
    more = len(warnings) - _MOST_WARNINGS
    if more > 0:
        warnings = [*warnings[:_MOST_WARNINGS], f"{more} more things in the prompts have no meaning here"]
    return (fields.model_copy(update=changes) if changes else fields), warnings
