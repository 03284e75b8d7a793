"""`sfu serve`: runs the server."""

from __future__ import annotations

import argparse

from sfu.settings.config import Config

NAME, HELP = "serve", "run the server"
DESCRIPTION = "Runs the server."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `sfu serve`."""
    parser.add_argument(
        "--self-signed", action="store_true", help="serve https with a new self-signed certificate, to try phones"
    )


async def run(config: Config, options: argparse.Namespace) -> None:
    """Runs the server until it is stopped. Raises ConfigError or DatabaseUnavailable if it cannot start."""
    from sfu.server import serve  # this import takes half a second

    await serve(config, self_signed=options.self_signed, env_file=options.env_file, env=options.env)
