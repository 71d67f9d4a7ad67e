"""UNets of SD1.5 and SDXL, whole or distilled, and ControlNets, which are their first halves. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

from pipelines.weights.layouts.tensors import Expected, convolution, linear, normalisation

_TIME_WIDTH = 4
"""How many times wider than its first level a UNet's embedding of the time is."""

_HINT_CHANNELS = (16, 32, 96, 256)
"""The channels of a ControlNet's layers on the control image, in all published ones."""


def unet_layout(config: Mapping[str, Any]) -> Iterator[Expected]:
    """The tensors of a UNet.

    Args:
        config: its configuration in diffusers' words.
    """
    widths, layers = _widths(config), int(config["layers_per_block"])
    first = widths[0]
    yield from _embeddings(config)
    yield from _way_down(config)
    yield from _middle(config)
    skipped = [first]
    for level, width in enumerate(widths):
        skipped += [width] * (layers + (level < len(widths) - 1))
    block, read = 0, widths[-1]
    depths = up_depths(config)
    for level, width in enumerate(reversed(widths)):
        attentive = "Attn" in config["up_block_types"][level]
        for layer in range(layers + 1):
            yield from _resnet(
                f"up_blocks.{level}.resnets.{layer}",
                f"output_blocks.{block}.0",
                read + skipped.pop(),
                width,
                first,
            )
            if attentive:
                yield from _transformer(
                    f"up_blocks.{level}.attentions.{layer}",
                    f"output_blocks.{block}.1",
                    width,
                    depths[level][layer],
                    config,
                )
            block, read = block + 1, width
        if level < len(widths) - 1:
            place = f"output_blocks.{block - 1}.{2 if attentive else 1}.conv"
            yield from convolution(f"up_blocks.{level}.upsamplers.0.conv", place, width, width)
    yield from normalisation("conv_norm_out", "out.0", first)
    yield from convolution("conv_out", "out.2", first, int(config.get("out_channels", 4)))


def controlnet_layout(config: Mapping[str, Any]) -> Iterator[Expected]:
    """The tensors of a ControlNet.

    Args:
        config: the configuration of the UNet that it steers, or of itself.
    """
    widths, layers = _widths(config), int(config["layers_per_block"])
    yield from _embeddings(config)
    yield from _way_down(config)
    yield from _middle(config)
    zeros = [widths[0]]
    for level, width in enumerate(widths):
        zeros += [width] * (layers + (level < len(widths) - 1))
    for index, width in enumerate(zeros):
        yield from convolution(
            f"controlnet_down_blocks.{index}", f"zero_convs.{index}.0", width, width, kernel=1
        )
    yield from convolution("controlnet_mid_block", "middle_block_out.0", widths[-1], widths[-1], kernel=1)
    channels: Sequence[int] = config.get("conditioning_embedding_out_channels") or _HINT_CHANNELS
    hint = "controlnet_cond_embedding"
    yield from convolution(f"{hint}.conv_in", "input_hint_block.0", 3, channels[0])
    pairs = [pair for low, high in pairwise(channels) for pair in ((low, low), (low, high))]
    for index, (read, width) in enumerate(pairs):
        yield from convolution(f"{hint}.blocks.{index}", f"input_hint_block.{2 * index + 2}", read, width)
    last = f"input_hint_block.{2 * len(pairs) + 2}"
    yield from convolution(f"{hint}.conv_out", last, channels[-1], widths[0])


def down_depths(config: Mapping[str, Any]) -> list[list[int]]:
    """The number of transformer blocks in each attention, by level and layer on the way down."""
    given = config.get("transformer_layers_per_block") or 1
    levels = [given] * len(config["block_out_channels"]) if isinstance(given, int) else list(given)
    layers = int(config["layers_per_block"])
    return [[level] * layers if isinstance(level, int) else list(level) for level in levels]


def up_depths(config: Mapping[str, Any]) -> list[list[int]]:
    """The number of transformer blocks in each attention, by level and layer on the way up."""
    given = cast("Sequence[Any] | None", config.get("reverse_transformer_layers_per_block"))
    layers = int(config["layers_per_block"]) + 1
    if given is not None:
        return [[level] * layers if isinstance(level, int) else list(level) for level in given]
    return [[level[0]] * layers for level in reversed(down_depths(config))]


def _widths(config: Mapping[str, Any]) -> Sequence[int]:
    return config["block_out_channels"]


