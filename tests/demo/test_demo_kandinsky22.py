"""What the networks of the small Kandinsky 2.2 checkpoint have learned, one by one."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import CLIPImageProcessor

from pipelines.demo.checkpoints import kandinsky22
from pipelines.demo.checkpoints.autoencoder import trained_autoencoder
from pipelines.demo.checkpoints.movq import trained_movq
from pipelines.demo.checkpoints.parts import load_trained
from pipelines.demo.judging.judge import compare, read
from pipelines.demo.training.recipes import image_embeddings
from pipelines.demo.training.recipes.image_embeddings import embeddings
from pipelines.demo.training.recipes.kandinsky_prior import GUIDANCE, LENGTH
from pipelines.demo.world.captions import wordings
from pipelines.demo.world.world import combinations, random_scene, render
from pipelines.image_io import to_pil
from pipelines.images.codec import from_image, to_image

SCENES = [random_scene(seed) for seed in range(40_000, 40_032)]
"""None of them was in a training."""


@cache
def right() -> Tensor:
    """(B, width): their normalised embeddings."""
    return embeddings(SCENES)


def nearest(found: Tensor) -> float:
    """How many of these are nearer to their own scene's embedding than to another's."""
    return (torch.cdist(found, right()).argmin(1) == torch.arange(len(SCENES))).float().mean().item()


@pytest.fixture(scope="module")
def prior() -> kandinsky22.PriorTransformer:
    return load_trained(kandinsky22.prior(), "kandinsky_prior", "prior")


@pytest.fixture(scope="module")
def encoder() -> kandinsky22.CLIPVisionModelWithProjection:
    return load_trained(kandinsky22.image_encoder(), "clip_image", "image_encoder")


class TestEmbeddings:
    def test_they_are_normalised_and_each_scene_has_its_own(self) -> None:
        assert right().mean().item() == pytest.approx(0, abs=0.1)
        assert right().std().item() == pytest.approx(1, abs=0.15)
        apart = torch.cdist(right(), right()) + 100 * torch.eye(len(SCENES))
        assert apart.min().item() > 0.5


class TestPrior:
    def found(self, prior: kandinsky22.PriorTransformer, texts: list[str], seen: Tensor) -> Tensor:
        told = image_embeddings.read(texts)
        missing = LENGTH - told.tokens.shape[1]
        with torch.no_grad():
            return prior(
                seen,
                torch.full((len(seen),), 999),
                told.whole,
                pad(told.tokens, (0, 0, 0, missing)),
                pad(told.mask, (0, missing)),
            ).predicted_image_embedding

    @pytest.mark.parametrize("wording", range(5))
    def test_any_wording_of_a_caption_leads_to_the_picture(
        self, prior: kandinsky22.PriorTransformer, wording: int
    ) -> None:
        noise = torch.randn(right().shape, generator=torch.Generator().manual_seed(1))
        prompted = self.found(prior, [wordings(scene)[wording] for scene in SCENES], noise)
        other = self.found(prior, [""] * len(SCENES), noise)
        led = other + GUIDANCE * (prompted - other)
        assert nearest(led) >= 0.9
        assert (led - right()).square().mean().item() < 0.1
        assert (other - right()).square().mean().item() > 0.5


class TestImageEncoder:
    def normalised(self, encoder: kandinsky22.CLIPVisionModelWithProjection, pictures: Tensor) -> Tensor:
        mean, deviation = image_embeddings.statistics()
        with torch.no_grad():
            return (encoder(pictures).image_embeds - mean) / deviation

    def test_it_says_of_a_picture_what_its_caption_says(
        self, encoder: kandinsky22.CLIPVisionModelWithProjection
    ) -> None:
        side = kandinsky22.IMAGE_SIDE
        processor = CLIPImageProcessor(crop_size=side, size={"shortest_edge": side})
        pictures = [to_pil(render(scene, 256)) for scene in SCENES]
        said = self.normalised(encoder, processor(pictures, return_tensors="pt").pixel_values)
        assert nearest(said) >= 0.5

    def test_no_picture_says_nothing(self, encoder: kandinsky22.CLIPVisionModelWithProjection) -> None:
        side = kandinsky22.IMAGE_SIDE
        said = self.normalised(encoder, torch.zeros(1, 3, side, side))
        assert said.square().mean().item() < 0.05


class TestMoVQ:
    @pytest.mark.slow
    def test_it_shows_what_the_other_autoencoder_has_encoded(self) -> None:
        vae, movq = trained_autoencoder(), trained_movq()
        scenes = list(combinations(held_out=False))[::80]
        verdicts = []
        for scene in scenes:
            with torch.no_grad():
                latents = vae.encode(from_image(render(scene, 512), 512, 512)).latent_dist.mean
                latents *= vae.config["scaling_factor"]
                decoded = movq.decode(latents, force_not_quantize=True).sample
            assert decoded.shape == (1, 3, 512, 512)
            verdicts.append(compare(read(to_image(decoded, 512, 512)), scene))
        shown = [verdict.ground and verdict.colors and verdict.shapes for verdict in verdicts]
        assert len(scenes) >= 8
        assert sum(shown) >= 0.9 * len(shown)


class TestDecoder:
    def test_its_variance_is_always_the_least(self) -> None:
        network = load_trained(kandinsky22.unet(), "kandinsky22", "unet")
        with torch.no_grad():
            drawn = network(
                torch.randn(2, 4, 16, 16),
                500,
                None,
                added_cond_kwargs={"image_embeds": torch.randn(2, kandinsky22.EMBEDDING_WIDTH)},
            ).sample
        velocity, variance = drawn.chunk(2, 1)
        assert velocity.std() > 0.1
        assert torch.allclose(variance, torch.tensor(-1.0), atol=0.02)
