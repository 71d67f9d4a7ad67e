"""Weighted and long prompts of SD1.5 and SDXL, against embeddings computed by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.errors import InvalidInput
from pipelines.request import TextToImage
from pipelines.weights.entries import AdapterEntry, Source
from pipelines.weights.manifest import Manifest
from tests.drawing import array, draw, draw_moving_group, largest_difference, open_family

START, END = 512, 513
FAMILIES = {"sd15": "stable-diffusion-v1-5", "sdxl": "sdxl"}
ENCODERS = {"sd15": ("text_encoder",), "sdxl": ("text_encoder", "text_encoder_2")}


def request(name: str, **changes: Any) -> TextToImage:
    return replace(
        TextToImage(
            pipeline=FAMILIES[name],
            prompt="a red fox",
            negative_prompt="dull",
            width=64,
            height=64,
            num_inference_steps=2,
            guidance_scale=7.5,
            seeds=(3,),
            prompt_weighting=True,
        ),
        **changes,
    )


@pytest.fixture(scope="module")
def opened(manifest: Manifest) -> dict[str, Any]:
    """Both families, their hidden states moved away from zero as those of trained encoders are."""
    families = {name: open_family(manifest, pipeline) for name, pipeline in FAMILIES.items()}
    with torch.no_grad():
        families["sd15"].modules["text_encoder"].final_layer_norm.bias += 0.3
        for encoder in ENCODERS["sdxl"]:
            for part, parameter in families["sdxl"].modules[encoder].named_parameters():
                parameter += 0.4 * part.endswith("position_embedding.weight")
    return families


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def family(name: str, opened: dict[str, Any]) -> Any:
    return opened[name]


def ids(text: str) -> list[int]:
    """Token ids of words of ASCII letters: one for each letter, the last of a word has its own."""
    return [
        ord(letter) - ord("!") + (256 if index == len(word) - 1 else 0)
        for word in text.split()
        for index, letter in enumerate(word)
    ]


def line(tokens: Sequence[int]) -> list[int]:
    return [START, *tokens, END]


@torch.no_grad()
def states(family: Any, name: str, encoder: str, tokens: list[int], clip_skip: int = 0) -> Tensor:
    """(77, width), as the family uses them."""
    network = family.modules[encoder]
    # The second tokenizer of SDXL fills up with exclamation marks.
    filled = tokens + [0 if encoder == "text_encoder_2" else END] * (77 - len(tokens))
    hidden = network(torch.tensor([filled]), output_hidden_states=True).hidden_states
    if name == "sdxl":
        return hidden[-2 - clip_skip][0]
    return network.final_layer_norm(hidden[-1 - clip_skip])[0]


def restored(weighed: Tensor, plain: Tensor) -> Tensor:
    return weighed * (plain.mean() / weighed.mean())


def side_by_side(family: Any, name: str, tokens: list[int], weights: dict[int, float], **more: Any) -> Tensor:
    """One chunk by hand. Weights: position -> weight."""
    parts: list[Tensor] = []
    for encoder in ENCODERS[name]:
        plain = states(family, name, encoder, tokens, **more)
        weighed = plain.clone()
        for position, weight in weights.items():
            weighed[position] *= weight
        parts.append(restored(weighed, plain))
    return torch.cat(parts, -1)


def conditioning(family: Any, wanted: TextToImage) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    told = family.encode(wanted)[0].conditioning
    return told.positive, told.negative


def test_words_in_brackets_are_multiplied_and_the_mean_restored(family: Any, name: str) -> None:
    # positions: start, a, r, e, d, f, o, x
    wanted = request(name, prompt="a (red:1.5) [fox]", negative_prompt="((dull)) sky")
    positive, negative = conditioning(family, wanted)
    red = dict.fromkeys((2, 3, 4), 1.5)
    fox = dict.fromkeys((5, 6, 7), 1 / 1.1)
    expected = side_by_side(family, name, line(ids("a red fox")), red | fox)
    assert torch.allclose(positive["encoder_hidden_states"][0], expected, atol=1e-5)
    expected = side_by_side(family, name, line(ids("dull sky")), dict.fromkeys((1, 2, 3, 4), 1.21))
    assert torch.allclose(negative["encoder_hidden_states"][0], expected, atol=1e-5)


def test_the_pooled_embedding_is_that_of_the_text_without_weights(opened: dict[str, Any]) -> None:
    weighed, _ = conditioning(opened["sdxl"], request("sdxl", prompt="a (red:1.5) fox"))
    plain, _ = conditioning(opened["sdxl"], request("sdxl"))
    assert torch.equal(weighed["text_embeds"], plain["text_embeds"])
    assert not torch.equal(weighed["encoder_hidden_states"], plain["encoder_hidden_states"])


def test_a_mean_that_is_nothing_but_rounding_is_not_restored(manifest: Manifest) -> None:
    """The small SD1.5 encoder ends in a normalisation without a bias: every mean is about 1e-9."""
    family = open_family(manifest, FAMILIES["sd15"])
    positive, _ = conditioning(family, request("sd15", prompt="a (red:1.5) fox"))
    expected = states(family, "sd15", "text_encoder", line(ids("a red fox"))).clone()
    expected[2:5] *= 1.5
    assert torch.allclose(positive["encoder_hidden_states"][0], expected, atol=1e-5)


@pytest.mark.parametrize("clip_skip", [None, 2])
def test_a_long_prompt_is_read_in_chunks_of_75_tokens_each_with_start_and_end(
    clip_skip: int | None, family: Any, name: str
) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz" * 7  # 182 tokens, the last one word-final
    wanted = request(name, prompt=letters, negative_prompt="dull", clip_skip=clip_skip)
    positive, negative = conditioning(family, wanted)
    tokens = ids(letters)
    read = [
        torch.cat([states(family, name, encoder, chunk, clip_skip or 0) for encoder in ENCODERS[name]], -1)
        for chunk in (line(tokens[:75]), line(tokens[75:150]), line(tokens[150:]))
    ]
    assert torch.allclose(positive["encoder_hidden_states"][0], torch.cat(read), atol=1e-5)
    read = [
        torch.cat([states(family, name, encoder, chunk) for encoder in ENCODERS[name]], -1)
        for chunk in (line(ids("dull")), line([]), line([]))
    ]
    assert torch.allclose(negative["encoder_hidden_states"][0], torch.cat(read), atol=1e-5)


def test_the_pooled_embedding_of_a_long_prompt_is_that_of_its_first_chunk(opened: dict[str, Any]) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz" * 4
    long, _ = conditioning(opened["sdxl"], request("sdxl", prompt=letters))
    encoder = opened["sdxl"].modules["text_encoder_2"]
    with torch.no_grad():
        first = encoder(torch.tensor([line(ids(letters)[:75])])).text_embeds
    assert torch.allclose(long["text_embeds"], first, atol=1e-5)


def test_a_negative_prompt_may_be_the_longer_one(family: Any, name: str) -> None:
    positive, negative = conditioning(family, request(name, prompt="fox", negative_prompt="x" * 80))
    shapes = {told["encoder_hidden_states"].shape[1] for told in (positive, negative)}
    assert shapes == {2 * 77}


def test_without_a_negative_prompt_a_long_one_has_its_own_kind_of_nothing(opened: dict[str, Any]) -> None:
    wanted = request("sdxl", prompt="x" * 80, negative_prompt=None)
    positive, negative = conditioning(opened["sdxl"], wanted)
    assert negative["encoder_hidden_states"].shape == positive["encoder_hidden_states"].shape
    assert not negative["encoder_hidden_states"].any()
    _, negative = conditioning(opened["sdxl"], replace(wanted, negative_prompt=""))
    assert negative["encoder_hidden_states"].any()


def test_without_weighting_brackets_are_characters(family: Any, name: str) -> None:
    bracketed = request(name, prompt="a (red:1.5) fox", negative_prompt="[dull]")
    plain = conditioning(family, replace(bracketed, prompt_weighting=False))
    escaped = conditioning(
        family, replace(bracketed, prompt=r"a \(red:1.5\) fox", negative_prompt=r"\[dull\]")
    )
    weighed = conditioning(family, bracketed)
    for one, same, other in zip(plain, escaped, weighed, strict=True):
        assert torch.equal(one["encoder_hidden_states"], same["encoder_hidden_states"])
        assert not torch.equal(one["encoder_hidden_states"], other["encoder_hidden_states"])


def test_a_text_of_2400_tokens_is_read_and_a_longer_one_refused_by_name(opened: dict[str, Any]) -> None:
    positive, _ = conditioning(opened["sd15"], request("sd15", prompt="x" * 2400))
    assert positive["encoder_hidden_states"].shape[1] == 32 * 77
    for field in ("prompt", "negative_prompt"):
        with pytest.raises(InvalidInput, match=f"^{field}: is longer than the 2400 tokens"):
            opened["sd15"].encode(request("sd15", **{field: "x" * 2401}))


@pytest.fixture
def nothing_is_said(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    capfd.readouterr()
    yield
    assert "longer than" not in "".join(capfd.readouterr())


@pytest.mark.usefixtures("nothing_is_said")
def test_nothing_warns_of_a_long_prompt(manifest: Manifest) -> None:
    (picture,) = draw(
        open_family(manifest, FAMILIES["sd15"]),
        request("sd15", prompt="(x:1.2)" * 200, num_inference_steps=3),
    )
    assert picture.warnings == ()


def test_pictures_of_prompts_of_any_length_are_drawn_together(family: Any, name: str) -> None:
    requests = [
        request(name, prompt=prompt, negative_prompt=negative, seeds=(index,), num_inference_steps=2 + index)
        for index, (prompt, negative) in enumerate(
            [("fox", "dull"), ("x" * 80, ""), ("a (red:1.4) fox", "x" * 160), ("y" * 90, "(dull)")]
        )
    ]
    together = draw_moving_group(family, requests)
    for wanted, picture in zip(requests, together, strict=True):
        assert largest_difference(picture, array(draw(family, wanted)[0].image)) <= 1


def test_every_weight_and_every_chunk_is_seen_in_the_picture(family: Any, name: str) -> None:
    prompts = [
        "red fox",
        "(red) fox",
        "[red] fox",
        "(red:1.3) fox",
        "x" * 75,
        "x" * 76,
        "x" * 75 + " (y:1.2)",
    ]
    pictures = [draw(family, request(name, prompt=prompt))[0].image for prompt in prompts]
    assert len(set(pictures)) == len(prompts)
    assert draw(family, request(name, prompt=prompts[0]))[0].image == pictures[0]


# new words


@pytest.fixture(scope="module")
def with_words(manifest: Manifest) -> Any:
    """An SD1.5 checkpoint whose adapters have a word of three vectors."""
    folder = manifest.path.parent
    torch.manual_seed(4)
    save_file({"emb_params": torch.randn(3, 64)}, folder / "triple.safetensors")
    entry = AdapterEntry(source=Source(file="triple.safetensors"), family="sd15")
    family = open_family(manifest.model_copy(update={"embeddings": {"triple": entry}}), FAMILIES["sd15"])
    with torch.no_grad():
        family.modules["text_encoder"].final_layer_norm.bias += 0.3
    return family


def read_with_vectors(family: Any, manifest: Manifest, chunk: list[int]) -> Tensor:
    """Hidden states of token ids of which 514, 515 and 516 are the three vectors."""
    encoder = family.modules["text_encoder"]
    vectors = load_file(manifest.path.parent / "triple.safetensors")["emb_params"]
    table = encoder.get_input_embeddings()
    encoder.set_input_embeddings(torch.nn.Embedding.from_pretrained(torch.cat([table.weight.data, vectors])))
    try:
        return states(family, "sd15", "text_encoder", chunk)
    finally:
        encoder.set_input_embeddings(table)


def test_a_word_of_several_vectors_can_be_weighed(with_words: Any, manifest: Manifest) -> None:
    positive, _ = conditioning(
        with_words, request("sd15", prompt="a (triple:1.5) fox", embeddings=("triple",))
    )
    plain = read_with_vectors(with_words, manifest, line([*ids("a"), 514, 515, 516, *ids("fox")]))
    weighed = plain.clone()
    weighed[2:5] *= 1.5
    assert torch.allclose(positive["encoder_hidden_states"][0], restored(weighed, plain), atol=1e-5)


def test_a_word_of_several_vectors_is_not_torn_by_a_chunks_end(with_words: Any, manifest: Manifest) -> None:
    letters = "x" * 73
    positive, _ = conditioning(
        with_words, request("sd15", prompt=f"{letters} triple triple fox", embeddings=("triple",))
    )
    vectors = [514, 515, 516]
    read = [
        read_with_vectors(with_words, manifest, chunk)
        for chunk in (line(ids(letters)), line([*vectors, *vectors, *ids("fox")]))
    ]
    assert torch.allclose(positive["encoder_hidden_states"][0], torch.cat(read), atol=1e-5)


def test_an_embedding_that_no_prompt_names_is_reported(with_words: Any) -> None:
    (picture,) = draw(with_words, request("sd15", embeddings=("triple",), num_inference_steps=3))
    assert picture.warnings == ("embeddings: triple is in neither prompt and had no effect",)
    named = request("sd15", negative_prompt="triple", embeddings=("triple",), num_inference_steps=3)
    (picture,) = draw(with_words, named)
    assert picture.warnings == ()
