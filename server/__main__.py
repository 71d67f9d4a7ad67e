"""The command line; `server.commands.command_line` has the commands."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        the exit status: 0 done, 1 failed, 2 asked wrongly, 130 interrupted.
    """
    # Not at the top: an engine process imports this module again, and needs nothing of the server's.
    from server.commands.command_line import main

    return main(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
