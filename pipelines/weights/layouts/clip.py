"""CLIP's text encoders, in the names of transformers and of OpenCLIP. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.weights.layouts.tensors import Expected, linear, normalisation

JOINT = "attn.in_proj_"
"""The part of an OpenCLIP name by which queries, keys and values lie in one tensor."""

JOINED = ("q_proj", "k_proj", "v_proj")
"""The layers of transformers that lie in one tensor of OpenCLIP, in their order there."""


def clip_layout(config: Mapping[str, Any], *, projected: bool) -> Iterator[Expected]:
    """The tensors of a text encoder, in OpenCLIP's names as the original ones.

    Queries, keys and values have the same original name: each is a third of that tensor.

    Args:
        config: its configuration in the words of transformers.
        projected: whether its last layer is the projection into the space of pictures.
    """
    width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    yield Expected(
        "embeddings.token_embedding.weight", "token_embedding.weight", (int(config["vocab_size"]), width)
    )
    yield Expected(
        "embeddings.position_embedding.weight",
        "positional_embedding",
        (int(config.get("max_position_embeddings", 77)), width),
    )
    for index in range(int(config["num_hidden_layers"])):
        name, original = f"encoder.layers.{index}", f"transformer.resblocks.{index}"
        for layer in JOINED:
            for kind, shape in (("weight", (width, width)), ("bias", (width,))):
                yield Expected(f"{name}.self_attn.{layer}.{kind}", f"{original}.{JOINT}{kind}", shape)
        yield from linear(f"{name}.self_attn.out_proj", f"{original}.attn.out_proj", width, width)
        yield from normalisation(f"{name}.layer_norm1", f"{original}.ln_1", width)
        yield from normalisation(f"{name}.layer_norm2", f"{original}.ln_2", width)
        yield from linear(f"{name}.mlp.fc1", f"{original}.mlp.c_fc", width, inner)
        yield from linear(f"{name}.mlp.fc2", f"{original}.mlp.c_proj", inner, width)
    yield from normalisation("final_layer_norm", "ln_final", width)
    if projected:
        read = int(config.get("projection_dim", width))
        yield Expected("text_projection.weight", "text_projection", (read, width))
