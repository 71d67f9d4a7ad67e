"""Words of textual inversions: where a text has them, what is said of others, and every layout of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipelines.adapters.textual_inversion import NewWords
from pipelines.errors import UnknownAdapter
from pipelines.weights.embedding_names import FIRST_ENCODER, SECOND_ENCODER
from pipelines.weights.entries import AdapterEntry, Source
from pipelines.weights.inspection import inspect_file
from pipelines.weights.manifest import Manifest
from tests.drawing import open_family, seeded, small_request

SD15, XL = "stable-diffusion-v1-5", "sdxl"
WORDS = ("xpaint", "xpaint_1", "Night_Scene", "<cat-toy>", "bad hands", "a", "many")
REQUEST = small_request()


def rows(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=seeded(seed))


class Reader:
    """The small SD1.5 with words of two vectors each, and one of many."""

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        self.family = open_family(manifest, SD15)
        self.width = self.family.modules["text_encoder"].config.hidden_size
        entries: dict[str, AdapterEntry] = {}
        for at, word in enumerate(WORDS):
            path = folder / f"{at}.safetensors"
            save_file({"emb_params": rows(100 if word == "many" else 2, self.width, at)}, path)
            entries[word] = AdapterEntry(source=Source(file=path), family="sd15")
        library = self.family._prompts._adapters
        library.manifest = manifest.model_copy(update={"embeddings": entries})

    def __call__(self, prompt: str, *names: str, **changes: Any) -> tuple[Tensor, tuple[str, ...]]:
        asked = replace(REQUEST, prompt=prompt, embeddings=names, **changes)
        encoded = self.family._prompts.encode(asked)
        return encoded.positive["encoder_hidden_states"], encoded.warnings

    def same(
        self, prompt: str, names: tuple[str, ...], other: str, others: tuple[str, ...], **both: Any
    ) -> bool:
        return torch.equal(self(prompt, *names, **both)[0], self(other, *others, **both)[0])


@pytest.fixture(scope="module")
def read(random_manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(random_manifest, tmp_path_factory.mktemp("words"))


def test_the_names_of_further_vectors_are_nobodys_words(read: Reader) -> None:
    assert read.same("a xpaint circle", ("xpaint", "xpaint_1"), "a xpaint circle", ("xpaint",))
    assert read.same("a xpaint_1 circle", ("xpaint", "xpaint_1"), "a xpaint_1 circle", ("xpaint_1",))
    assert read.same("a xpaint_1 circle", ("xpaint",), "a xpaint_1 circle", ())
    assert not read.same("a xpaint circle", ("xpaint",), "a xpaint circle", ())


def test_each_word_that_had_no_effect_is_named_and_no_other(read: Reader) -> None:
    _, warnings = read("a xpaint circle", "xpaint", "xpaint_1")
    assert warnings == ("embeddings: xpaint_1 is in neither prompt and had no effect",)
    assert read("xpaint and xpaint_1", "xpaint", "xpaint_1")[1] == ()


@pytest.mark.parametrize(
    "prompt",
    [
        "xpainting a circle",
        "a rexpaint",
        "xpaint2",
        "xpaint_2",
        "_xpaint",
        "xpainté",
        "expaint",
        "xpaintя",
        "x paint",
    ],
)
def test_a_word_is_not_found_inside_a_longer_one(prompt: str, read: Reader) -> None:
    assert read.same(prompt, ("xpaint",), prompt, ())
    assert read(prompt, "xpaint")[1] == ("embeddings: xpaint is in neither prompt and had no effect",)


@pytest.mark.parametrize(
    "prompt",
    ["XPAINT", "a Xpaint.", "(xpaint)", "[xpaint:0.5]", "xpaint,circle", "circle/xpaint", "xpaint BREAK",
     "'xpaint'", "xpaint's", "一个xpaint圆", "a\nxpaint\n", "xpaint-like", "{xpaint|circle}"],
)  # fmt: skip
@pytest.mark.parametrize("weighted", [False, True])
def test_a_word_is_found_wherever_it_stands_for_itself(prompt: str, weighted: bool, read: Reader) -> None:
    assert not read.same(prompt, ("xpaint",), prompt, (), prompt_weighting=weighted)
    assert read(prompt, "xpaint", prompt_weighting=weighted)[1] == ()


@pytest.mark.parametrize(
    ("word", "prompt"),
    [
        ("Night_Scene", "a night_scene"),
        ("Night_Scene", "a NIGHT_SCENE"),
        ("<cat-toy>", "my<cat-toy>s"),
        ("<cat-toy>", "a <CAT-TOY>"),
        ("bad hands", "no bad hands"),
        ("bad hands", "no Bad   Hands, please"),
        ("a", "a circle"),
    ],
)
def test_words_of_any_letters_are_found_in_any_case(word: str, prompt: str, read: Reader) -> None:
    assert not read.same(prompt, (word,), prompt, ())
    assert read(prompt, word)[1] == ()


def test_words_that_the_text_encoder_has_anyway_become_the_new_ones(read: Reader) -> None:
    assert read.same("a circle", ("a",), "a circle", ("a", "xpaint"))
    assert read.same("circle", ("a",), "circle", ())


def test_a_word_in_a_negative_prompt_that_is_not_read_has_no_effect(read: Reader) -> None:
    said = {
        scale: read("a circle", "xpaint", negative_prompt="xpaint", guidance_scale=scale)[1]
        for scale in (7.5, 1.0)
    }
    assert said[7.5] == ()
    assert said[1.0] == (
        "embeddings: xpaint is in the negative prompt alone, which is not read, and had no effect",
    )


def test_a_word_of_more_vectors_than_fit_a_chunk_goes_on_in_the_next(read: Reader) -> None:
    assert read("many circles", "many")[0].shape[1] == 2 * 77


def test_brackets_weigh_a_word(read: Reader) -> None:
    assert not read.same("(xpaint:1.5)", ("xpaint",), "xpaint", ("xpaint",), prompt_weighting=True)


def test_of_two_words_that_differ_in_case_each_is_found_as_it_is_written() -> None:
    words = NewWords({"text_encoder": {"Foo": (1,), "foo": (2,), "foo bar": (3,)}})
    pieces = words.split("Foo foo FOO foo bar", "text_encoder")
    assert [piece for piece in pieces if isinstance(piece, tuple)] == [(1,), (2,), (1,), (3,)]
    assert words.used("foo bar") == {"foo bar"}
    assert words.used("") == set()
    assert NewWords({}).used("foo") == set()


# layouts


def layouts(width: int, second: int) -> dict[str, tuple[str, Any]]:
    """Every layout: pipeline and contents; each holds the same two vectors for each text encoder."""
    one, other = rows(2, width, 1), rows(2, second, 2)
    single = ("emb_params", "string_to_param.*", "*", "<cat>", "my-word", "clip_l", "clip_l.emb_params")
    found: dict[str, tuple[str, Any]] = {name: (SD15, {name: one}) for name in single}
    seconds = (*SECOND_ENCODER, *SECOND_ENCODER)
    for first, also in zip(FIRST_ENCODER, seconds, strict=False):
        found[f"{first} and {also}"] = (XL, {first: one, also: other})
    found["with outputs"] = (
        XL,
        {"clip_l": one, "clip_g": other, "clip_l_out": one + 1, "clip_g_out": -other},
    )
    return found


def test_the_table_of_layouts_has_every_name_that_is_read() -> None:
    names = " ".join(layouts(8, 8))
    assert all(name in names.split() or name in names for name in (*FIRST_ENCODER, *SECOND_ENCODER))


@pytest.mark.parametrize("layout", layouts(8, 8))
def test_every_layout_that_load_takes_is_drawn_with(
    layout: str, random_manifest: Manifest, families: Mapping[str, Any], tmp_path: Path
) -> None:
    pipeline = layouts(8, 8)[layout][0]
    encoders = [network for name, network in families[pipeline].modules.items() if name.startswith("text_")]
    widths = (encoders[0].config.hidden_size, encoders[-1].config.hidden_size)
    tensors = layouts(*widths)[layout][1]
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    found = inspect_file(path, random_manifest.path)
    assert (found.kind, found.family) == ("embedding", "sdxl" if pipeline == XL else "sd15")
    pictures = [encoded(families[pipeline], path, pipeline)]
    reference = {"clip_l": rows(2, widths[0], 1), "clip_g": rows(2, widths[1], 2)}
    plain = tmp_path / "plain.safetensors"
    save_file(reference if pipeline == XL else {"emb_params": reference["clip_l"]}, plain)
    pictures.append(encoded(families[pipeline], plain, pipeline))
    assert torch.equal(*pictures)
    assert not torch.equal(pictures[0], encoded(families[pipeline], None, pipeline))


@pytest.mark.parametrize("kind", ["bare", "named", "automatic1111", "one row"])
def test_pickles_of_weights_yaml_are_read_without_running_anything(
    kind: str, families: Mapping[str, Any], tmp_path: Path
) -> None:
    vectors = rows(1, families[SD15].modules["text_encoder"].config.hidden_size, 1)
    contents: dict[str, Any] = {
        "bare": vectors,
        "named": {"<cat>": vectors},
        "automatic1111": {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": vectors},
            "step": 7,
            "name": "x",
        },
        "one row": {"<cat>": vectors[0]},
    }
    torch.save(contents[kind], tmp_path / "x.pt")
    save_file({"emb_params": vectors}, tmp_path / "x.safetensors")
    read = [encoded(families[SD15], tmp_path / f"x.{end}", SD15) for end in ("pt", "safetensors")]
    assert torch.equal(*read)


@pytest.fixture(scope="module")
def families(random_manifest: Manifest) -> Mapping[str, Any]:
    return {name: open_family(random_manifest, name) for name in (SD15, XL)}


def encoded(family: Any, path: Path | None, pipeline: str, **changes: Any) -> Tensor:
    """The prompt as a family encodes it with a file under the name ``word``."""
    family.clear_cache()
    library = family._prompts._adapters
    known: Any = "sdxl" if pipeline == XL else "sd15"
    entries = {} if path is None else {"word": AdapterEntry(source=Source(file=path), family=known)}
    library.manifest = library.manifest.model_copy(update={"embeddings": entries})
    library.clear_cache()
    asked = replace(REQUEST, pipeline=pipeline, prompt="a word", embeddings=tuple(entries), **changes)
    return family._prompts.encode(asked).positive["encoder_hidden_states"]


def test_a_file_with_a_number_that_is_none_is_named(families: Mapping[str, Any], tmp_path: Path) -> None:
    width = families[SD15].modules["text_encoder"].config.hidden_size
    save_file({"emb_params": torch.full((2, width), torch.nan)}, tmp_path / "x.safetensors")
    with pytest.raises(
        UnknownAdapter, match=r"embeddings: word cannot be used: its tensor emb_params has numbers"
    ):
        encoded(families[SD15], tmp_path / "x.safetensors", SD15)
