"""Translation and prompt writing on small language models, and which language a text is in."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from transformers import MBart50Tokenizer, MBartForConditionalGeneration

from pipelines.denoising.loop import Loop
from pipelines.drawing import Drawing
from pipelines.engine.pool import PipelinePool
from pipelines.errors import GenerationError, InvalidInput
from pipelines.messages import Drawn, Failed
from pipelines.prompts.languages import CODES, detect
from pipelines.request import Request, Rewriting, TextToImage
from pipelines.weights.manifest import Manifest, load_manifest

ENTRIES = {
    "translator": {"family": "mbart50", "parts": {"model": {"folder": "translator"}}, "dtype": "float32"},
    "writer": {
        "family": "prompt_writer",
        "parts": {"model": {"folder": "prompt_writer"}},
        "dtype": "float32",
    },
}


@pytest.fixture(scope="module")
def loop(random_manifest: Manifest) -> Iterator[Loop]:
    """An engine's loop over the small checkpoints and both language models."""
    folders = random_manifest.path.parent
    entries = {
        name: {**entry, "parts": {"model": {"folder": str(folders / entry["parts"]["model"]["folder"])}}}
        for name, entry in ENTRIES.items()
    }
    stored = yaml.safe_load(random_manifest.path.read_text())["pipelines"]["stable-diffusion-v1-5"]
    stored["parts"] = {"pipeline": {"folder": str(folders / "sd15")}}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "weights.yaml"
        path.write_text(yaml.safe_dump({"pipelines": {**entries, "sd15": stored}}))
        pool = PipelinePool(load_manifest(path), path.parent, torch.device("cpu"), budget_bytes=10**9)
        yield Loop(pool, 1024 * 1024)


def answer(loop: Loop, request: Request) -> Drawing:
    loop.submit("it", request)
    while True:
        for event in loop.turn():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Drawn):
                return event.drawing


def translated(loop: Loop, *texts: str) -> tuple[str, ...]:
    return answer(loop, Rewriting(pipeline="translator", texts=texts)).texts


def written(loop: Loop, text: str) -> str:
    return answer(loop, Rewriting(pipeline="writer", texts=(text,))).texts[0]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("ein roter Fuchs im Schnee", "de_DE"),
        ("un chat noir dans la neige", "fr_XX"),
        ("un gato rojo en la nieve", "es_XX"),
        ("un cane sulla spiaggia", "it_IT"),
        ("красная лиса в снегу", "ru_RU"),
        ("猫が座っている", "ja_XX"),
        ("雪地里的一只红狐狸", "zh_CN"),
        ("猫", "zh_CN"),
        ("고양이", "ko_KR"),
        ("बर्फ में एक लाल लोमड़ी", "hi_IN"),
        ("ثعلب أحمر في الثلج", "ar_AR"),
        ("สุนัขจิ้งจอกแดงในหิมะ", "th_TH"),
        ("ကြောင်", "my_MM"),
        ("con mèo đỏ", "vi_VN"),
        ("a red circle on a blue background", "en_XX"),
        ("cyberpunk city, neon, 8k", "en_XX"),
        ("portrait", "en_XX"),
        ("a cat", "en_XX"),
        ("Gandalf", "en_XX"),
        ("☃", "en_XX"),
    ],
)
def test_languages_are_told_apart(text: str, code: str):
    assert detect(text) == code


def test_the_tokenizer_knows_every_documented_language(random_manifest: Manifest):
    tokenizer = MBart50Tokenizer.from_pretrained(random_manifest.path.parent / "translator")
    unknown = tokenizer.convert_tokens_to_ids("<unk>")
    assert len(CODES) == 52
    assert [code for code in CODES if tokenizer.convert_tokens_to_ids(code) == unknown] == []


def test_a_text_is_translated_as_the_model_does_it(loop: Loop, random_manifest: Manifest):
    folder = random_manifest.path.parent / "translator"
    network = MBartForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = MBart50Tokenizer.from_pretrained(folder, src_lang="de_DE")
    text = "ein roter fuchs im schnee"
    tokens = tokenizer(text, return_tensors="pt")
    generated = network.generate(
        **tokens,
        forced_bos_token_id=tokenizer.convert_tokens_to_ids("en_XX"),
        num_beams=5,
        max_new_tokens=2 * tokens.input_ids.shape[1] + 16,
    )
    assert translated(loop, text) == (tokenizer.decode(generated[0], skip_special_tokens=True).strip(),)
    assert translated(loop, text)[0] not in ("", text)


def test_english_stays_untouched_beside_what_is_translated(loop: Loop):
    english = "a red  circle, on a blue background "
    texts = translated(loop, english, "ein roter Fuchs im Schnee", "")
    assert (texts[0], texts[2]) == (english, "")
    assert texts[1] != "ein roter Fuchs im Schnee"


def test_weights_brackets_and_tokens_keep_their_places(loop: Loop):
    prompt = "((ein roter fuchs)), [im schnee], (am morgen:1.3) <night_scene>"
    (changed,) = translated(loop, prompt)
    whole, inner = translated(loop, "ein roter fuchs im schnee am morgen", "am morgen, dort")
    assert whole != inner
    for syntax in ("((", ")), [", "], (", ":1.3)", " <night_scene>"):
        assert changed.count(syntax) == 1
    assert "fuchs" not in changed


def test_a_long_text_is_translated_in_pieces_to_its_end(loop: Loop):
    phrase = "ein roter fuchs im tiefen schnee am morgen, "
    (once,) = translated(loop, phrase * 3)
    (often,) = translated(loop, phrase * 30)
    assert len(often) > 5 * len(once)


def test_too_long_a_text_is_refused_by_name(loop: Loop):
    with pytest.raises(InvalidInput, match="prompt: is too long to be translated; at most 2000 characters"):
        translated(loop, "schnee " * 400)


def test_a_prompt_is_continued_and_always_alike(loop: Loop):
    first = written(loop, "a red circle")
    assert first.startswith("a red circle")
    assert len(first) > len("a red circle")
    assert written(loop, "a red circle") == first
    assert written(loop, "a blue square") != first


@pytest.mark.parametrize("text", ["", "a" * 400])
def test_what_leaves_no_room_to_continue_stays(loop: Loop, text: str):
    assert written(loop, text) == text


def test_a_rewriting_does_not_wait_for_the_pictures_that_are_drawn(loop: Loop):
    picture = TextToImage(
        pipeline="sd15",
        prompt="a cat",
        width=64,
        height=64,
        num_inference_steps=20,
        guidance_scale=7.0,
        seeds=(1,),
    )
    loop.submit("picture", picture)
    loop.turn()
    loop.submit("text", Rewriting(pipeline="translator", texts=("ein hund im schnee",)))
    ended = [event.ticket_id for event in loop.turn() if isinstance(event, Drawn)]
    while not loop.idle:
        ended += [event.ticket_id for event in loop.turn() if isinstance(event, Drawn)]
    assert ended == ["text", "picture"]


def test_language_models_do_not_draw_and_checkpoints_do_not_rewrite(loop: Loop):
    draw = TextToImage(
        pipeline="writer",
        prompt="a cat",
        width=64,
        height=64,
        num_inference_steps=2,
        guidance_scale=7.0,
        seeds=(1,),
    )
    with pytest.raises(GenerationError, match="writer does not draw, it writes prompts"):
        answer(loop, draw)
    with pytest.raises(GenerationError, match="sd15 does not draw rewriting"):
        answer(loop, Rewriting(pipeline="sd15", texts=("a",)))
