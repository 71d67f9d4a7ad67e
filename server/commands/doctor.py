"""`understudy doctor`: whether `serve` would work on this machine, and what to do where it would not."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import asdict

import typer
from rich.console import Console
from rich.text import Text

from pipelines.weights.downloads import sized
from pipelines.weights.manifest import Manifest
from server.commands.checks import machine
from server.commands.checks.checkpoints import (
    PipelineReport,
    Room,
    beside_weights,
    license_findings,
    open_weights,
    reports,
    weights_findings,
)
from server.commands.checks.finding import Check, Finding, all_findings
from server.commands.checks.repository_sizes import HUB, HubClient, Remote, look_at_hub, token_finding
from server.commands.checks.services import (
    clock_finding,
    database_findings,
    port_finding,
    public_url_finding,
    storage_finding,
)
from server.commands.configuration import read_settings
from server.commands.listing import AsJson, print_json, print_table
from server.engines.devices import CPU_BUDGET_GB, devices
from server.settings import Settings

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(as_json: AsJson = False) -> None:
    """Say whether `serve` would work here, and what to do where it would not.

    Looks at Python, torch, driver, devices, memory, disk, weights, hub, database, store, addresses and clock.
    Changes nothing; waits for no answer longer than 5 seconds. Exit status: 0 `serve` would work; 1 not.
    """
    settings = read_settings()
    findings, pipelines = examine(settings)
    problems = sum(finding.state == "problem" for finding in findings)
    if as_json:
        print_json(
            {
                "serve_would_work": not problems,
                "findings": [asdict(finding) for finding in findings],
                "pipelines": [asdict(report) for report in pipelines],
            }
        )
    else:
        _print_findings(findings)
        _print_pipelines(pipelines)
        _print_verdict(findings)
    raise typer.Exit(1 if problems else 0)


def examine(settings: Settings) -> tuple[list[Finding], list[PipelineReport]]:
    """Everything that is found, and what is known of each pipeline."""
    weights, manifest_findings = open_weights(settings.manifest, settings.weights)
    missing = weights.missing() if weights else []
    hub = HubClient(
        (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/"), os.environ.get("HF_TOKEN", "").strip() or None
    )
    remote: dict[str, Remote] = {}

    def ask_hub() -> list[Finding]:
        known, found = look_at_hub(hub, missing)
        remote.update(known)
        return found if known or not missing else [*found, *token_finding(missing, hub.token)]

    torch, cards = machine.installed_torch(), machine.cards()
    clocks = [address for address in (settings.storage_endpoint, hub.endpoint) if address]
    checks: dict[str, Check] = {
        "python": machine.python_finding,
        "torch": lambda: machine.torch_finding(torch),
        "driver": lambda: machine.driver_finding(torch, cards, settings.devices),
        "device": lambda: machine.device_findings(torch, cards, settings),
        "data": lambda: machine.folder_finding("data folder", settings.data, "UNDERSTUDY_DATA"),
        "weights": lambda: machine.folder_finding("weights folder", settings.weights, "UNDERSTUDY_WEIGHTS"),
        "database": lambda: database_findings(settings),
        "store": lambda: storage_finding(settings),
        "port": lambda: port_finding(settings),
        "public url": lambda: public_url_finding(settings),
        "clock": lambda: clock_finding(clocks),
        "hub": ask_hub,
    }
    findings = [*all_findings(checks), *manifest_findings]
    if weights is None:
        return findings, []
    found = reports(weights, _rooms(settings, cards, weights.manifest), remote)
    free = shutil.disk_usage(machine.nearest_there(settings.weights)).free
    findings += weights_findings(weights, found, free, larger=_larger(settings))
    return [*findings, *license_findings(missing)], found


def _rooms(settings: Settings, cards: list[machine.Card] | None, manifest: Manifest) -> dict[str, Room]:
    """The bytes that each kind of device has for weights and drawing; several of one size are one kind."""
    rooms: dict[str, Room] = {}
    for name in devices(settings.devices):
        kind, _, index = name.partition(":")
        if kind == "cpu":
            label, size = "CPU", machine.memory()[0]
        elif cards and kind == "cuda" and int(index or 0) < len(cards):
            size = cards[int(index or 0)].total
            label = f"{size / 2**30:.0f} GiB"
        else:
            continue
        budget_gb = settings.memory_budget_gb or (CPU_BUDGET_GB if kind == "cpu" else None)
        if budget_gb is not None:
            label = f"{label} ({budget_gb:g} GB for weights)"
            size = min(size, int(budget_gb * 1e9) + beside_weights(manifest))
        rooms[label] = Room(size, by_part=kind != "cpu")
    return rooms


def _larger(settings: Settings) -> str:
    """What to do about pipelines that need more than a device has."""
    if machine.devices_are_cpu(settings.devices) or settings.memory_budget_gb is not None:
        return "Raise UNDERSTUDY_MEMORY_BUDGET_GB as far as the memory reaches."
    if devices(settings.devices) == ["cpu"]:
        return "Raise UNDERSTUDY_MEMORY_BUDGET_GB as far as the memory reaches, or draw on a GPU."
    return "Take them out of the manifest, or use a larger card."


def _print_findings(findings: list[Finding]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        line = Text.assemble(
            (f"{finding.state:<8}", _COLOURS[finding.state]), f" {finding.name:<{width}}  {finding.words}"
        )
        console.print(line)
        if finding.remedy and finding.state != "ok":
            console.print(Text(f"{'':8} {'':{width}}  -> {finding.remedy}", style="cyan"))


def _print_pipelines(pipelines: list[PipelineReport]) -> None:
    if not pipelines:
        return
    labels = list(pipelines[0].fit)
    headings = ("PIPELINE", "NEEDS", *(f"ON {label}" for label in labels), "WEIGHTS", "DOWNLOAD", "TERMS")
    rows = [
        (
            report.name,
            sized(report.needs),
            *(_fit_words(report, label) for label in labels),
            report.state,
            "" if report.state == "here" else sized(report.download) if report.download else "?",
            "gated" if report.gated else "",
        )
        for report in pipelines
    ]
    print(flush=True)
    print_table(headings, rows, right=frozenset({"NEEDS", "DOWNLOAD"}))


def _fit_words(report: PipelineReport, label: str) -> str:
    return {"never": "not at all"}.get(report.fit[label].value, report.fit[label].value)


def _print_verdict(findings: list[Finding]) -> None:
    problems = [finding.name for finding in findings if finding.state == "problem"]
    warnings = sum(finding.state == "warning" for finding in findings)
    print()
    if set(problems) == {"weights"}:
        print("`understudy serve` would start, and could draw nothing before there are weights.")
    elif problems:
        count = len(problems)
        print(f"`understudy serve` would not work: {count} problem{'s' if count > 1 else ''} above.")
    else:
        more = f" Read the {warnings} warning{'s' if warnings > 1 else ''}." if warnings else ""
        print(f"`understudy serve` would work.{more}")
    sys.stdout.flush()
