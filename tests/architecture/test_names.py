"""One word for one thing: a class's name says which one is meant, wherever it is imported."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]


def homes_of_public_classes() -> dict[str, list[str]]:
    """The files that define each public class of the server and of the pipelines."""
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for package in ("server", "pipelines"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    homes[node.name].append(str(path.relative_to(ROOT)))
    return homes


def test_no_two_public_classes_have_the_same_name() -> None:
    homes = homes_of_public_classes()
    assert len(homes) > 200, "too few classes were found to say anything"
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}
