"""`sfu participants ROOM`: who is in a room of the running server, and how their call goes."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from sfu.commands import output
from sfu.commands.rooms import state
from sfu.operator.control import ask
from sfu.settings.config import Config

NAME, HELP = "participants", "show who is in a room, and how their call goes"
DESCRIPTION = (
    "Shows who is in a room of the running server: since when, from where, over which path their media comes "
    "(udp, tcp, relay), the quality of their call (1 is bad, 4.4 perfect), and what they send."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `sfu participants`."""
    output.add_room(parser)
    output.add_json(parser)


async def run(config: Config, options: argparse.Namespace) -> None:
    """Raises NoServer, ConfigError or Declined."""
    room = await ask(config, "participants", room=options.room)
    if options.json:
        output.print_json(room)
        return
    worker = "" if room["worker"] is None else f", media worker {room['worker']}"
    print(f"{room['room']}: {output.count(room['participants'], 'participant', 'participants')}, {state(room)}{worker}")
    if room["people"]:
        head = ("NAME", "ID", "FOR", "FROM", "PATH", "QUALITY", "LOSS UP/DOWN", "ROUND TRIP", "DROPS", "SENDS")
        output.print_table([head, *(_row(person, datetime.now(UTC)) for person in room["people"])])
    for person in room["lobby_people"]:
        print(f"waits in the lobby: {person['name']}, {person['peer']}")


def _row(person: dict[str, Any], now: datetime) -> tuple[str, ...]:
    name = person["name"] + (" (moderator)" if person["moderator"] else "")
    sends = [f"{track['source']}{' (muted)' if track['muted'] else ''}" for track in person["publishes"]]
    losses = [person["loss_up"], person["loss_down"]]
    known = any(loss is not None for loss in losses)
    return (
        name,
        person["peer"],
        output.shown_duration((now - output.moment(person["since"])).total_seconds()),
        person["address"],
        (person["path"] or "none") + ("" if person["connected"] else " (reconnecting)"),
        "-" if person["score"] is None else f"{person['score']:.1f}",
        " / ".join(output.shown_share(loss) for loss in losses) if known else "-",
        "-" if person["round_trip_ms"] is None else f"{person['round_trip_ms']:.0f} ms",
        str(person["drops"]),
        ", ".join(sends) or "-",
    )
