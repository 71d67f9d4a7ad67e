"""A file is replaced as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.weights.atomic import replacing, write_atomically


def test_a_text_takes_the_place_of_the_one_before_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    write_atomically(path, "one")
    write_atomically(path, "two")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_mode_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "loads.yaml"
    write_atomically(path, "a secret", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_block_that_fails_leaves_the_file_before_it_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("whole")

    def write_half() -> None:
        with replacing(path, tmp_path / ".model.safetensors") as aside:
            aside.write_text("hal")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        write_half()
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_a_killed_process_left_beside_it_is_overwritten(tmp_path: Path) -> None:
    path, aside = tmp_path / "model.safetensors", tmp_path / ".model.safetensors"
    aside.write_text("left by a killed process, and longer")
    with replacing(path, aside) as file:
        file.write_text("whole")
    assert path.read_text() == "whole"
    assert not aside.exists()
