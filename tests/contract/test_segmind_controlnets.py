"""Segmind's pages of ControlNets: which one of the manifest is taken, and how large its picture is."""

from __future__ import annotations

import pytest

from pipelines.weights.manifest import Manifest
from server.endpoints.fields import read
from server.endpoints.segmind.page import Page
from server.endpoints.segmind.sd15_controlnets import PAGES, SD15Canny, SD15Depth, SD15SoftEdge
from server.endpoints.segmind.sizes import size_of_sd15
from server.errors import NotFound
from tests.contract.segmind_drawing import ALL, SENT, UNIPC, controlnets, drawn
from tests.contract.segmind_refusal import CHECKPOINTS

every_controlnet = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.slug)


@every_controlnet
def test_a_control_image_is_followed_as_trained_unless_something_else_is_asked(page: type[Page]) -> None:
    request = drawn(page, SENT)
    (control,) = request.controls
    assert (control.scale, control.preprocessor) == (1.0, ALL.controlnets[control.name].preprocessor)
    assert page.slug == f"sd1.5-controlnet-{control.name}"
    assert request.scheduler == UNIPC
    assert drawn(page, {**SENT, "strength": "0.4"}).controls[0].scale == 0.4


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ((512, 512), (512, 512)),
        ((10, 10), (512, 512)),
        ((6000, 4000), (768, 512)),
        ((4000, 6000), (512, 768)),
        ((1920, 1080), (896, 512)),
        ((9000, 1), (1024, 512)),
        ((1, 9000), (512, 1024)),
    ],
)
def test_a_controlnet_keeps_the_shape_of_the_picture_in_a_size_that_sd15_knows(
    given: tuple[int, int], size: tuple[int, int]
) -> None:
    assert size_of_sd15(*given) == size


@every_controlnet
def test_a_controlnet_that_is_not_here_is_named_before_anything_is_fetched(page: type[Page]) -> None:
    with pytest.raises(NotFound) as raised:
        read(page, SENT).validate_names(controlnets())
    kind = page.slug.removeprefix("sd1.5-controlnet-")
    assert str(raised.value) == (
        f"This server has no ControlNet {kind} of Stable Diffusion 1.5; weights.yaml names none"
    )
    read(page, SENT).validate_names(ALL)


def test_what_is_there_instead_of_a_controlnet_is_named() -> None:
    with pytest.raises(NotFound, match=r"no ControlNet depth of .*; weights.yaml names canny, openpose$"):
        read(SD15Depth, SENT).validate_names(controlnets(canny="canny", openpose="openpose"))


def test_one_of_another_family_is_not_taken() -> None:
    entry = {"source": {"folder": "x"}, "family": "sdxl", "preprocessor": "canny"}
    manifest = Manifest.model_validate({"pipelines": CHECKPOINTS, "controlnets": {"canny": entry}})
    with pytest.raises(NotFound, match=r"weights.yaml names none"):
        read(SD15Canny, SENT).validate_names(manifest)


@pytest.mark.parametrize(
    ("manifest", "name", "preprocessor"),
    [
        (controlnets(lines="canny", softedge="pidi"), "softedge", "pidi"),
        (controlnets(lines="canny", soft="pidi"), "soft", "pidi"),
        (controlnets(softedge=None), "softedge", "hed"),
    ],
)
def test_a_controlnet_is_found_by_its_name_or_else_by_its_preprocessor(
    manifest: Manifest, name: str, preprocessor: str
) -> None:
    (control,) = drawn(SD15SoftEdge, SENT, manifest).controls
    assert (control.name, control.preprocessor) == (name, preprocessor)
