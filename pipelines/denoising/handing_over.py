"""How a finished sample goes on in another pipeline: an upscaler, a face restorer."""

from __future__ import annotations

from dataclasses import replace

from pipelines.denoising.pipeline import DirectAnswer, Pipeline
from pipelines.denoising.sample import Handover, Picture, Sample
from pipelines.drawing import Drawing


def handed_over(sample: Sample, handover: Handover, pipeline: Pipeline) -> Sample:
    """The sample that goes on in the other pipeline, in the place of the finished one.

    When the other pipeline answers directly, the same sample is returned, and finishing it gives that answer.
    """
    encoded = pipeline.encode(handover.request)
    if isinstance(encoded, DirectAnswer):
        return replace(sample, finish=lambda _: handover.taken_back(_picture(encoded.answer())))
    (further,) = encoded

    def finish(done: Sample) -> Picture:
        result = further.finish(done)
        assert isinstance(result, Picture)
        return handover.taken_back(result)

    before = sample.evaluations_before + sample.sampler.total
    return replace(further, index=sample.index, finish=finish, evaluations_before=before)


def _picture(drawing: Drawing) -> Picture:
    """The picture of a direct answer that has one."""
    (image,) = drawing.images
    return Picture(image, warnings=drawing.warnings)
