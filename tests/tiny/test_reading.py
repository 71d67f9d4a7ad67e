"""Networks read beside a loop equal those of from_pretrained number by number; nothing global changes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file

from pipelines.checkpoints import folder, reading
from pipelines.checkpoints.pace import AtOnce

SINGLE: dict[str, Any] = {
    "safety_checker": StableDiffusionSafetyChecker,
    "translator": transformers.MBartForConditionalGeneration,
    "prompt_writer": transformers.AutoModelForCausalLM,
    "sd3_pose_controlnet": diffusers.SD3ControlNetModel,
    "controlnets/sd15_canny": diffusers.ControlNetModel,
    "sd15_adapters/vae": diffusers.AutoencoderKL,
}
"""The networks that are no part of a pipeline, by their folders."""

PIPELINES = ("sd15", "sdxl", "kolors", "sd3", "kandinsky22/prior", "kandinsky22/decoder")


def networks(root: Path, part: str) -> list[tuple[Any, Path]]:
    """The classes and folders of all networks in a folder."""
    if part in SINGLE:
        return [(SINGLE[part], root / part)]
    known = import_module("diffusers.pipelines")
    index = json.loads((root / part / "model_index.json").read_text())
    named = [
        (name, each) for name, each in index.items()
        if isinstance(each, list) and (root / part / name / "config.json").exists()
    ]  # fmt: skip
    return [
        (getattr(getattr(known, library, None) or import_module(library), cls), root / part / name)
        for name, (library, cls) in named
    ]


def tensors(network: Any) -> dict[str, torch.Tensor]:
    parameters = dict(network.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(network.named_buffers(remove_duplicate=False))}


def shared(network: Any) -> set[frozenset[str]]:
    """The names that are one tensor."""
    each = {name: tensor.data_ptr() for name, tensor in tensors(network).items() if tensor.numel()}
    return {frozenset(name for name, other in each.items() if other == place) for place in each.values()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("part", [*PIPELINES, *SINGLE])
def test_what_is_read_equals_what_from_pretrained_gives(
    part: str, dtype: torch.dtype, random_manifest_path: Path
) -> None:
    for cls, path in networks(random_manifest_path.parent, part):
        expected = cls.from_pretrained(str(path), dtype=dtype, use_safetensors=True, local_files_only=True)
        network: Any = reading.network(cls, path, dtype)
        assert type(network) is type(expected)
        wanted, found = tensors(expected), tensors(network)
        assert list(found) == list(wanted)
        for name, tensor in wanted.items():
            assert found[name].dtype == tensor.dtype, name
            assert torch.equal(found[name], tensor), name
            assert found[name].stride() == tensor.stride()
            assert found[name].requires_grad == tensor.requires_grad
        assert list(network.state_dict()) == list(expected.state_dict())
        assert shared(network) == shared(expected)
        assert not any(module.training for module in network.modules())
        assert str(network.config) == str(expected.config)
        assert network.dtype == expected.dtype
        if expected.__dict__.get("generation_config") is not None:
            assert network.generation_config.to_dict() == expected.generation_config.to_dict()


def renamed(change: Callable[[dict[str, torch.Tensor]], None], source: Path, target: Path) -> Path:
    """A copy of a network's folder whose tensors were changed."""
    target.mkdir()
    (target / "config.json").write_text((source / "config.json").read_text())
    content = load_file(source / "diffusion_pytorch_model.safetensors")
    change(content)
    save_file(content, target / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    return target


def test_attentions_of_older_files_are_read_by_their_old_names(
    random_manifest_path: Path, tmp_path: Path
) -> None:
    """As the published VAE of SD1.5 has them."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def change(content: dict[str, torch.Tensor]) -> None:
        for name in list(content):
            for new, before in old.items():
                if f"attentions.0.{new}." in name:
                    content[name.replace(f".{new}.", f".{before}.")] = content.pop(name)

    source = random_manifest_path.parent / "sd15/vae"
    path = renamed(change, source, tmp_path / "old")
    expected = diffusers.AutoencoderKL.from_pretrained(source)
    network = reading.network(diffusers.AutoencoderKL, path, torch.float32)
    for name, tensor in tensors(expected).items():
        assert torch.equal(tensors(network)[name], tensor)


def test_what_needs_a_conversion_is_opened_by_its_library_and_alone(
    random_manifest_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = renamed(
        lambda content: content.update(surplus=torch.zeros(1)),
        random_manifest_path.parent / "sd15/vae",
        tmp_path / "surplus",
    )
    asked: list[str] = []

    class Alone(AtOnce):
        def alone(self, work: Callable[[], Any]) -> Any:
            asked.append("alone")
            return work()

    network = folder.network(diffusers.AutoencoderKL, path, torch.float32, Alone())
    assert asked == ["alone"]
    assert isinstance(network, diffusers.AutoencoderKL)
    assert "left over ['surplus']" in caplog.text


def test_other_threads_build_and_fill_their_own_tensors_meanwhile(random_manifest_path: Path) -> None:
    """At each parameter of a skeleton another thread looks whether anything global has changed."""
    plain = (torch.nn.Module.register_parameter, torch.nn.Module.register_buffer, torch.get_default_dtype())
    seen: list[tuple[bool, str, torch.dtype]] = []

    def look() -> None:
        same = (
            torch.nn.Module.register_parameter,
            torch.nn.Module.register_buffer,
            torch.get_default_dtype(),
        ) == plain
        layer = torch.nn.Linear(2, 2)
        seen.append((same, layer.weight.device.type, torch.empty(1).dtype))

    def look_beside() -> None:
        other = threading.Thread(target=look)
        other.start()
        other.join()

    for part in ("sd15/unet", "sd15/text_encoder"):
        cls: Any = diffusers.UNet2DConditionModel if part.endswith("unet") else transformers.CLIPTextModel
        reading.network(cls, random_manifest_path.parent / part, torch.float16, look_beside)
    assert len(seen) > 100
    assert set(seen) == {(True, "cpu", torch.float32)}


def test_a_tokenizer_without_its_words_is_refused(tmp_path: Path) -> None:
    """transformers makes one of two words of it, and a picture of whatever these are."""
    with pytest.raises(FileNotFoundError, match="has no vocabulary"):
        folder.component("transformers", "CLIPTokenizer", tmp_path / "tokenizer", torch.float32, AtOnce())
