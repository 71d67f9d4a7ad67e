"""Every preprocessor on a real network of its own architecture, from the files that it would download."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipelines.adapters.library import AdapterLibrary
from pipelines.checkpoints.skip_init import skip_init
from pipelines.control.open_pose import FILES
from pipelines.control.preprocessors import _AUXILIARY, Preprocessors
from pipelines.demo.world.figure import demo_skeleton
from pipelines.errors import AnnotatorMissing
from pipelines.weights.entries import ControlNetEntry, Preprocessor, Source
from pipelines.weights.manifest import Manifest, load_manifest
from tests.drawing import array, image_of

ROOT = Path(__file__).parents[2]

GREY = {
    "canny",
    "depth",
    "hed",
    "lineart",
    "lineart_anime",
    "lineart_standard",
    "mlsd",
    "pidi",
    "scribble",
    "zoe",
}
COLOURED = {"normal", "shuffle"}
WEIGHTLESS = {"canny", "lineart_standard", "shuffle"}
SIZE = (144, 128)
"""Wide and high; no multiple of 64, in which controlnet_aux works."""


def blocks(seed: int) -> np.ndarray:
    colours = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    return np.kron(colours, np.ones((16, 16, 1), np.uint8))


PICTURES = [image_of(blocks(seed)) for seed in (1, 2)]


# Weights


RANDOM = torch.randn(1 << 17, generator=torch.Generator().manual_seed(3))


def filled(network: nn.Module) -> dict[str, Tensor]:
    """Random weights that keep the size of what passes; tensors share few numbers, so that files are small.

    A row of a matrix begins 97 numbers after the one before. Normalisations do nothing yet.
    """
    scaled: dict[int, Tensor] = {}
    state = network.state_dict()
    for name, tensor in network.named_parameters():
        if tensor.ndim <= 1:
            state[name] = torch.full(tensor.shape, 0.0 if name.endswith("bias") else 1.0)
        else:
            # Whether transposed or not, some 2 / fan_in, as half of what passes is cut off.
            exponent = round(math.log2(2 / tensor[0].numel()) / 2)
            values = scaled.setdefault(exponent, RANDOM * 2.0**exponent)
            inner = tensor[0].numel()
            starts = (torch.arange(len(tensor)) * 97) % max(1, len(values) - inner)
            if inner < len(values):
                stride = [97 if len(tensor) * 97 + inner < len(values) else 1]
                steps = list(torch.empty(0).new_empty(tensor.shape[1:], device="meta").stride())
                state[name] = torch.as_strided(values, tensor.shape, stride + steps)
            else:
                state[name] = values[: len(starts)].reshape(-1, *[1] * (tensor.ndim - 1)).expand(tensor.shape)
    return state


def hed() -> dict[str, Any]:
    from controlnet_aux.hed import ControlNetHED_Apache2

    state = filled(ControlNetHED_Apache2())
    # It sees 0 .. 255, and what comes of it goes through a sigmoid.
    small = {name: state[name] / 50 for name in state if name.endswith("projection.weight")}
    return {"ControlNetHED.pth": state | small}


def lineart() -> dict[str, Any]:
    from controlnet_aux.lineart import Generator

    return {name: filled(Generator(3, 1, 3)) for name in ("sk_model.pth", "sk_model2.pth")}


def lineart_anime() -> dict[str, Any]:
    from controlnet_aux.lineart_anime import UnetGenerator

    norm = partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)
    state = filled(UnetGenerator(3, 1, 8, 64, norm_layer=norm, use_dropout=False))
    return {"netG.pth": {f"module.{name}": tensor for name, tensor in state.items()}}


def pidi() -> dict[str, Any]:
    from controlnet_aux.pidi.model import pidinet

    state = {f"module.{name}": tensor for name, tensor in filled(pidinet()).items()}
    return {"table5_pidinet.pth": {"epoch": 1, "state_dict": state}}


def mlsd() -> dict[str, Any]:
    from controlnet_aux.mlsd.models.mbv2_mlsd_large import MobileV2_MLSD_Large

    return {"mlsd_large_512_fp32.pth": filled(MobileV2_MLSD_Large())}


def depth() -> dict[str, Any]:
    from controlnet_aux.midas.midas.dpt_depth import DPTDepthModel

    network = DPTDepthModel(path=None, backbone="vitb_rn50_384", non_negative=True)
    return {"dpt_hybrid-midas-501f0c75.pt": filled(network)}


def normal() -> dict[str, Any]:
    from controlnet_aux.normalbae.nets.NNET import NNET

    options = types.SimpleNamespace(
        mode="client", architecture="BN", pretrained="scannet", sampling_ratio=0.4, importance_ratio=0.7
    )
    return {"scannet.pt": {"model": {f"module.{name}": each for name, each in filled(NNET(options)).items()}}}


def zoe() -> dict[str, Any]:
    from controlnet_aux.zoe import ZoeDepth, get_config

    return {"ZoeD_M12_N.pt": {"model": filled(ZoeDepth.build_from_config(get_config("zoedepth", "infer")))}}


MAKERS: dict[str, Callable[[], dict[str, Any]]] = {
    "hed": hed,
    "scribble": hed,
    "lineart": lineart,
    "lineart_anime": lineart_anime,
    "pidi": pidi,
    "mlsd": mlsd,
    "depth": depth,
    "normal": normal,
    "zoe": zoe,
}


@pytest.fixture(scope="module")
def preprocessors(tmp_path_factory: pytest.TempPathFactory) -> Preprocessors:
    """Preprocessors with a ControlNet for each; its annotator is a folder of just the files that it names."""
    folder = tmp_path_factory.mktemp("annotators")
    entries: dict[str, ControlNetEntry] = {}
    for name, make in MAKERS.items():
        (folder / name).mkdir()
        with skip_init():
            files = make()
        for file, content in files.items():
            torch.save(content, folder / name / file)
        entries[name] = ControlNetEntry(
            source=Source(folder=Path("none")),
            family="sd15",
            preprocessor=name,
            annotator=Source(folder=Path(name)),
        )
    manifest = Manifest(path=folder / "weights.yaml", pipelines={}, controlnets=entries)
    return Preprocessors(AdapterLibrary(manifest, folder), torch.device("cpu"))


def see_little(preprocessors: Preprocessors) -> None:
    """Zoe enlarges what it sees to 384 x 512, too much for 345 million parameters here."""
    zoe: Any = preprocessors._opened.get("zoe", lambda: preprocessors._open("zoe")).modules["model"]
    zoe.core.prep.resizer._Resize__width = zoe.core.prep.resizer._Resize__height = 64


def test_every_preprocessor_is_tried_here_and_openpose_and_inpaint_where_poses_and_masks_are():
    known = set(get_args(Preprocessor)) - {"inpaint"}
    assert known == GREY | COLOURED | {"openpose"}
    assert known == {*_AUXILIARY, "openpose"}
    assert WEIGHTLESS | MAKERS.keys() == GREY | COLOURED


@pytest.mark.parametrize("name", sorted(GREY | COLOURED))
def test_a_guide_is_made_of_the_picture_and_of_nothing_else(name: str, preprocessors: Preprocessors):
    if name == "zoe":
        see_little(preprocessors)
    guides = [array(preprocessors.prepare(picture, name)) for picture in PICTURES]
    assert [guide.shape for guide in guides] == [(SIZE[1], SIZE[0], 3)] * 2
    grey = all((guide == guide[:, :, :1]).all() for guide in guides)
    assert grey == (name in GREY)
    assert all(guide.std() > 1 for guide in guides)
    assert np.abs(guides[0].astype(int) - guides[1]).mean() > 1
    assert np.array_equal(guides[0], array(preprocessors.prepare(PICTURES[0], name)))
    opened = [part for part in preprocessors.modules if part.startswith(f"preprocessor:{name}:")]
    assert bool(opened) == (name not in WEIGHTLESS)


def test_a_scribble_is_black_and_white_where_soft_edges_are_grey(preprocessors: Preprocessors):
    def hard(name: str) -> float:
        guide = array(preprocessors.prepare(PICTURES[0], name))
        return float(((guide == 0) | (guide == 255)).mean())

    assert hard("scribble") > 0.7
    assert hard("hed") < 0.3


def test_the_shuffle_leaves_numpys_own_numbers_as_they_were(preprocessors: Preprocessors):
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    preprocessors.prepare(PICTURES[0], "shuffle")
    assert np.array_equal(np.random.random(3), expected)


def test_what_has_no_weights_here_is_refused_by_its_name(tmp_path: Path):
    manifest = Manifest(path=tmp_path / "weights.yaml", pipelines={})
    empty = Preprocessors(AdapterLibrary(manifest, tmp_path), torch.device("cpu"))
    for name in (GREY | COLOURED) - WEIGHTLESS:
        with pytest.raises(
            AnnotatorMissing, match=f"preprocessor: {name} needs weights that are not on this server"
        ) as refused:
            empty.prepare(PICTURES[0], name)
        files = FILES if name == "openpose" else _AUXILIARY[name].files
        assert f"annotator: {{hub: lllyasviel/Annotators, files: [{', '.join(files)}]}}" in str(refused.value)


def test_a_folder_without_all_files_of_the_pose_detector_leaves_skeletons(tmp_path: Path):
    (tmp_path / "annotators").mkdir()
    (tmp_path / "annotators" / FILES[0]).touch()
    source = {"folder": "annotators"}
    entry = {"source": source, "family": "sd15", "preprocessor": "openpose", "annotator": source}
    manifest = Manifest.model_validate(
        {"path": tmp_path / "weights.yaml", "pipelines": {}, "controlnets": {"openpose": entry}}
    )
    preprocessors = Preprocessors(AdapterLibrary(manifest, tmp_path), torch.device("cpu"))
    skeleton = demo_skeleton(64, 96)
    assert preprocessors.prepare(skeleton, "openpose") == skeleton
    with pytest.raises(AnnotatorMissing, match="openpose needs weights"):
        preprocessors.prepare(PICTURES[0], "openpose")


def test_the_shipped_manifest_names_the_files_that_each_preprocessor_reads():
    shipped = load_manifest(ROOT / "weights.yaml")
    for name, auxiliary in _AUXILIARY.items():
        source = shipped.annotator(name)
        assert (source.files if source else ()) == auxiliary.files
        assert source is None or source.hub == "lllyasviel/Annotators"
