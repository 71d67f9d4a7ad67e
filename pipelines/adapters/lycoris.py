"""LyCORIS files (LoHa, LoKr) as LoRAs that change the weights by exactly as much."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Factors = tuple[Tensor, Tensor]
"""The matrices of a LoRA, up (out, rank) and down (rank, in); a convolution's ``in`` includes its kernel."""

_LOHA = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"}
_LOKR = {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"}
_DORA = {"dora_scale", "lora_magnitude_vector"}


def is_lycoris(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file has a LoHa or LoKr layer."""
    return any(name.rpartition(".")[2] in _LOHA | _LOKR for name in tensors)


def as_lora(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rewrite each LoHa (Hyeon-Woo et al. 2022) and LoKr (Yeh et al. 2023) of a file as a LoRA.

    Both are products of small matrices, and can be written as a product of two. Networks then have LoRAs
    alone, mix all three kinds, switch them off alike, and compute no weight anew at every evaluation. A LoHa
    of rank r becomes a LoRA of rank r * r, at most of the layer's own rank.

    Args:
        tensors: tensors by the names of kohya-ss' scripts, ``lora_unet_..._to_q.hada_w1_a``, or by the
            network's and PEFT's names, ``unet.....to_q.hada_w1_a``. LoRAs among them stay as they are.
    Returns:
        The same layers. Kohya's have ``lora_down.weight``, ``lora_up.weight`` and an ``alpha`` that equals
        the rank, PEFT's have ``lora_A.weight`` and ``lora_B.weight``; convolutions have matrices too. DoRA's
        magnitudes stay.
    Raises:
        ValueError: tensors of a layer are missing or do not fit each other.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        layers.setdefault(layer, {})[part] = tensor
    rewritten: dict[str, Tensor] = {}
    for layer, parts in layers.items():
        try:
            found = _factors(parts)
        except (KeyError, RuntimeError, IndexError) as error:
            raise ValueError(f"{layer} is not whole") from error
        if found is None:
            rewritten |= {f"{layer}.{part}": tensor for part, tensor in parts.items()}
            continue
        up, down = found
        kind = next(iter(parts.values())).dtype
        kohya = layer.startswith("lora_")
        names = ("lora_up", "lora_down") if kohya else ("lora_B", "lora_A")
        rewritten[f"{layer}.{names[0]}.weight"] = up.to(kind).contiguous()
        rewritten[f"{layer}.{names[1]}.weight"] = down.to(kind).contiguous()
        if kohya:
            rewritten[f"{layer}.alpha"] = torch.tensor(float(down.shape[0]))
        rewritten |= {f"{layer}.{part}": parts[part] for part in _DORA & parts.keys()}
    return rewritten


def _factors(parts: Mapping[str, Tensor]) -> Factors | None:
    """A LoHa or LoKr layer as the matrices of a LoRA; None where the layer is neither."""
    kinds = [kind for kind in (_LOHA, _LOKR) if kind & parts.keys()]
    if not kinds:
        return None
    if parts.keys() - kinds[0] - {"alpha"} - _DORA:
        raise ValueError(f"{sorted(parts)} cannot be one LoRA")
    exact = {name: tensor.float() for name, tensor in parts.items()}
    return _loha(exact) if kinds[0] is _LOHA else _lokr(exact)


def _loha(parts: Mapping[str, Tensor]) -> Factors:
    """(w1_a @ w1_b) * (w2_a @ w2_b), elementwise; with ``hada_t1`` both are Tucker products."""
    a1, b1, a2, b2 = (parts[f"hada_{name}"] for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
    rank = b1.shape[0]
    scale = _scale(parts, rank)
    if "hada_t1" in parts:
        both = _tucker(parts["hada_t1"], a1, b1) * _tucker(parts["hada_t2"], a2, b2)
        return _split(scale * both)
    if rank * b2.shape[0] >= min(a1.shape[0], b1.shape[1]):
        return _split(scale * (a1 @ b1) * (a2 @ b2))
    # Each pair of columns of the first factors times each pair of rows of the second ones.
    up = (a1[:, :, None] * a2[:, None, :]).flatten(1)
    return scale * up, (b1[:, None, :] * b2[None, :, :]).flatten(0, 1)


def _lokr(parts: Mapping[str, Tensor]) -> Factors:
    """The Kronecker product of w1 and w2, each perhaps a product itself; only products have a scale."""
    scale = 1.0
    if "lokr_w1" in parts:
        first = parts["lokr_w1"]
    else:
        first = parts["lokr_w1_a"] @ parts["lokr_w1_b"]
        scale = _scale(parts, parts["lokr_w1_b"].shape[0])
    if "lokr_w2" in parts:
        up, down = _split(parts["lokr_w2"].flatten(1))
    elif "lokr_t2" in parts:
        up, down = _split(_tucker(parts["lokr_t2"], parts["lokr_w2_a"], parts["lokr_w2_b"]))
        scale = _scale(parts, parts["lokr_w2_b"].shape[0])
    else:
        up, down = parts["lokr_w2_a"], parts["lokr_w2_b"].flatten(1)
        scale = _scale(parts, down.shape[0])
    rank, out = first.shape[1] * down.shape[0], first.shape[0] * up.shape[0]
    if rank >= min(out, first.shape[1] * down.shape[1]):
        return _split(scale * torch.kron(first, up @ down))
    return scale * torch.kron(first, up), torch.kron(torch.eye(first.shape[1]), down)


def _scale(parts: Mapping[str, Tensor], rank: int) -> float:
    """The factor alpha / rank of a layer; 1 where the file gives no alpha."""
    return float(parts["alpha"]) / rank if "alpha" in parts else 1.0


def _tucker(core: Tensor, out: Tensor, into: Tensor) -> Tensor:
    """The Tucker product (out, in * h * w) of a core (r, r, h, w) with matrices (r, out) and (r, in)."""
    return torch.einsum("ijhw,ip,jq->pqhw", core, out, into).flatten(1)


def _split(whole: Tensor) -> Factors:
    """A whole matrix as two: itself and the identity, in the order that gives the smaller rank."""
    out, into = whole.shape
    return (torch.eye(out), whole) if out <= into else (whole, torch.eye(into))
