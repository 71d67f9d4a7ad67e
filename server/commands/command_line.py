"""All commands under one name, and what a person is told when one of them fails."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from server.commands.failure import CommandFailed

NAME = "understudy"
DISTRIBUTION = "understudy-server"

COMMANDS = {
    "serve": "Answer requests until Ctrl-C.",
    "demo": "Serve small checkpoints and draw one picture through each page.",
    "keys": "Create, import, list and revoke API keys.",
    "credits": "Grant and show credits.",
    "weights": "List, pull or verify the checkpoints of the manifest.",
    "webhooks": "List and retry webhooks, show their signing secret.",
}
"""The commands and what they do. Each is a module beside this one, which has either a group of actions,
``app``, or one function by the command's name."""

FAILED, INTERRUPTED = 1, 130


def main(arguments: list[str]) -> int:
    """Run one command; whatever it meets, a person reads words and never a traceback.

    Returns:
        the exit status.
    """
    debug = _Debug("UNDERSTUDY_LOG_LEVEL", os.environ)
    try:
        _command_line(arguments, debug)(args=arguments, prog_name=NAME)
    except SystemExit as ended:
        return _flushed(ended.code if isinstance(ended.code, int) else FAILED)
    except CommandFailed as failure:
        debug.show(failure, str(failure))
        return failure.status
    except BrokenPipeError:
        return _flushed(FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        debug.show(error, f"{about}{error.strerror or error}")
    except Exception as error:
        more = "" if debug.wanted else f" ({NAME} --debug ... tells where)"
        debug.show(error, f"Unexpected {type(error).__name__}: {error}{more}")
    return FAILED


@dataclass
class _Debug:
    """Whether a person wants to see where an error came from."""

    variable: str
    environment: Any
    given: bool = False

    @property
    def wanted(self) -> bool:
        return self.given or self.environment.get(self.variable, "").lower() == "debug"

    def show(self, error: Exception, words: str) -> None:
        """Print the words, and behind them the traceback where that is wanted."""
        print(words, file=sys.stderr)
        if self.wanted:
            logging.getLogger(__name__).debug("this is where it happened", exc_info=error)


def _command_line(arguments: list[str], debug: _Debug) -> typer.Typer:
    """The command line, in which a command that the arguments do not name is a line of help alone.

    Importing what a server consists of takes seconds, and whoever asks for help has nothing of it.
    """
    app = typer.Typer(
        name=NAME,
        help="A self-hosted stand-in for hosted image-generation APIs.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options(debug))
    # While a shell completes, the words are in its variables: zsh, fish and PowerShell in the second one.
    typed = [os.environ.get(name, "") for name in ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")]
    named = {*arguments, *" ".join(typed).split()}
    for name, meaning in COMMANDS.items():
        if name not in named:
            app.command(name, help=meaning)(_nothing)
            continue
        module = import_module(f"server.commands.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, help=meaning, no_args_is_help=True)
        else:
            app.command(name, help=module.__dict__[name].__doc__ or meaning)(module.__dict__[name])
    return app


def _nothing() -> None:
    """Stand for a command that is not called."""


def _options(debug: _Debug) -> Callable[..., None]:
    """The options in front of every command."""

    def options(
        wants_version: Annotated[
            bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
        ] = False,
        wants_debug: Annotated[
            bool, typer.Option("--debug", help="Log everything, and tell where an error came from.")
        ] = False,
    ) -> None:
        debug.given = wants_debug
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells every request, with its address
        if debug.wanted:
            for package in ("server", "pipelines"):
                logging.getLogger(package).setLevel(logging.DEBUG)

    return options


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        print(f"{NAME} {version(DISTRIBUTION)}")
    except PackageNotFoundError:
        print(f"{NAME} of a checkout that is not installed")
    raise typer.Exit


def _flushed(status: int) -> int:
    """The status, after everything was printed; a reader that is gone (``| head``) is not worth words."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status
