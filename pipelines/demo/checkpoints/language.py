"""Small language models, a translator and a prompt writer; their texts mean nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from pipelines.demo.checkpoints.parts import fill
from pipelines.prompts.languages import CODES

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def build(folder: Path) -> None:
    """Write ``translator`` and ``prompt_writer`` under ``folder``."""
    _translator(folder / "translator")
    _prompt_writer(folder / "prompt_writer")


def _translator(folder: Path) -> None:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokens = [*special, "\u2581", *LETTERS, *(f"\u2581{letter}" for letter in LETTERS), *CODES, "<mask>"]
    tokenizer = MBart50Tokenizer(vocab=[(token, 0.0 if token in special else -5.0) for token in tokens])
    network = MBartForConditionalGeneration(
        MBartConfig(
            vocab_size=len(tokens),
            max_position_embeddings=1024,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=2,
            forced_eos_token_id=2,
        )
    )
    fill(network, seed=61)
    with torch.no_grad():
        # It says letters only: marks of languages and the end would be words that nobody sees.
        unseen = [tokens.index(token) for token in (*special, "\u2581", *CODES, "<mask>")]
        network.final_logits_bias[0, unseen] = -10.0
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _prompt_writer(folder: Path) -> None:
    # Letters, the space and the comma: what it writes can be read, if not understood.
    symbols = [*LETTERS, bytes_to_unicode()[ord(" ")], ",", "<|endoftext|>"]
    tokenizer = GPT2Tokenizer(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[])
    end = symbols.index("<|endoftext|>")
    network = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(symbols),
            n_positions=256,
            n_embd=32,
            n_layer=1,
            n_head=2,
            bos_token_id=end,
            eos_token_id=end,
        )
    )
    fill(network, seed=62)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
