"""What a checkpoint says of its training: what its network predicts, on which noise. Torch-free."""

from __future__ import annotations

from typing import Any

from pipelines.weights.header import Header, Unrecognised

_FOREIGN_MARKERS = {
    "edm_mean": "EDM (Playground v2.5)",
    "edm_std": "EDM (Playground v2.5)",
    "edm_vpred.sigma_max": "EDM with v-prediction (CosXL)",
    "edm_vpred.sigma_min": "EDM with v-prediction (CosXL)",
}
"""Empty or small tensors whose names say how a network was trained, and which training that is."""

_V, _ZERO_SNR = "v_pred", "ztsnr"
"""Names of empty tensors: the network predicts v; its noise schedule ends without any signal."""

_SAID = ("modelspec.prediction_type", "modelspec.predict_type", "prediction_type")
"""The names in a file's metadata of what its network predicts."""

_PREDICTIONS = {
    "epsilon": "epsilon", "eps": "epsilon", "noise": "epsilon",
    "v": "v_prediction", "v_prediction": "v_prediction", "vprediction": "v_prediction",
    "v_pred": "v_prediction", "vpred": "v_prediction", "velocity": "v_prediction",
}  # fmt: skip
"""The words for what a network predicts, and diffusers' word for the same."""

_TRUE = ("true", "1", "yes")


def scheduler_changes(header: Header) -> dict[str, Any]:
    """The options of diffusers' noise schedulers that a file's markers and metadata ask for.

    Raises:
        Unrecognised: it was trained in a way that is not drawn with here.
    """
    names = {key.rpartition("state_dict.")[2].removeprefix("model.") for key in header.shapes}
    for marker, training in _FOREIGN_MARKERS.items():
        if marker in names:
            raise Unrecognised(f"it was trained by {training}, as its tensor {marker} says; not drawn here")
    changes: dict[str, Any] = {}
    said = next((header.metadata[key] for key in _SAID if header.metadata.get(key)), "")
    word = said.strip().lower().replace("-", "_").replace(" ", "_")
    if _V in names or header.metadata.get("ss_v_parameterization", "").lower() in _TRUE:
        changes["prediction_type"] = "v_prediction"
    elif word:
        prediction = _PREDICTIONS.get(word)
        if prediction is None:
            raise Unrecognised(f"its network predicts {said!r}, as its metadata say, and not noise or v")
        if prediction != "epsilon":
            changes["prediction_type"] = prediction
    if _ZERO_SNR in names or header.metadata.get("ss_zero_terminal_snr", "").lower() in _TRUE:
        changes["rescale_betas_zero_snr"] = True
    return changes


def demand_known_prediction(header: Header) -> None:
    """Refuse a file that says it was trained in a way that is not drawn with here.

    Raises:
        Unrecognised: see `scheduler_changes`.
    """
    scheduler_changes(header)
