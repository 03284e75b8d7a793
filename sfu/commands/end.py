"""`sfu end ROOM`: ends a call of the running server for everybody."""

from __future__ import annotations

import argparse

from sfu.commands import output
from sfu.operator.control import ask
from sfu.settings.config import Config

NAME, HELP = "end", "end the call in a room for everybody"
DESCRIPTION = (
    "Ends the call in a room of the running server for everybody, including those who wait in its lobby. The next "
    "person who enters begins a new call. The server's log says who did it."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `sfu end`."""
    output.add_room(parser)


async def run(config: Config, options: argparse.Namespace) -> None:
    """Raises NoServer, ConfigError or Declined."""
    done = await ask(config, "end", room=options.room)
    waiting = f", {done['waiting']} waiting" if done["waiting"] else ""
    people = output.count(done["participants"], "participant", "participants")
    print(f"The call in {done['room']} was ended: {people}{waiting}.")
