"""`understudy models`: add, scan, list and remove what can be drawn with beside weights.yaml."""

from __future__ import annotations

import asyncio
import difflib
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from yaml import YAMLError

from pipelines.weights.downloads import sized
from pipelines.weights.kinds import LocalKind, StableDiffusionFamily
from pipelines.weights.manifest import load_manifest
from server.commands.configuration import read_settings
from server.commands.failure import CommandFailed
from server.commands.listing import AsJson, one_line, print_json, print_table, say_empty
from server.loading import additions
from server.loading.additions import Addition, NotAdded, Wanted
from server.loading.changes import is_served
from server.loading.local_files import Look
from server.loading.scan import Found, NothingThere, Scan, look_through, record
from server.loading.stock import Item, stock
from server.settings import Settings

app = typer.Typer(help="Add, scan, list and remove checkpoints, LoRAs and other things to draw with.")

FAILED, NOT_ADDED = 1, 1


DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done; write nothing.")]


@app.command()
def add(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|URL|OWNER/NAME",
            help="A file or folder on this machine, used where it lies; the address of a .safetensors; or a"
            " repository of the hub.",
        ),
    ],
    id_: Annotated[str | None, typer.Option("--id", help="The name to draw with it [its file's].")] = None,
    kind: Annotated[LocalKind | None, typer.Option(help="What it has to be.")] = None,
    family: Annotated[
        StableDiffusionFamily | None, typer.Option(help="What it is made for, where nothing in it tells.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Add one checkpoint, LoRA, embedding, VAE, ControlNet, upscaler or face restorer.

    The environment's HF_TOKEN is sent to the hub and CIVITAI_TOKEN to Civitai, and to no other host.
    """
    settings = _settings()
    wanted = Wanted(what, id_, kind, family)
    with _in_words(settings):
        path = additions.local_path(what)
        if path is not None:
            added = additions.add_local(wanted, path, settings, dry_run=dry_run)
        elif dry_run:
            raise CommandFailed(
                "--dry-run is for what lies on this machine: the rest is known when it is here"
            )
        else:
            with _progress(what, bytes_=True) as progress:
                added = asyncio.run(additions.add_remote(wanted, settings, progress))
    if as_json:
        print_json(_json_of(added))
        return
    place = "used where it lies" if added.item.in_place else "fetched"
    family_word = f" for {added.item.entry['family']}" if "family" in added.item.entry else ""
    about = f", {added.about}" if added.about else ""
    print(f"{added.name}: a {additions.kind_words(added.item)}{family_word}{about}; {place}.")
    if added.item.warning:
        _note(f"{added.name}: {added.item.warning}")
    _say_when(settings, dry_run=dry_run)


@app.command()
def scan(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A folder of AUTOMATIC1111 or ComfyUI, or ComfyUI's extra_model_paths.yaml."
        ),
    ],
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget what was found there, also when nothing is left of it.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Find what can be drawn with below a folder, and draw with it where it lies, without a copy.

    Headers alone are read. What came since the last scan is added, what is gone is forgotten; names stay.
    """
    settings = _settings()
    if not folder.exists():
        raise CommandFailed(f"{folder}: there is no such folder")
    if folder.is_file() and folder.suffix not in (".yaml", ".yml"):
        raise CommandFailed(f"{folder} is one file; add it with: understudy models add {folder}")
    with _in_words(settings):
        own = load_manifest(settings.manifest)
        look = Look(own, additions.on_cpu(settings))
        with _progress(f"Looking at {folder}", bytes_=False) as progress:
            result = look_through(folder, look, settings.weights, progress)
        record(result, own, settings.weights, dry_run=dry_run, forget_all=forget)
    if as_json:
        print_json(_json_of_scan(result))
    else:
        _print_scan(result)
        _say_when(settings, dry_run=dry_run)


@app.command("list")
def list_(
    kind: Annotated[LocalKind | None, typer.Option(help="Only these.")] = None,
    as_json: AsJson = False,
) -> None:
    """List everything that can be drawn with: weights.yaml's, what was loaded, added and scanned."""
    settings = _settings()
    with _in_words(settings):
        items = [each for each in stock(settings) if kind is None or each.kind == kind]
    if as_json:
        print_json([each.as_json() for each in items])
        return
    if not items:
        say_empty("Nothing of this is here. `understudy models scan DIR` and `models add` bring some.")
        return
    headings = ("NAME", "KIND", "FAMILY", "SIZE", "LOADED", "LAST USED", "FROM")
    print_table(headings, [_row(each) for each in items], right=frozenset({"SIZE"}))


@app.command()
def rm(
    which: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Names, or the folder of a scan, for all of it.")
    ],
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Forget what was added. Files that were fetched are removed, those used where they lie are left."""
    settings = _settings()
    with _in_words(settings):
        removed = additions.remove(which, settings, dry_run=dry_run)
    if as_json:
        print_json([_json_of(each) for each in removed])
        return
    for each in removed:
        files = "its file stays where it is" if each.item.in_place else "its files are removed"
        print(f"{each.name}: forgotten; {files}.")
    _say_when(settings, dry_run=dry_run)


def _settings() -> Settings:
    settings = read_settings()
    if not settings.manifest.exists():
        raise CommandFailed(f"There is no manifest at {settings.manifest} (UNDERSTUDY_MANIFEST).")
    return settings


@contextmanager
def _in_words(settings: Settings) -> Generator[None]:
    """Turn what goes wrong into words for the operator."""
    try:
        yield
    except NotAdded as error:
        raise CommandFailed(f"{error}{_nearest(str(error), settings)}", status=NOT_ADDED) from error
    except NothingThere as error:
        raise CommandFailed(str(error), status=FAILED) from error
    except ValidationError as error:
        raise CommandFailed(f"{settings.manifest} is not a valid manifest: {error}") from error
    except (ValueError, YAMLError) as error:
        raise CommandFailed(str(error)) from error
    except PermissionError as error:
        raise CommandFailed(
            f"{error.filename or settings.weights}: {error.strerror}", status=FAILED
        ) from error


def _nearest(text: str, settings: Settings) -> str:
    """A hint at a name that may have been meant, where a name is not known."""
    if "not among what was added" not in text:
        return ""
    known = [each.name for each in stock(settings) if not each.own]
    close = difflib.get_close_matches(text.partition(" ")[0], known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _say_when(settings: Settings, *, dry_run: bool) -> None:
    if dry_run:
        _note("Nothing was written.")
    elif is_served(settings.weights):
        _note("The running server takes this up within a few seconds.")


def _print_scan(result: Scan) -> None:
    usable = sorted(result.usable, key=lambda each: each.name.lower())
    rows = [_scan_row(each) for each in usable]
    print_table(("NAME", "KIND", "FAMILY", "SIZE", "", "FILE"), rows, right=frozenset({"SIZE"}))
    for name, path in result.gone.items():
        print(f"{one_line(name)}: gone, and forgotten ({one_line(path)})")
    refused = [each for each in result.found if each.model is None]
    problems = [(each.candidate.path, each.problem) for each in refused] + result.walked.problems
    if problems:
        print("\nLeft out:")
        for path, problem in problems:
            print(f"  {one_line(path)}: {one_line(problem)}")
    for link, path in result.walked.links:
        print(f"  {one_line(link)}: the same file as {one_line(path)}")
    new = sum(each.is_new for each in usable)
    print(
        f"\n{len(usable)} to draw with, {new} of them new; {len(result.gone)} gone; {len(problems)} left out;"
        f" {result.walked.others} other files."
    )


def _scan_row(found: Found) -> tuple[str, ...]:
    model = found.model
    assert model is not None
    taken = f"{found.taken} is the name of something else" if found.taken else ""
    words = ["new" if found.is_new else "", model.about, taken, model.warning or ""]
    return (
        found.name,
        model.kind.replace("_", " "),
        model.family or "",
        sized(model.size),
        "; ".join(word for word in words if word),
        found.candidate.within,
    )


def _json_of_scan(result: Scan) -> dict[str, Any]:
    return {
        "found": [
            {
                "name": each.name,
                "kind": each.model.kind,
                "family": each.model.family,
                "bytes": each.model.size,
                "new": each.is_new,
                "about": each.model.about,
                "warning": each.model.warning,
                "path": str(each.candidate.path),
            }
            for each in result.found
            if each.model is not None
        ],
        "gone": [{"name": name, "path": path} for name, path in result.gone.items()],
        "left_out": [
            *(
                {"path": str(each.candidate.path), "reason": each.problem}
                for each in result.found
                if each.model is None
            ),
            *({"path": str(path), "reason": reason} for path, reason in result.walked.problems),
        ],
        "links": [{"path": str(link), "same_as": str(path)} for link, path in result.walked.links],
        "other_files": result.walked.others,
    }


def _json_of(addition: Addition) -> dict[str, Any]:
    item = addition.item
    return {
        "name": addition.name,
        "kind": additions.kind_words(item).replace(" ", "_"),
        "family": item.entry.get("family"),
        "about": addition.about,
        "warning": item.warning,
        "origin": item.origin,
        "in_place": item.in_place,
        "also": item.entry.get("also", []),
    }


def _row(item: Item) -> tuple[str, ...]:
    used = item.last_used.astimezone().strftime("%Y-%m-%d %H:%M") if item.last_used else "never"
    size = sized(item.size) if item.size else ""
    return (
        item.name,
        item.kind.replace("_", " "),
        item.family,
        size,
        item.state,
        used,
        item.origin,
    )


@contextmanager
def _progress(text: str, *, bytes_: bool) -> Generator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    counted = DownloadColumn() if bytes_ else MofNCompleteColumn()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        counted,
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def _note(text: str) -> None:
    print(text, file=sys.stderr)
