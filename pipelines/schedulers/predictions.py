"""The meaning of a network's prediction on a variance-preserving noise schedule."""

from __future__ import annotations

from torch import Tensor


def to_sample_and_noise(
    prediction_type: str, prediction: Tensor, latents: Tensor, signal: Tensor
) -> tuple[Tensor, Tensor]:
    """The picture and the noise of which the latents consist, as the network sees it.

    Args:
        prediction_type: "epsilon", "v_prediction" (Salimans and Ho 2022, appendix D) or "sample".
        signal: ``alphas_cumprod`` at the time of the prediction.
    Raises:
        NotImplementedError: another prediction type.
    """
    kept, added = signal**0.5, (1 - signal) ** 0.5
    match prediction_type:
        case "epsilon":
            return (latents - added * prediction) / kept, prediction
        case "v_prediction":
            return kept * latents - added * prediction, added * latents + kept * prediction
        case "sample":
            return prediction, (latents - kept * prediction) / added
        case other:
            raise NotImplementedError(other)
