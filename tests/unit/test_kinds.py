"""The words of weights.yaml are listed once, and every list that depends on them agrees."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from pipelines.families import registry
from pipelines.weights.kinds import (
    SECTIONS,
    STABLE_DIFFUSION_FAMILIES,
    Dtype,
    Family,
    Kind,
    Section,
    StableDiffusionFamily,
    default_dtype,
)
from pipelines.weights.manifest import Manifest


def test_the_registry_has_a_class_for_every_family_and_no_other() -> None:
    assert set(registry.FAMILIES) == set(get_args(Family))


def test_every_module_beside_the_registry_is_a_family() -> None:
    modules = {path.stem for path in Path(registry.__file__).parent.glob("*.py")}
    shared = {"__init__", "registry", "stable_diffusion"}  # the last is what SD1.5 and SDXL both do
    assert modules - shared == set(get_args(Family))


def test_every_kind_has_a_section_of_its_own_in_weights_yaml() -> None:
    assert set(SECTIONS) == set(get_args(Kind))
    assert sorted(SECTIONS.values()) == sorted(get_args(Section))
    assert set(SECTIONS.values()) <= set(Manifest.model_fields)


def test_adapters_are_made_for_families_that_there_are() -> None:
    assert set(STABLE_DIFFUSION_FAMILIES) < set(get_args(Family))


@pytest.mark.parametrize(
    ("family", "on_cpu", "dtype"),
    [
        ("sd15", False, "float16"),
        ("sdxl", False, "bfloat16"),
        ("sd15", True, "float32"),
        ("sdxl", True, "float32"),
    ],
)
def test_the_default_dtype_suits_the_family_and_the_device(
    family: StableDiffusionFamily, on_cpu: bool, dtype: Dtype
) -> None:
    assert default_dtype(family, on_cpu=on_cpu) == dtype
