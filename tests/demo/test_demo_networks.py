"""What the little world's networks begin with, and what the trained autoencoder keeps of a picture."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import Conv2d, GroupNorm, Linear, Sequential

from pipelines.demo.checkpoints import parts
from pipelines.demo.checkpoints.autoencoder import trained_autoencoder
from pipelines.demo.checkpoints.pedestals import put_on_pedestals
from pipelines.demo.checkpoints.words import QUALITIES, word_tokenizer
from pipelines.demo.judging.joints import joint_error, read_figure
from pipelines.demo.judging.judge import compare, read
from pipelines.demo.training import sample_sheets, train
from pipelines.demo.training.recipes.pictures import crops
from pipelines.demo.training.training import Recipe
from pipelines.demo.world.captions import LANGUAGES, wordings
from pipelines.demo.world.figure import FIGURE_COLORS, render_figure
from pipelines.demo.world.poses import random_figure
from pipelines.demo.world.world import combinations, random_scene, render
from pipelines.images.codec import from_image, to_image


class TestWords:
    def test_every_english_word_of_the_little_world_is_one_token(self) -> None:
        tokenizer = word_tokenizer()
        words = {
            word for seed in range(500) for said in wordings(random_scene(seed)) for word in said.split()
        }
        tokens = {word: tokenizer.tokenize(word.rstrip(",")) for word in words}
        assert len(words) > 40
        assert {word for word, pieces in tokens.items() if len(pieces) > 1} == set()

    def test_words_of_praise_are_short_and_any_text_is_readable(self) -> None:
        tokenizer = word_tokenizer()
        assert max(len(tokenizer.tokenize(word)) for word in QUALITIES) <= 2
        for text in (
            "a lighthouse, unreal engine",
            *(wordings(random_scene(1), each)[0] for each in LANGUAGES),
        ):
            ids = tokenizer(text).input_ids
            assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")
            assert tokenizer.unk_token_id not in ids[:-1]

    def test_a_caption_with_the_vendors_phrases_fits(self) -> None:
        praise = (
            "DSLR photography, sharp focus, Unreal Engine 5, Octane Render, Redshift, cinematic lighting, "
            "f/1.4, ISO 200, 1/160s, 8K, RAW, unedited, symmetrical balance, in-frame"
        )
        longest = max((said for seed in range(200) for said in wordings(random_scene(seed))), key=len)
        assert len(word_tokenizer()(f"{longest}, {praise}").input_ids) <= 77


class TestPedestals:
    def test_a_detail_keeps_its_contrast_whatever_is_around_it(self) -> None:
        def contrasts(block: Sequential) -> list[float]:
            """The contrasts of a detail on a flat ground and among strong noise."""
            generator = torch.Generator().manual_seed(1)
            pictures = torch.zeros(2, 3, 64, 64)
            pictures[1] = 2 * torch.randn(3, 64, 64, generator=generator)
            pictures[..., 16:48, 16:48] = torch.rand(3, 32, 32, generator=generator)
            with torch.no_grad():
                return block(pictures)[..., 20:44, 20:44].std((2, 3)).mean(1).tolist()

        torch.manual_seed(0)
        layers = {"conv_in": Conv2d(3, 16, 3, padding=1), "norm": GroupNorm(4, 16)}
        block = Sequential(OrderedDict(layers))
        calm, noisy = contrasts(block)
        assert noisy < 0.6 * calm
        put_on_pedestals(block)
        calm, noisy = contrasts(block)
        assert noisy > 0.9 * calm


class TestAutoencoder:
    @pytest.mark.slow
    def test_pictures_survive_it(self) -> None:
        vae = trained_autoencoder()
        scenes = list(combinations(held_out=False))[::40] + list(combinations(held_out=True))[::20]
        verdicts = []
        for scene in scenes:
            with torch.no_grad():
                latents = vae.encode(from_image(render(scene, 512), 512, 512)).latent_dist.mean
                decoded = to_image(vae.decode(latents).sample, 512, 512)
            verdicts.append(compare(read(decoded), scene))
        right = [verdict.ground and verdict.colors and verdict.shapes for verdict in verdicts]
        assert len(scenes) >= 20
        assert sum(right) >= 0.95 * len(right)

    @pytest.mark.parametrize("color", ["cyan", "orange"])
    def test_limbs_of_figures_survive_it_whose_tints_no_shape_has(self, color: str) -> None:
        ground = next(ground for figure, ground in FIGURE_COLORS if figure == color)
        figure = replace(random_figure(-1), color=color, ground=ground)
        vae = trained_autoencoder()
        with torch.no_grad():
            latents = vae.encode(from_image(render_figure(figure, 512), 512, 512)).latent_dist.mean
            seen = read_figure(to_image(vae.decode(latents).sample, 512, 512))
        assert seen is not None
        assert joint_error(seen, figure.person) < 0.03

    def test_its_scaled_latents_have_the_deviation_that_denoisers_expect(self) -> None:
        vae = trained_autoencoder()
        with torch.no_grad():
            latents = vae.encode(crops(5, 16, 256, smallest=256, largest=512)).latent_dist.mean
        assert latents.shape == (16, 4, 16, 16)
        assert (latents.std() * vae.config["scaling_factor"]).item() == pytest.approx(1, abs=0.15)


class TestTrainCommand:
    @pytest.fixture
    def line(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
        """A training of a straight line; returns where its weights go."""

        def recipe(folder: Path, device: torch.device) -> Recipe:
            return Recipe(
                build=lambda: {"line": Linear(1, 1)},
                loss=lambda modules, step: (modules["line"](torch.ones(1, 1)) - 3).square().sum(),
                steps=150,
                learning_rate=0.1,
                metadata=lambda modules: {"goes through": "3"},
            )

        monkeypatch.setitem(train.RECIPES, "line", recipe)
        monkeypatch.setitem(sample_sheets.SHEETS, "line", lambda: Image.new("RGB", (2, 1), "red"))
        monkeypatch.setattr(parts, "WEIGHTS", tmp_path / "weights")
        arguments = ["train", "line", "--seed", "7", "--device", "cpu", "--folder", str(tmp_path / "runs")]
        monkeypatch.setattr(sys, "argv", arguments)
        yield tmp_path / "weights" / "line.safetensors"
        # The command is the whole of its process elsewhere; later tests of this one count on such numbers.
        torch.set_flush_denormal(False)

    def test_it_ends_with_weights_and_a_sheet(self, line: Path, tmp_path: Path) -> None:
        train.main()
        kept = parts.load_weights("line")
        assert (kept["line.weight"].sum() + kept["line.bias"]).item() == pytest.approx(3, abs=0.05)
        assert parts.metadata_of("line") == {"seed": "7", "steps": "150", "goes through": "3"}
        assert Image.open(tmp_path / "runs" / "line" / "sheet.png").size == (2, 1)

    def test_a_finished_run_is_written_again_without_training(self, line: Path) -> None:
        train.main()
        first = parts.load_weights("line")
        line.unlink()
        train.main()
        assert all(torch.equal(tensor, first[name]) for name, tensor in parts.load_weights("line").items())

    def test_the_last_round_begins_with_the_weights_that_are_there(
        self, line: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        train.main()
        monkeypatch.setattr(sys, "argv", [*sys.argv, "--last-round", "--times", "2"])
        parts.save_weights(
            {"line.weight": torch.tensor([[1.0]]), "line.bias": torch.tensor([2.0])}, "line", {}
        )
        train.main()
        kept = parts.load_weights("line")
        assert kept["line.weight"].item() == pytest.approx(1, abs=0.05)
        assert kept["line.bias"].item() == pytest.approx(2, abs=0.05)
        said = parts.metadata_of("line")
        assert (said["steps"], said["times"], said["round"]) == ("150", "2", "last")
        assert (tmp_path / "runs" / "line" / "seed-7-times-2-last-round.pt").exists()
