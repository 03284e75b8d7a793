"""`sfu kick ROOM NAME`: removes somebody from a room of the running server."""

from __future__ import annotations

import argparse

from sfu.commands import output
from sfu.operator.control import ask
from sfu.settings.config import Config

NAME, HELP = "kick", "remove somebody from a room"
DESCRIPTION = (
    "Removes somebody from a room of the running server, or from its lobby, and keeps them out: for SFU_BAN_S, or "
    "until their token expires. The call goes on. The server's log says who did it."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `sfu kick`."""
    output.add_room(parser)
    parser.add_argument(
        "name", metavar="PERSON", type=output.text, help="the person's name, or an id that `sfu participants` shows"
    )
    parser.add_argument("--no-ban", action="store_true", help="let them come back")


async def run(config: Config, options: argparse.Namespace) -> None:
    """Raises NoServer, ConfigError or Declined."""
    done = await ask(config, "kick", room=options.room, who=options.name, ban=not options.no_ban)
    if not done["sessions"]:
        print(f"{done['name']} waited for {done['room']} and was refused.")
        return
    until = (
        done["banned_until"]
        and f"They cannot come back before {output.shown_time(output.moment(done['banned_until']))} UTC."
    )
    print(f"{done['name']} was removed from {done['room']}. {until or 'They may come back.'}")
