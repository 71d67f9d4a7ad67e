"""One step for a group of samples: one evaluation of the network, then each sample's own noise scheduler."""
# pyright: basic
# torch's functions are only partly typed.

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pipelines.sample import HearsUnguided, Sample


def advance(samples: Sequence[Sample]) -> None:
    """Advance every sample by one network evaluation.

    The rows of the batch are the negative halves of all guided samples, then the positive halves of all
    samples: a sample alone gives the very batch that diffusers builds, to the last bit.

    Args:
        samples: of one group, none of them done. None has changed when the network fails.
    Raises:
        torch.OutOfMemoryError: the batch does not fit the device.
    """
    for sample, prediction in zip(samples, _predict(samples), strict=True):
        sample.latents = sample.sampler.step(prediction, sample.latents, sample.generator)


def _predict(samples: Sequence[Sample]) -> list[Tensor]:
    """The guided prediction of each sample, (B, ...) each, in order."""
    rows: list[tuple[Sample, Mapping[str, Tensor]]] = [
        (sample, sample.conditioning.negative)
        for sample in samples
        if sample.conditioning.negative is not None
    ]
    unguided = len(rows)
    rows += [(sample, sample.conditioning.positive) for sample in samples]

    outputs: list[Tensor | None] = [None] * len(rows)
    for together in _of_equal_shape(rows):
        predicted = _evaluate([rows[index] for index in together])
        for index, output in zip(together, predicted, strict=True):
            outputs[index] = output

    negative = {id(sample): output for (sample, _), output in zip(rows, outputs[:unguided], strict=False)}
    guided: list[Tensor] = []
    for sample, positive in zip(samples, outputs[unguided:], strict=True):
        assert positive is not None
        without = negative.get(id(sample))
        if without is not None and isinstance(sample.sampler, HearsUnguided):
            sample.sampler.hear_unguided(without)
        guided.append(
            positive if without is None else sample.denoiser.guide(without, positive, sample.guidance_scale)
        )
    return guided


def _of_equal_shape(rows: Sequence[tuple[Sample, Mapping[str, Tensor]]]) -> list[list[int]]:
    """Indices of rows that fit into one batch; nearly always all of them (texts of unequal length do not)."""
    batches: dict[tuple[object, ...], list[int]] = {}
    for index, (_, conditioning) in enumerate(rows):
        shape = tuple((name, tensor.shape[1:]) for name, tensor in sorted(conditioning.items()))
        batches.setdefault(shape, []).append(index)
    return list(batches.values())


def _evaluate(rows: Sequence[tuple[Sample, Mapping[str, Tensor]]]) -> list[Tensor]:
    """One evaluation of the network for these rows; the raw prediction of each."""
    inputs = [sample.sampler.model_input(sample.latents) for sample, _ in rows]
    times = [
        sample.sampler.timestep.expand(part.shape[0]) for (sample, _), part in zip(rows, inputs, strict=True)
    ]
    prediction = rows[0][0].denoiser.predict(
        torch.cat(inputs),
        torch.cat(times),
        {name: torch.cat([conditioning[name] for _, conditioning in rows]) for name in rows[0][1]},
    )
    return list(prediction.split([part.shape[0] for part in inputs]))
