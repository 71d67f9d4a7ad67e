"""The names that the vendor's pages document for ControlNets, and what stands for those that are not here."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.weights.manifest import Manifest
from server.endpoints.enterprise.drawing.checkpoints import checkpoint
from server.errors import FieldError

ALSO: Mapping[str, str] = {"pose": "openpose"}
"""Another documented name -> the ControlNet that it means, where none is called so."""

DOCUMENTED = (
    "canny", "depth", "hed", "mlsd", "normal", "openpose", "scribble", "segmentation", "inpaint", "softedge",
    "lineart", "shuffle", "tile", "face_detector", "qrcode", "pose", "blur", "gray", "low_quality",
    "aesthetic-controlnet",
)  # fmt: skip
"""The names on the ControlNet pages of v1, v5 and their earlier versions."""

_WHY: Mapping[str, str] = {
    "face_detector": "its guides need a package that does not go with the others here, openpose follows"
    " faces, too",
    "blur": "tile takes a blurred picture",
    "gray": "the vendor has it for Flux only",
    "low_quality": "the vendor has it for Flux only",
}


def controlnets_meant(names: list[str], manifest: Manifest, model_id: str) -> list[str]:
    """The names of this server's ControlNets that a caller means.

    Raises:
        NotFound: there is no such checkpoint.
        FieldError: a documented ControlNet is not here, or one is for another kind of checkpoint; the text
            names those that are here for this one.
    """
    family = checkpoint(manifest, model_id).family
    fitting = ", ".join(name for name, entry in manifest.controlnets.items() if entry.family == family)
    meant = [name if name in manifest.controlnets else ALSO.get(name, name) for name in names]
    for name, given in zip(meant, names, strict=True):
        entry = manifest.controlnets.get(name)
        if entry is None and given in DOCUMENTED:
            why = f" ({_WHY[given]})" if given in _WHY else ""
            here = fitting or "none for this checkpoint"
            raise FieldError("controlnet_model", f"{given} is not on this server{why}; what is: {here}")
        if entry is not None and entry.family != family and fitting:
            problem = f"{name} was made for another kind of checkpoint; what fits this one: {fitting}"
            raise FieldError("controlnet_model", problem)
    return meant
