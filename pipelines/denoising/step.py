"""One step for a group of samples: evaluations of the network, then each sample's own noise scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from pipelines.denoising.evaluation import Evaluated, Evaluation, EvaluationRounds, Rows
from pipelines.denoising.sample import Denoiser, Sample
from pipelines.denoising.sampler import NeedsUnconditional
from pipelines.errors import is_out_of_memory


def advance(samples: Sequence[Sample]) -> None:
    """Advance every sample by one step of its noise scheduler.

    Args:
        samples: samples of one group, none of them done. None has changed when the network fails.
    Raises:
        torch.OutOfMemoryError: a batch does not fit the device.
    """
    for sample, prediction in zip(samples, _guided_predictions(samples), strict=True):
        sample.latents = sample.sampler.step(prediction, sample.latents, sample.generator)


def _guided_predictions(samples: Sequence[Sample]) -> list[Tensor]:
    """The guided prediction of each sample, in order. Evaluations of the same round are done together.

    No batch is larger than all samples' latents with and without the prompt. A layer that asks for more at
    once (the views of a panorama) gets it in parts, so that a group's memory follows from its pixels.
    """
    room = 2 * sum(sample.latents.numel() for sample in samples)
    layers = [(sample.denoiser.layer or _classifier_free)(sample) for sample in samples]
    predictions: dict[int, Tensor] = {}
    asked = {index: next(layer) for index, layer in enumerate(layers)}
    while asked:
        rows = [(samples[index].denoiser, row) for index, wanted in asked.items() for row in wanted]
        answers = iter(_evaluate(rows, room))
        following: dict[int, Sequence[Evaluation]] = {}
        for index, wanted in asked.items():
            try:
                following[index] = layers[index].send([next(answers) for _ in wanted])
            except StopIteration as end:
                predictions[index] = end.value
        asked = following
    return [predictions[index] for index in range(len(samples))]


def _classifier_free(sample: Sample) -> EvaluationRounds:
    """Ask for the evaluations without and with the prompt: for one sample the very batch of diffusers."""
    latents, timestep = sample.sampler.model_input(sample.latents), sample.sampler.timestep
    conditioning = sample.conditioning
    positive = Evaluation(latents, timestep, conditioning.positive)
    if conditioning.negative is None:
        (only,) = yield [positive]
        return only.prediction
    without, prompted = yield [Evaluation(latents, timestep, conditioning.negative), positive]
    if isinstance(sample.sampler, NeedsUnconditional):
        sample.sampler.take_unconditional(without.prediction)
    return sample.denoiser.guidance(without.prediction, prompted.prediction, sample.guidance_scale)


def _evaluate(rows: Sequence[tuple[Denoiser, Evaluation]], room: int) -> list[Evaluated]:
    """Evaluate all rows, those of equal shape together; return the answers in order."""
    answers: dict[int, Evaluated] = {}
    for together in _of_equal_shape(rows):
        predicted = _evaluate_batch(rows[together[0]][0], [rows[index][1] for index in together], room)
        answers |= dict(zip(together, predicted, strict=True))
    return [answers[index] for index in range(len(rows))]


def _of_equal_shape(rows: Sequence[tuple[Denoiser, Evaluation]]) -> list[list[int]]:
    """The indices of the rows of each batch. There is nearly always one; unequal texts need more."""
    batches: dict[tuple[object, ...], list[int]] = {}
    for index, (_, row) in enumerate(rows):
        named = tuple((name, tensor.shape[1:]) for name, tensor in sorted(row.conditioning.items()))
        batches.setdefault((row.latents.shape[1:], named), []).append(index)
    return list(batches.values())


def _evaluate_batch(denoiser: Denoiser, rows: Sequence[Evaluation], room: int) -> list[Evaluated]:
    """Evaluate one network for rows of equal shape, at most ``room`` numbers of latents at a time."""
    counts = [row.latents.shape[0] for row in rows]
    latents = torch.cat([row.latents for row in rows])
    times = torch.cat([row.timestep.expand(count) for row, count in zip(rows, counts, strict=True)])
    at_once = max(1, room // latents[0].numel())
    probe = next((row.probe for row in rows if row.probe is not None), None)
    with nullcontext([]) if probe is None else probe() as attention:
        parts = [
            denoiser.predict(
                latents[begin : begin + at_once],
                times[begin : begin + at_once],
                _conditioning_rows(rows, begin, begin + at_once),
            )
            for begin in range(0, len(latents), at_once)
        ]
    predictions = torch.cat(parts).split(counts)
    if not attention:
        return [Evaluated(prediction) for prediction in predictions]
    return [Evaluated(*both) for both in zip(predictions, torch.cat(attention).split(counts), strict=True)]


def _conditioning_rows(rows: Sequence[Evaluation], begin: int, end: int) -> dict[str, Tensor]:
    """The conditioning of the latents ``begin`` to ``end``, counted over all rows.

    No more than this part is made: the control images of all views of a panorama would not fit into memory.
    """
    pieces: dict[str, list[Tensor]] = {name: [] for name in rows[0].conditioning}
    for row in rows:
        count = len(row.latents)
        own = range(count)[max(0, begin) : max(0, end)]
        for name in pieces if own else ():
            pieces[name].append(_rows(row.conditioning[name], own, count))
        begin, end = begin - count, end - count
    return {name: torch.cat(parts) for name, parts in pieces.items()}


def _rows(conditioning: Rows, own: range, count: int) -> Tensor:
    """The conditioning of some of a sample's rows; a single row of conditioning serves all of them."""
    if len(conditioning) == count:
        return conditioning[own.start : own.stop]
    return conditioning[:1].expand(len(own), *conditioning.shape[1:])


def attempt(samples: list[Sample]) -> Exception | None:
    """Advance the samples by one step and return the failure, if there is one.

    An out-of-memory error comes without its traceback, which would hold the tensors.
    """
    try:
        advance(samples)
    except torch.AcceleratorError:
        raise
    except Exception as error:
        return error.with_traceback(None) if is_out_of_memory(error) else error
    return None
