"""Prompts of Segmind's pages in other programs' syntax: tags are taken out, and all of it is named."""

from __future__ import annotations

import pytest

from server.endpoints.fields import read
from server.endpoints.segmind.prompt_syntax import read_prompt_syntax
from server.endpoints.segmind.sd15_txt2img import SD15TextToImage


def syntax_of(**prompts: str) -> tuple[SD15TextToImage, list[str]]:
    return read_prompt_syntax(read(SD15TextToImage, {"prompt": "a fox", **prompts}))


def test_a_tag_is_taken_out_and_named() -> None:
    fields, warnings = syntax_of(
        prompt="a fox, <lora:pencil:0.8>, snow", negative_prompt="<hypernet:x:1> blurry"
    )
    assert (fields.prompt, fields.negative_prompt) == ("a fox, snow", "blurry")
    assert warnings == [
        "prompt: <lora:pencil:0.8> had no effect: this page has no LoRAs or hypernetworks",
        "negative_prompt: <hypernet:x:1> had no effect: this page has no LoRAs or hypernetworks",
    ]


@pytest.mark.parametrize(
    "piece", ["BREAK", "AND", "embedding:easy", "[a:b:0.5]", "__wild__", "{a|b}", "--ar 16:9", "hot::2"]
)
@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_syntax_without_meaning_is_named_and_stays(field: str, piece: str) -> None:
    prompt = f"a fox {piece}" if piece.startswith("--") else f"a fox {piece} a hen"
    fields, (warning,) = syntax_of(**{field: prompt})
    assert getattr(fields, field) == prompt
    assert warning.startswith(f"{field}: {piece} ")
    assert "write" not in warning
    assert "embeddings_model" not in warning


def test_brackets_are_ordinary_characters() -> None:
    fields, warnings = syntax_of(prompt="a (red:1.3) ((fox)) [in] snow")
    assert (fields.prompt, warnings) == ("a (red:1.3) ((fox)) [in] snow", [])


def test_many_and_long_tags_fit_into_a_header() -> None:
    tags = [f"<lora:{number}{'l' * 200}:1>" for number in range(40)]
    _, warnings = syntax_of(prompt=f"a fox {' '.join(tags)}")
    assert len(warnings) == 13
    assert warnings[-1] == "28 more things in the prompts have no meaning here"
    assert sum(map(len, warnings)) < 2000
