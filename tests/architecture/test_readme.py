"""What the documents tell a newcomer is there: settings, paths, pictures, links, reasons, decisions."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from server.commands.command_line import COMMANDS
from server.settings import SECRETS, Settings

ROOT = Path(__file__).parents[2]
FRONT_PAGE = ROOT / "README.md"
DECISIONS = sorted(ROOT.glob("*/decisions/*.md"))
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", ".github/*.md", "server/**/*.md", "pipelines/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)

MOST_LINES = 200
MOST_LINES_OF_A_DECISION = 15

SUFFIXES = (".py", ".md", ".yaml", ".yml", ".toml", ".json", ".safetensors", ".jpg", ".png", ".ci/run", "/")
"""A word with a slash in it and one of these at its end is a path of the repository."""

_CODE = re.compile(r"`([^`\n]+)`")
_BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_WORD = re.compile(r"(?<![\w./:~{-])(?:\.?\w[\w.-]*/)+[\w.-]*")
_MODULE = re.compile(r"python -m ((?:server|pipelines|tests)(?:\.\w+)+)")
_LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
every_decision = pytest.mark.parametrize("decision", DECISIONS, ids=relative)


def paths_named_in(text: str) -> list[str]:
    """Paths between backticks, in code blocks and in indented commands."""
    code = [*_BLOCK.findall(text), *_CODE.findall(_BLOCK.sub("", text)), *re.findall(r"^    .+$", text, re.M)]
    words = (word for part in code for word in _WORD.findall(part))
    return [word for word in words if word.endswith(SUFFIXES)]


def links_in(text: str) -> list[str]:
    return [link or picture for link, picture in _LINK.findall(text)]


def anchors_of(text: str) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands_named_in(text: str) -> set[tuple[str, ...]]:
    """Commands with their action, where they have one: in backticks and in lines of code."""
    code = [*_BLOCK.findall(text), *_CODE.findall(_BLOCK.sub("", text)), *re.findall(r"^    .+$", text, re.M)]
    found = [match for part in code for match in re.findall(r"\bunderstudy((?: [a-z]+)+)", part)]
    return {tuple(words.split()[:2]) for words in found}


def commands() -> dict[str, set[str]]:
    """Every command with its actions; one that has none has an empty set."""
    found: dict[str, set[str]] = {}
    for name in COMMANDS:
        group = getattr(import_module(f"server.commands.{name}"), "app", None)
        actions = group.registered_commands if group else []
        found[name] = {action.name or action.callback.__name__.replace("_", "-") for action in actions}
    return found


@every_document
def test_every_command_that_is_named_exists(document: Path):
    known = commands()
    wrong = [
        words
        for words in commands_named_in(document.read_text())
        if words[0] not in known or (known[words[0]] and len(words) > 1 and words[1] not in known[words[0]])
    ]
    assert wrong == []


def test_every_command_and_action_is_in_the_servers_readme():
    section = (ROOT / "server/README.md").read_text().partition("## Commands")[2].partition("\n## ")[0]
    table = {line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| `")}
    told = {
        row.split("`")[1].split()[1]: {*re.findall(r"`(?:understudy \w+ )?([a-z]+)`", row)} for row in table
    }
    assert {name: told.get(name, set()) & actions for name, actions in commands().items()} == commands()


def test_every_setting_is_in_the_servers_readme_and_no_other():
    told = set(re.findall(r"UNDERSTUDY_([A-Z0-9_]+)", (ROOT / "server/README.md").read_text()))
    files = {f"{name.upper()}_FILE" for name in SECRETS}
    assert told - files == {name.upper() for name in Settings.model_fields}


@every_document
def test_no_other_document_names_a_setting_that_does_not_exist(document: Path):
    told = set(re.findall(r"UNDERSTUDY_([A-Z0-9_]+)", document.read_text()))
    files = {f"{name.upper()}_FILE" for name in SECRETS}
    assert told <= {name.upper() for name in Settings.model_fields} | files


@every_document
def test_every_path_that_is_named_exists(document: Path):
    # Decisions speak of their package; everything else of the repository or of its own folder.
    places = [ROOT, document.parent, document.parent.parent]
    named = paths_named_in(document.read_text())
    assert [path for path in named if not any((place / path).exists() for place in places)] == []


@every_document
def test_every_module_that_is_run_exists(document: Path):
    modules = _MODULE.findall(document.read_text())
    assert [name for name in modules if not (ROOT / (name.replace(".", "/") + ".py")).is_file()] == []


@every_document
def test_every_picture_is_there_and_every_link_leads_somewhere(document: Path):
    missing: list[str] = []
    for link in links_in(document.read_text()):
        address, _, anchor = link.partition("#")
        if address.startswith(("http://", "https://")):
            continue
        target = (document.parent / address).resolve() if address else document
        if not target.exists() or (anchor and anchor not in anchors_of(target.read_text())):
            missing.append(link)
    assert missing == []


def test_what_is_looked_for_is_found():
    text = FRONT_PAGE.read_text()
    paths = {"server/http/middleware.py", "server/endpoints/", "pipelines/request.py"}
    assert paths <= {*paths_named_in(text)}
    assert len([link for link in links_in(text) if link.startswith("pipelines/demo/pictures/")]) == 5
    assert "how-it-works" in anchors_of(text)
    assert _MODULE.findall(text)


def test_the_front_page_stays_a_page():
    assert len(FRONT_PAGE.read_text().splitlines()) <= MOST_LINES


def test_every_dependency_has_its_reason_beside_it():
    text = (ROOT / "pyproject.toml").read_text()
    sections = r"^(?:dependencies|engine|quantize|otel|ray|dev) = \[\n(.*?)\n\]"
    listed = [*re.findall(sections, text, re.DOTALL | re.MULTILINE)]
    assert len(listed) == 6
    lines = [line for part in listed for line in part.splitlines() if not line.lstrip().startswith("#")]
    assert [line for line in lines if not re.fullmatch(r'  "[^"]+",  # \S.{3,}', line)] == []


@every_decision
def test_a_decision_is_short_and_has_its_three_parts(decision: Path):
    text = decision.read_text()
    number = decision.name[:4]
    assert len(text.splitlines()) <= MOST_LINES_OF_A_DECISION
    assert re.match(rf"# {number} \w", text)
    assert re.findall(r"^\*\*(.+?)\.\*\*", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]


@pytest.mark.parametrize("package", ["server", "pipelines"])
def test_decisions_are_numbered_from_one_and_listed_by_their_readme(package: str):
    decisions = sorted((ROOT / package / "decisions").iterdir())
    assert [path.name[:5] for path in decisions] == [f"{number + 1:04}-" for number in range(len(decisions))]
    listed = re.findall(r"\]\(decisions/([^)#]+)\)", (ROOT / package / "README.md").read_text())
    assert [path.name for path in decisions if path.name not in listed] == []


def test_every_decision_that_is_cited_exists():
    files = [path for room in ("server", "pipelines", "tests") for path in (ROOT / room).rglob("*.py")]
    cited = {
        (path.relative_to(ROOT).as_posix(), *citation)
        for path in files
        for citation in re.findall(r"\b(server|pipelines)/decisions/(\d+)", path.read_text())
    }
    assert cited
    numbers = {(path.parts[-3], path.name[:4]) for path in DECISIONS}
    assert [citation for citation in sorted(cited) if citation[1:] not in numbers] == []


def test_every_folder_of_tests_is_described_and_no_other():
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "tests/README.md").read_text(), re.MULTILINE)
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/test_*.py")}
    assert set(table) == folders
