"""What the README tells a newcomer is there."""

from __future__ import annotations

import re
from pathlib import Path

from server.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_every_setting_is_in_the_readme_and_no_other():
    told = set(re.findall(r"UNDERSTUDY_([A-Z0-9_]+)", README))
    assert told == {name.upper() for name in Settings.model_fields}


def test_every_path_that_the_readme_names_exists():
    named = re.findall(r"`((?:pipelines|server|tests)/[\w/.-]+)`", README)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_picture_that_the_readme_shows_exists():
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert shown
    assert [path for path in shown if not (ROOT / path).exists()] == []


def test_every_dependency_is_explained():
    listed = re.search(r"\ndependencies = \[(.*?)\n\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    assert listed
    packages = re.findall(r'"([A-Za-z0-9_-]+)', listed[1])
    assert [name for name in packages if name not in README] == []
