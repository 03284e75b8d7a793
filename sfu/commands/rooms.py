"""`sfu rooms`: the rooms with people in them, on the running server."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from sfu.commands import output
from sfu.operator.control import ask
from sfu.settings.config import Config

NAME, HELP = "rooms", "list the rooms with people in them"
DESCRIPTION = "Lists the rooms of the running server that have people in them or in their lobby."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `sfu rooms`."""
    output.add_json(parser)


async def run(config: Config, options: argparse.Namespace) -> None:
    """Raises NoServer, ConfigError or Declined."""
    rooms = await ask(config, "rooms")
    if options.json:
        output.print_json(rooms)
    elif not rooms:
        print("Nobody is in a room.")
    else:
        head = ("ROOM", "PEOPLE", "WAITING", "SINCE (UTC)", "FOR", "WORKER", "STATE")
        output.print_table([head, *(_row(room, datetime.now(UTC)) for room in rooms)])


def _row(room: dict[str, Any], now: datetime) -> tuple[str, ...]:
    since = room["since"] and output.moment(room["since"])
    return (
        room["room"],
        str(room["participants"]),
        str(room["waiting"]),
        output.shown_time(since) if since else "-",
        output.shown_duration((now - since).total_seconds()) if since else "-",
        "-" if room["worker"] is None else str(room["worker"]),
        state(room),
    )


def state(room: dict[str, Any]) -> str:
    """Whether the room is locked or has a lobby, or neither: open."""
    return ", ".join(word for word, holds in (("locked", room["locked"]), ("lobby", room["lobby"])) if holds) or "open"
