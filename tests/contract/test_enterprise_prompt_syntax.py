"""Prompts in other programs' syntax: LoRAs among it are used, everything else is named in a warning."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from pipelines.request import Lora
from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.drawing.prompt_syntax import read_prompt_syntax
from server.endpoints.enterprise.text2img import Text2Img
from server.endpoints.prompt_syntax import meaningless, without_tags
from server.errors import FieldError
from tests.contract.parameters.stage import Stage, opened


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with opened(tmp_path_factory.mktemp("server")) as stage:
        yield stage


def ask(stage: Stage, prompt: str, **fields: object) -> dict[str, Any]:
    """The answer of text2img to a prompt."""
    return stage.ask(
        "text2img",
        **{
            "model_id": "photographs",
            "prompt": prompt,
            "enhance_prompt": "no",
            "safety_checker": "no",
            "width": 256,
            "height": 256,
            **fields,
        },
    )


def drawn(stage: Stage) -> Any:
    return stage.engine.requests[-1]


@pytest.mark.parametrize(
    ("prompt", "left", "loras"),
    [
        ("a fox <lora:pencil:0.8>", "a fox", {"pencil": 0.8}),
        ("a fox <lora:pencil>", "a fox", {"pencil": 1.0}),
        ("<lora:pencil:.5> a fox", "a fox", {"pencil": 0.5}),
        ("<lora:pencil:0.5>, a fox", "a fox", {"pencil": 0.5}),
        ("a fox, <lora:pencil:0.5>, at night", "a fox, at night", {"pencil": 0.5}),
        ("a fox, <lora:pencil:0.5> at night", "a fox, at night", {"pencil": 0.5}),
        ("a fox,<lora:pencil:0.5>", "a fox", {"pencil": 0.5}),
        ("a <lora:pencil:1><lora:more_details:0.3> fox", "a fox", {"pencil": 1.0, "more_details": 0.3}),
        ("a fox <LoRA: pencil : 0.8 >", "a fox", {"pencil": 0.8}),
        ("a fox <lyco:pencil:0.8>", "a fox", {"pencil": 0.8}),
        ("a fox <lora:Pencil.safetensors:0.8>", "a fox", {"pencil": 0.8}),
        ("a fox <lora:styles/pencil:0.8>", "a fox", {"pencil": 0.8}),
        ("a fox <lora:pencil:0>", "a fox", {}),
        ("a (fox:1.2) <lora:pencil:0.8>", "a (fox:1.2)", {"pencil": 0.8}),
        ("<lora:pencil:0.8>", "", {"pencil": 0.8}),
    ],
)
def test_a_lora_that_is_here_is_used_and_no_part_of_the_prompt(
    prompt: str, left: str, loras: dict[str, float], stage: Stage
) -> None:
    answer = ask(stage, prompt)
    assert answer["status"] == "success", answer
    assert drawn(stage).prompt == left
    assert drawn(stage).loras == tuple(Lora(name=name, scale=scale) for name, scale in loras.items())
    assert (answer["meta"]["prompt"], answer["meta"]["lora"]) == (left, ",".join(loras) or None)
    assert "warning" not in answer


def test_it_is_used_beside_those_of_lora_model(stage: Stage) -> None:
    answer = ask(stage, "a fox <lora:pencil:0.8>", lora_model="more_details", lora_strength="0.4")
    assert drawn(stage).loras == (Lora(name="more_details", scale=0.4), Lora(name="pencil", scale=0.8))
    assert answer["meta"]["lora"] == "more_details,pencil"
    assert "warning" not in answer


def test_the_prompt_has_the_last_word_on_a_strength(stage: Stage) -> None:
    answer = ask(stage, "a fox <lora:pencil:0.8>", lora_model="pencil", lora_strength=0.4)
    assert drawn(stage).loras == (Lora(name="pencil", scale=0.8),)
    assert "the strength of pencil was given twice; 0.8 was used" in answer["warning"]


@pytest.mark.parametrize("operation", ["img2img", "inpaint", "controlnet"])
def test_every_operation_with_a_prompt_reads_it(operation: str, stage: Stage) -> None:
    file = BytesIO()
    Image.new("RGB", (64, 64), "white").save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    fields = {"model_id": "photographs", "width": 256, "height": 256, "init_image": picture}
    more = {"inpaint": {"mask_image": picture}, "controlnet": {"controlnet_model": "canny"}}
    answer = stage.ask(
        operation, **fields, **more.get(operation, {}), prompt="a fox <lora:pencil:0.8>", enhance_prompt="no"
    )
    assert answer["status"] == "success", answer
    assert (drawn(stage).prompt, drawn(stage).loras) == ("a fox", (Lora(name="pencil", scale=0.8),))


@pytest.mark.parametrize(
    ("strength", "problem"),
    [
        ("1.5", "must be between 0.1 and 1"),
        ("-1", "must be between 0.1 and 1"),
        ("0.05", "must be between 0.1 and 1"),
        ("much", "is not a number"),
        ("nan", "is not a number"),
        ("", "is not a number"),
    ],
)
def test_a_strength_out_of_bounds_is_refused_as_in_lora_strength(
    strength: str, problem: str, stage: Stage
) -> None:
    before = len(stage.engine.requests)
    tag = f"<lora:pencil:{strength}>"
    answer = ask(stage, f"a fox {tag}")
    expected = {"prompt": [f"prompt holds {tag}, whose strength {problem}"]}
    assert (answer["status"], answer["message"]) == ("error", expected)
    assert len(stage.engine.requests) == before


def test_a_lora_for_another_kind_of_checkpoint_is_refused_as_in_lora_model() -> None:
    source = {"folder": "x"}
    pipelines = {"photographs": {"family": "sd15", "parts": {"pipeline": source}}}
    loras = {"wide": {"source": source, "family": "sdxl"}}
    manifest = Manifest.model_validate({"path": "weights.yaml", "pipelines": pipelines, "loras": loras})
    fields = Text2Img.model_validate({"model_id": "photographs", "prompt": "a fox <lora:wide:0.8>"})
    with pytest.raises(FieldError, match="prompt: wide was made for another kind of checkpoint"):
        read_prompt_syntax(fields, manifest)


@pytest.mark.parametrize(
    ("prompt", "left", "warning"),
    [
        (
            "a fox, <lora:unknown:0.8>",
            "a fox",
            "<lora:unknown:0.8> had no effect: this server has no LoRA unknown",
        ),
        ("a fox <hypernet:ink:0.5>", "a fox", "<hypernet:ink:0.5> had no effect: this server has no hyper"),
        ("a fox <lora:pencil:0.8:0.5>", "a fox", "was used with one strength for all networks, 0.8"),
        ("a fox BREAK a hen", "a fox BREAK a hen", "BREAK is read as a word"),
        ("a fox AND a hen", "a fox AND a hen", "AND is read as a word"),
        ("a fox :1.2 AND a hen :0.8", "a fox :1.2 AND a hen :0.8", "AND is read as a word"),
        ("a embedding:bad-hands fox", "a embedding:bad-hands fox", "name it in embeddings_model"),
        ("a [fox:hen:0.5]", "a [fox:hen:0.5]", "[fox:hen:0.5] is prompt editing"),
        ("a [fox::0.5]", "a [fox::0.5]", "[fox::0.5] is prompt editing"),
        ("a [fox:12]", "a [fox:12]", "[fox:12] is prompt editing"),
        ("a [fox|hen]", "a [fox|hen]", "[fox|hen] is an alternation of words"),
        ("a __color__ fox", "a __color__ fox", "__color__ is a wildcard"),
        ("a __animals/wild*__ fox", "a __animals/wild*__ fox", "__animals/wild*__ is a wildcard"),
        ("a {red|green} fox", "a {red|green} fox", "{red|green} is a choice of words"),
        ("a {2$$red|green|blue} fox", "a {2$$red|green|blue} fox", "{2$$red|green|blue} is a choice"),
        ("a fox --ar 16:9 --v 5", "a fox --ar 16:9 --v 5", "--ar 16:9 is a flag of another program"),
        ("a fox --ar 16:9 --v 5", "a fox --ar 16:9 --v 5", "--v 5 is a flag of another program"),
        ("a fox --steps 30", "a fox --steps 30", "--steps 30 is a flag of another program"),
        ("fox::2 hen::1", "fox::2 hen::1", "fox::2 is a weight in another program's words"),
        ("a fox ADDCOL a hen", "a fox ADDCOL a hen", "ADDCOL divides prompts by regions"),
    ],
)
def test_what_has_no_meaning_here_is_named(prompt: str, left: str, warning: str, stage: Stage) -> None:
    answer = ask(stage, prompt)
    assert answer["status"] == "success", answer
    assert drawn(stage).prompt == left
    assert warning in answer["warning"]


def test_a_tag_in_the_negative_prompt_has_no_effect_and_is_no_word(stage: Stage) -> None:
    answer = ask(stage, "a fox", negative_prompt="blurry, <lora:pencil:0.8>")
    assert (drawn(stage).negative_prompt, drawn(stage).loras) == ("blurry", ())
    assert "<lora:pencil:0.8> in the negative prompt had no effect" in answer["warning"]


@pytest.mark.parametrize(
    "prose",
    [
        "a fox and a hen",
        "SALT AND PEPPER SHAKERS",
        "R AND B singer on stage",
        "BREAK THE CHAINS, propaganda poster",
        "a poster that says COFFEE BREAK TODAY",
        "AND",
        "BRANDON, a bandsman, breaks bread",
        "a (fox:1.3), [blurry], ((cinematic lighting))",
        "smiling :) and (winking ;)",
        "a well--known fox -- at night - alone",
        "f/1.4, ISO 200, 1/160s, ratio 16:9, at 12:30",
        "snake_case and __ underscores",
        "a <3 heart, 3 < 5 > 2",
        "C++ code on a screen, std::vector",
        "a {curly} brace",
        "embedding: a jewel in gold",
        "a red|blue flag",
    ],
)
def test_ordinary_prose_is_left_alone(prose: str) -> None:
    assert meaningless(prose) == []


def test_a_tag_is_not_translated(stage: Stage) -> None:
    ask(stage, "un renard <lora:pencil:0.8>", multi_lingual="yes")
    assert drawn(stage).prompt == "UN RENARD"
    assert drawn(stage).loras == (Lora(name="pencil", scale=0.8),)


@pytest.mark.parametrize(
    "piece",
    ["[", "[:", "{|", "[|", "__a", "x", " ", "<lora:", "<", "x AND ", "--a", "::", "a:", "<a:1> "],
)
def test_a_prompt_of_whatever_length_is_read_at_once(piece: str) -> None:
    prompt = piece * (300_000 // len(piece))
    begin = time.process_time()
    warnings = meaningless(f"<lora:pencil:1>{prompt}")
    without_tags(f"<lora:pencil:1>{prompt}<lora:pencil:1>")
    assert time.process_time() - begin < 5
    assert len(warnings) <= 13


def test_more_tags_than_anybody_writes_are_refused(stage: Stage) -> None:
    answer = ask(stage, "<lora:pencil:1> " * 101)
    problem = "prompt holds 101 tags like <lora:pencil:1>; at most 100 are read"
    assert answer["message"] == {"prompt": [problem]}
