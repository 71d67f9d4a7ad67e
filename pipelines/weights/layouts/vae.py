"""The VAEs of SD1.5 and SDXL. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.weights.layouts.tensors import Expected, convolution, linear, normalisation


def vae_layout(config: Mapping[str, Any]) -> Iterator[Expected]:
    """The tensors of a VAE.

    Args:
        config: its configuration in diffusers' words.
    """
    latents = int(config["latent_channels"])
    yield from _encoder(config, latents)
    yield from _decoder(config, latents)
    yield from convolution("quant_conv", "quant_conv", 2 * latents, 2 * latents, kernel=1)
    yield from convolution("post_quant_conv", "post_quant_conv", latents, latents, kernel=1)


def _encoder(config: Mapping[str, Any], latents: int) -> Iterator[Expected]:
    widths: Sequence[int] = config["block_out_channels"]
    layers = int(config["layers_per_block"])
    yield from convolution("encoder.conv_in", "encoder.conv_in", 3, widths[0])
    read = widths[0]
    for level, width in enumerate(widths):
        for layer in range(layers):
            name = f"encoder.down_blocks.{level}.resnets.{layer}"
            yield from _resnet(name, f"encoder.down.{level}.block.{layer}", read, width)
            read = width
        if level < len(widths) - 1:
            name = f"encoder.down_blocks.{level}.downsamplers.0.conv"
            yield from convolution(name, f"encoder.down.{level}.downsample.conv", width, width)
    yield from _middle("encoder", widths[-1])
    yield from normalisation("encoder.conv_norm_out", "encoder.norm_out", widths[-1])
    yield from convolution("encoder.conv_out", "encoder.conv_out", widths[-1], 2 * latents)


def _decoder(config: Mapping[str, Any], latents: int) -> Iterator[Expected]:
    widths: Sequence[int] = config["block_out_channels"]
    layers = int(config["layers_per_block"])
    yield from convolution("decoder.conv_in", "decoder.conv_in", latents, widths[-1])
    yield from _middle("decoder", widths[-1])
    read = widths[-1]
    for level, width in enumerate(reversed(widths)):
        original = f"decoder.up.{len(widths) - 1 - level}"
        for layer in range(layers + 1):
            name = f"decoder.up_blocks.{level}.resnets.{layer}"
            yield from _resnet(name, f"{original}.block.{layer}", read, width)
            read = width
        if level < len(widths) - 1:
            name = f"decoder.up_blocks.{level}.upsamplers.0.conv"
            yield from convolution(name, f"{original}.upsample.conv", width, width)
    yield from normalisation("decoder.conv_norm_out", "decoder.norm_out", widths[0])
    yield from convolution("decoder.conv_out", "decoder.conv_out", widths[0], 3)


def _middle(side: str, width: int) -> Iterator[Expected]:
    for index in (0, 1):
        name, original = f"{side}.mid_block.resnets.{index}", f"{side}.mid.block_{index + 1}"
        yield from _resnet(name, original, width, width)
    name, original = f"{side}.mid_block.attentions.0", f"{side}.mid.attn_1"
    yield from normalisation(f"{name}.group_norm", f"{original}.norm", width)
    for ours, theirs in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        yield from linear(f"{name}.{ours}", f"{original}.{theirs}", width, width)


def _resnet(name: str, original: str, read: int, width: int) -> Iterator[Expected]:
    yield from normalisation(f"{name}.norm1", f"{original}.norm1", read)
    yield from convolution(f"{name}.conv1", f"{original}.conv1", read, width)
    yield from normalisation(f"{name}.norm2", f"{original}.norm2", width)
    yield from convolution(f"{name}.conv2", f"{original}.conv2", width, width)
    if read != width:
        yield from convolution(f"{name}.conv_shortcut", f"{original}.nin_shortcut", read, width, kernel=1)