def _embeddings(config: Mapping[str, Any]) -> Iterator[Expected]:
    first = _widths(config)[0]
    wide = _TIME_WIDTH * first
    yield from convolution("conv_in", "input_blocks.0.0", int(config.get("in_channels", 4)), first)
    yield from linear("time_embedding.linear_1", "time_embed.0", first, wide)
    yield from linear("time_embedding.linear_2", "time_embed.2", wide, wide)
    if config.get("time_cond_proj_dim"):
        read = int(config["time_cond_proj_dim"])
        yield from linear("time_embedding.cond_proj", "time_embed.cond_proj", read, first, bias=False)
    if config.get("addition_embed_type") == "text_time":
        read = int(config["projection_class_embeddings_input_dim"])
        yield from linear("add_embedding.linear_1", "label_emb.0.0", read, wide)
        yield from linear("add_embedding.linear_2", "label_emb.0.2", wide, wide)


def _way_down(config: Mapping[str, Any]) -> Iterator[Expected]:
    widths, layers = _widths(config), int(config["layers_per_block"])
    first = widths[0]
    block, read = 1, first
    for level, (width, depths) in enumerate(zip(widths, down_depths(config), strict=True)):
        for layer in range(layers):
            place = f"input_blocks.{block}"
            yield from _resnet(f"down_blocks.{level}.resnets.{layer}", f"{place}.0", read, width, first)
            if "Attn" in config["down_block_types"][level]:
                name = f"down_blocks.{level}.attentions.{layer}"
                yield from _transformer(name, f"{place}.1", width, depths[layer], config)
            block, read = block + 1, width
        if level < len(widths) - 1:
            name = f"down_blocks.{level}.downsamplers.0.conv"
            yield from convolution(name, f"input_blocks.{block}.0.op", width, width)
            block += 1


def _middle(config: Mapping[str, Any]) -> Iterator[Expected]:
    kind = config.get("mid_block_type", "UNetMidBlock2DCrossAttn")
    if kind is None:
        return
    first, width = _widths(config)[0], _widths(config)[-1]
    yield from _resnet("mid_block.resnets.0", "middle_block.0", width, width, first)
    if kind == "UNetMidBlock2DCrossAttn":
        depth = down_depths(config)[-1][0]
        yield from _transformer("mid_block.attentions.0", "middle_block.1", width, depth, config)
        yield from _resnet("mid_block.resnets.1", "middle_block.2", width, width, first)


def _resnet(name: str, original: str, read: int, width: int, first: int) -> Iterator[Expected]:
    yield from normalisation(f"{name}.norm1", f"{original}.in_layers.0", read)
    yield from convolution(f"{name}.conv1", f"{original}.in_layers.2", read, width)
    yield from linear(f"{name}.time_emb_proj", f"{original}.emb_layers.1", _TIME_WIDTH * first, width)
    yield from normalisation(f"{name}.norm2", f"{original}.out_layers.0", width)
    yield from convolution(f"{name}.conv2", f"{original}.out_layers.3", width, width)
    if read != width:
        yield from convolution(f"{name}.conv_shortcut", f"{original}.skip_connection", read, width, kernel=1)


def _transformer(
    name: str, original: str, width: int, depth: int, config: Mapping[str, Any]
) -> Iterator[Expected]:
    text = int(config["cross_attention_dim"])
    yield from normalisation(f"{name}.norm", f"{original}.norm", width)
    for end in ("proj_in", "proj_out"):
        if config.get("use_linear_projection"):
            yield from linear(f"{name}.{end}", f"{original}.{end}", width, width)
        else:
            yield from convolution(f"{name}.{end}", f"{original}.{end}", width, width, kernel=1)
    for block in range(depth):
        stem = f".transformer_blocks.{block}"
        one, other = name + stem, original + stem
        for index, read in ((1, width), (2, text)):
            attention, theirs = f"{one}.attn{index}", f"{other}.attn{index}"
            yield from linear(f"{attention}.to_q", f"{theirs}.to_q", width, width, bias=False)
            yield from linear(f"{attention}.to_k", f"{theirs}.to_k", read, width, bias=False)
            yield from linear(f"{attention}.to_v", f"{theirs}.to_v", read, width, bias=False)
            yield from linear(f"{attention}.to_out.0", f"{theirs}.to_out.0", width, width)
        for index in (1, 2, 3):
            yield from normalisation(f"{one}.norm{index}", f"{other}.norm{index}", width)
        yield from linear(f"{one}.ff.net.0.proj", f"{other}.ff.net.0.proj", width, 8 * width)
        yield from linear(f"{one}.ff.net.2", f"{other}.ff.net.2", 4 * width, width)
