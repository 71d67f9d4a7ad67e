"""The engines that a machine gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.engines.devices import devices, engine_configs, local_engines, visible_devices
from server.settings import Settings


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        (None, 4),
        ("", 0),
        ("-1", 0),
        ("0", 1),
        ("3, 1", 2),
        ("0,7,1", 1),
        ("0,-1,1", 1),
        ("GPU-4f7a,GPU-90b2", 2),
        ("MIG-4f7a,MIG-90b2", 1),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(visible: str | None, count: int) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert visible_devices(4, environment) == count


def test_without_a_cuda_device_there_is_none_to_see() -> None:
    assert visible_devices(0, {"CUDA_VISIBLE_DEVICES": "0,1"}) == 0


def test_where_no_cuda_device_is_visible_the_cpu_draws() -> None:
    assert devices("auto", {"CUDA_VISIBLE_DEVICES": ""}) == ["cpu"]


def test_a_list_of_devices_is_taken_as_it_is() -> None:
    assert devices("cuda:1, cuda:0,cpu") == ["cuda:1", "cuda:0", "cpu"]


@pytest.mark.parametrize("wanted", ["", ",", "gpu 0", "cuda:", "cuda:0;cuda:1"])
def test_what_is_no_device_is_refused_by_name(wanted: str) -> None:
    with pytest.raises(ValueError, match="devices"):
        devices(wanted)


def test_engines_on_one_cpu_have_names_of_their_own_and_share_its_cores() -> None:
    settings = Settings(devices="cpu,cpu")
    assert [engine.name for engine in local_engines(settings)] == ["cpu", "cpu #2"]
    assert all(config.torch_threads for config in engine_configs(settings))


def test_budgets_follow_the_device_unless_they_are_set() -> None:
    cpu, cuda = engine_configs(Settings(devices="cpu,cuda:0", manifest=Path("here.yaml")))
    assert (cpu.budget_bytes, cpu.group_pixels) == (8_000_000_000, 4 * 1024 * 1024)
    assert (cuda.budget_bytes, cuda.group_pixels) == (None, 16 * 1024 * 1024)
    assert cpu.manifest == Path.cwd() / "here.yaml"
    (own,) = engine_configs(Settings(devices="cuda:0", memory_budget_gb=1.5, group_megapixels=2))
    assert (own.budget_bytes, own.group_pixels) == (1_500_000_000, 2 * 1024 * 1024)
