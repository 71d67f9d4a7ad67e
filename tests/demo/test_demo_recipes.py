"""What denoisers of the little world learn, what they share, and how Kolors reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.checkpoints.tokenizers import glm_tokenizer
from pipelines.demo.checkpoints import kolors, sd15, sdxl, sdxl_unet
from pipelines.demo.checkpoints.glm_words import GLM_WORDS
from pipelines.demo.checkpoints.parts import load_trained
from pipelines.demo.training.recipes.diffusion import (
    FREE,
    FREE_FLOW,
    flow_loss,
    gently_guided_error,
    guided_error,
    signal_levels,
    velocity_loss,
)
from pipelines.demo.world.captions import LANGUAGES, Language, wordings
from pipelines.demo.world.world import random_scene

LATENTS = torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(1))
OTHERS = LATENTS.flip(0)


def knowing(noisy: Tensor, times: Tensor) -> Tensor:
    """The velocity of one who knows the latents."""
    level = signal_levels()[times].reshape(-1, 1, 1, 1)
    return (level.sqrt() * noisy - LATENTS[: len(noisy)]) / (1 - level).sqrt()


class TestVelocity:
    @pytest.mark.parametrize("others", [LATENTS, OTHERS], ids=["plain", "recoloured"])
    def test_who_knows_the_picture_makes_no_error_whatever_is_still_seen(self, others: Tensor) -> None:
        assert velocity_loss(knowing, LATENTS, others, 3).item() == pytest.approx(0, abs=1e-6)
        assert velocity_loss(lambda noisy, times: noisy, LATENTS, others, 3).item() > 0.1

    def test_old_colours_are_seen_as_far_as_a_straight_way_to_the_new_ones_leaves_them(self) -> None:
        def seen(others: Tensor) -> tuple[Tensor, Tensor]:
            rows: list[tuple[Tensor, Tensor]] = []
            velocity_loss(lambda *given: rows.append(given) or given[0], LATENTS, others, 3)
            return rows[0]

        (plain, times), (mixed, _) = seen(LATENTS), seen(OTHERS)
        levels = signal_levels()
        signal = levels[times].sqrt().reshape(-1, 1, 1, 1)
        shares = ((mixed - plain) / (signal * (OTHERS - LATENTS))).flatten(1).median(1).values
        noise = ((1 - levels) / levels).sqrt()
        most = torch.where(times < 700, (noise[times] / noise[150]).clamp(max=1), 0)
        assert ((shares > 0) == (times < 700)).all()
        assert (shares <= most + 1e-4).all()
        assert (shares / most)[times < 700].max() > 0.7

    def test_times_stand_closer_where_noise_shows_where_shapes_end(self) -> None:
        seen: list[int] = []

        def listening(noisy: Tensor, times: Tensor) -> Tensor:
            seen.extend(times.tolist())
            return noisy

        velocity_loss(listening, LATENTS, LATENTS, 3)
        assert seen == sorted(seen)
        assert [time < 600 for time in seen] == [True] * 6 + [False] * 2

    def test_what_guidance_makes_of_two_answers_to_the_same_noise_is_to_be_right(self) -> None:
        def apart(noisy: Tensor, times: Tensor) -> Tensor:
            assert torch.equal(*noisy.chunk(2))
            assert torch.equal(*times.chunk(2))
            right = knowing(noisy[:8], times[:8])
            return torch.cat([right + 0.3, right + 0.4])

        # Guidance of 4 leads to 0.4 - 4 * 0.1 = 0. The answer to no prompt is 0.4 off.
        loss = velocity_loss(apart, LATENTS, LATENTS, 3, guidance=4)
        assert loss.item() == pytest.approx(FREE * 0.16, rel=1e-4)

    def test_without_a_prompt_a_recoloured_picture_is_what_it_looks_like(self) -> None:
        rows: list[Tensor] = []

        def seeing(noisy: Tensor, times: Tensor) -> Tensor:
            rows.append(noisy[:8])
            level = signal_levels()[times[:8]].reshape(-1, 1, 1, 1)
            seen = LATENTS + (noisy[:8] - rows[0]) / level.sqrt()
            free = (level.sqrt() * noisy[:8] - seen) / (1 - level).sqrt()
            return torch.cat([free + (knowing(noisy[:8], times[:8]) - free) / 4, free])

        losses = [velocity_loss(seeing, LATENTS, others, 3, guidance=4) for others in (LATENTS, OTHERS)]
        assert torch.stack(losses).tolist() == pytest.approx([0, 0], abs=1e-6)
        assert not torch.equal(*rows)


class TestFlow:
    @pytest.mark.parametrize("others", [LATENTS, OTHERS], ids=["plain", "recoloured"])
    def test_who_knows_the_picture_makes_no_error_at_any_level(self, others: Tensor) -> None:
        levels: list[float] = []

        def flowing(noisy: Tensor, timesteps: Tensor) -> Tensor:
            level = timesteps.reshape(-1, 1, 1, 1) / 1000
            levels.extend(level.flatten().tolist())
            return (noisy - LATENTS) / level

        assert flow_loss(flowing, LATENTS, others, 3, shift=3.0).item() == pytest.approx(0, abs=1e-6)
        # Each in its part of the ways from picture to noise, most of them with more noise than picture.
        parts = [level / (3 - 2 * level) for level in levels]
        assert [int(part * len(parts)) for part in parts] == list(range(len(parts)))

    def test_what_guidance_makes_of_two_answers_is_to_be_right(self) -> None:
        def apart(noisy: Tensor, timesteps: Tensor) -> Tensor:
            right = (noisy[:8] - LATENTS) / (timesteps[:8].reshape(-1, 1, 1, 1) / 1000)
            return torch.cat([right + 0.3, right + 0.4])

        loss = flow_loss(apart, LATENTS, LATENTS, 3, shift=3.0, guidance=4)
        assert loss.item() == pytest.approx(FREE_FLOW * 0.16, rel=1e-4)

    def test_other_colours_are_seen_and_without_a_prompt_are_to_stay(self) -> None:
        rows: list[Tensor] = []

        def seeing(noisy: Tensor, timesteps: Tensor) -> Tensor:
            rows.append(noisy[:8])
            level = timesteps[:8].reshape(-1, 1, 1, 1) / 1000
            seen = LATENTS + (noisy[:8] - rows[0]) / (1 - level)
            free, right = (noisy[:8] - seen) / level, (noisy[:8] - LATENTS) / level
            return torch.cat([free + (right - free) / 4, free])

        losses = [
            flow_loss(seeing, LATENTS, others, 3, shift=3.0, guidance=4) for others in (LATENTS, OTHERS)
        ]
        assert torch.stack(losses).tolist() == pytest.approx([0, 0], abs=1e-6)
        assert not torch.equal(*rows)

    def test_only_answers_to_prompts_learn_of_what_guidance_makes_of_them(self) -> None:
        gradients: list[float] = []
        for error in (guided_error, gently_guided_error):
            prompted, other = (torch.zeros(4, requires_grad=True) for _ in range(2))
            error(prompted + 1, other, torch.zeros(4), 4.0).backward()
            assert prompted.grad is not None
            assert other.grad is not None
            assert prompted.grad.abs().min() > 0
            gradients.append(other.grad.abs().max().item())
        assert gradients[0] > 0 == gradients[1]


class TestSharedUNet:
    def test_it_begins_as_the_network_that_it_shares(self) -> None:
        shared, wide = load_trained(sd15.unet(), "sd15", "unet"), sdxl_unet.unet(sdxl.TEXT_WIDTH).eval()
        text, more = torch.randn(2, 1, 77, sd15.TEXT_WIDTH)
        added = {"text_embeds": torch.randn(1, sdxl_unet.POOLED_WIDTH), "time_ids": torch.ones(1, 6)}
        with torch.no_grad():
            known = shared(LATENTS[:1], 500, text).sample
            drawn = wide(LATENTS[:1], 500, torch.cat([more, text], -1), added_cond_kwargs=added).sample
        assert torch.allclose(known, drawn, atol=1e-4)

    @pytest.mark.parametrize(("file", "given"), [("sdxl", (sdxl.TEXT_WIDTH,)), ("kolors", ())])
    def test_what_it_does_not_own_stays_shared(self, file: str, given: tuple[int, ...]) -> None:
        network = sdxl_unet.trained_unet(file, *given, **({} if given else kolors.UNET))
        shared = dict(load_trained(sd15.unet(), "sd15", "unet").named_parameters())
        own = {name for name, _ in network.named_parameters() if sdxl_unet.is_own(name)}
        for name, parameter in network.named_parameters():
            if name not in own:
                assert torch.equal(parameter.flatten(), shared[name].flatten()), name
        assert 0.01 < sum(network.get_parameter(name).numel() for name in own) / 3.3e6 < 0.1


class TestChatGLMWords:
    @pytest.mark.parametrize("language", LANGUAGES)
    def test_every_word_of_the_little_world_is_one_token(self, language: Language, tmp_path: Path) -> None:
        tokenizer = glm_tokenizer(tmp_path, GLM_WORDS)
        for seed in range(100):
            for said in wordings(random_scene(seed), language):
                pieces = [piece.strip("\u2581") for piece in tokenizer.tokenize(said)]
                assert {piece for piece in pieces if len(piece) < 2} <= {"", "a", ",", *"的和有在，：上小大"}

    def test_any_text_is_readable(self, tmp_path: Path) -> None:
        tokenizer = glm_tokenizer(tmp_path, GLM_WORDS)
        for text in ("a lighthouse, unreal engine 5", "灯塔", "😀"):
            read = tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True)
            assert read.strip().endswith(text)
