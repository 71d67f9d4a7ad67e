"""The command line: serve, demo, keys, credits, weights, webhooks."""

from __future__ import annotations

import argparse
import logging
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        the exit status: 0 done, 1 failed, 2 asked wrongly.
    """
    # Not at the top: an engine process imports this module again, and needs nothing of the server's.
    from server.commands import credits, demo, keys, serve, webhooks, weights

    parser = argparse.ArgumentParser(
        prog="understudy", description="A self-hosted stand-in for hosted image-generation APIs."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (serve, demo, keys, credits, weights, webhooks):
        command.register(subparsers)
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells every request, with its address
    return parsed.run(parsed)


if __name__ == "__main__":
    sys.exit(main())
