"""The README's table of parameters is the code's, and nothing that is documented goes untested."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.documented import Evidence, Parameter, parameters, rows

ROOT = Path(__file__).parents[2]

KNOWN = Evidence(
    "tests/unit/test_it.py::test_steps", "the page kolors", frozenset({"steps", "scheduler", "euler"})
)


def parameter(name: str, *values: str, page: str = "kolors") -> Parameter:
    return Parameter((page,), name, "", values)


def test_the_readme_is_up_to_date_and_everything_documented_has_a_test():
    checked = subprocess.run(
        [sys.executable, "-m", "tests.documented", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr[-3000:]


def test_a_parameter_without_a_test_is_named():
    lines, missing = rows([parameter("steps"), parameter("cfg"), parameter("steps", page="sd3")], [KNOWN])
    assert missing == ["kolors: cfg", "sd3: steps"]
    assert "| kolors | steps |  | `unit/test_it.py::test_steps` |" in lines


def test_a_value_without_a_test_is_named():
    _, missing = rows([parameter("scheduler", "euler", "heun")], [KNOWN])
    assert missing == ["kolors: scheduler = heun"]


def test_the_documents_parameters_are_found_with_their_values():
    found = {(each.pages[0], each.name): each for each in parameters()}
    assert found["kolors", "output_format"].values == ("webp", "jpg", "jpeg", "png")
    assert len(found["sd3-med-pose", "sampler"].values) >= 27
    assert "img2img" in found["text2img", "prompt"].pages
    assert found["text2img", "width"].values == ()
