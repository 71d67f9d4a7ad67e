"""The small SD3-medium checkpoint and its ControlNet, trained by `pipelines.demo.training.recipes.sd3`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3ControlNetModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

from pipelines.demo.checkpoints import sd15, sdxl
from pipelines.demo.checkpoints.autoencoder import large_autoencoder, with_sixteen_channels
from pipelines.demo.checkpoints.modulations import lengthened
from pipelines.demo.checkpoints.parts import Network, load_part
from pipelines.demo.checkpoints.words import ENGLISH, QUALITIES, word_tokenizer

_WIDTH = 2 * sd15.TEXT_WIDTH
"""The width of the transformer, of T5's states, and of both CLIP encoders' states together."""
_HEADS = 4
_LAYERS, _CONTROL_LAYERS = 6, 2
SHIFT = 3.0
"""The shift of the noise levels towards much noise."""

_TRANSFORMER: dict[str, Any] = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "attention_head_dim": _WIDTH // _HEADS,
    "num_attention_heads": _HEADS,
    "joint_attention_dim": _WIDTH,
    "caption_projection_dim": _WIDTH,
    "pooled_projection_dim": _WIDTH,
    "pos_embed_max_size": 64,
}
"""The configuration that transformer and ControlNet share. A patch is 64 pixels a side, and a picture has
256 of them. Positions are counted in whole patches, as ``sample_size`` is that of the largest picture: in
smaller steps neighbours would look the same.
"""


def build(folder: Path) -> None:
    """Write ``sd3`` and ``sd3_pose_controlnet`` under ``folder``."""
    StableDiffusion3Pipeline(
        transformer=_trained(transformer(), "transformer"),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=with_sixteen_channels(large_autoencoder()),
        text_encoder=clip_text_encoder(),
        tokenizer=word_tokenizer(),
        text_encoder_2=clip_text_encoder(),
        tokenizer_2=sdxl.tokenizer_2(),
        text_encoder_3=_with_weights(text_encoder_3(), load_part("sd3", "text_encoder_3")),
        tokenizer_3=tokenizer_3(),
    ).save_pretrained(folder / "sd3")
    _trained(controlnet(), "controlnet").save_pretrained(folder / "sd3_pose_controlnet")


def transformer() -> SD3Transformer2DModel:
    """The untrained transformer."""
    return SD3Transformer2DModel(num_layers=_LAYERS, **_TRANSFORMER)


def controlnet() -> SD3ControlNetModel:
    """The untrained ControlNet. Its last block's output for the text, which nothing reads, stays zero."""
    network = SD3ControlNetModel(num_layers=_CONTROL_LAYERS, **_TRANSFORMER)
    last: Any = network.transformer_blocks[-1]
    for layer in (last.ff_context, last.attn.to_add_out, last.attn.add_q_proj):
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter.requires_grad_(False))
    return network


def clip_text_encoder() -> CLIPTextModelWithProjection:
    """The text encoder that all families share, with "figure" read as "shape"; for either tokenizer."""
    encoder = sd15.trained_projecting_text_encoder()
    words: Any = encoder.get_input_embeddings().weight
    figure, shape = (word_tokenizer().convert_tokens_to_ids(f"{word}</w>") for word in ("figure", "shape"))
    with torch.no_grad():
        words[figure] = words[shape]
    return encoder


def text_encoder_3() -> T5EncoderModel:
    """The untrained T5 text encoder."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer_3()),
            d_model=_WIDTH,
            d_kv=_WIDTH // _HEADS,
            d_ff=2 * _WIDTH,
            num_layers=2,
            num_heads=_HEADS,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )


@cache
def tokenizer_3() -> T5Tokenizer:
    """A Unigram tokenizer of whole words and single ASCII characters; all else becomes ``<unk>``."""
    characters = ["\u2581", *map(chr, range(ord("!"), ord("~") + 1))]
    words = dict.fromkeys("\u2581" + word for word in (*ENGLISH, *QUALITIES) if word.isalnum())
    vocabulary = [
        *((special, 0.0) for special in ("<pad>", "</s>", "<unk>")),
        *((character, -10.0) for character in characters),
        *((word, -5.0) for word in words),
    ]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def _trained(network: Network, part: str) -> Network:
    return _with_weights(network, lengthened(load_part("sd3", part)))


def _with_weights(network: Network, known: Mapping[str, Tensor]) -> Network:
    """A network with its trained weights, which replace all parameters that can be trained."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(known[name])
    return network.eval()
