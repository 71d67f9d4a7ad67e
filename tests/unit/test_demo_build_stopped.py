"""A demo that is left while it builds: whoever waits for a checkpoint is told, also after all is closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.commands.demo_build import Building, NotBuilt


def test_whoever_waits_after_the_building_was_left_is_told_that_it_was_not_built(tmp_path: Path) -> None:
    with Building(tmp_path, lambda name, number, total: None) as building:
        building.manifest()
    with pytest.raises(NotBuilt, match="could not be built"):
        building.wait_for(["no such checkpoint"])
