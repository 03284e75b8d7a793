"""`sfu status`: how the running server is."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from sfu.commands import output
from sfu.operator.control import ask
from sfu.settings.config import Config

NAME, HELP = "status", "show how the running server is"
DESCRIPTION = "Shows how the running server is: its version, its database, its media workers and their load."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    output.add_json(parser)


async def run(config: Config, options: argparse.Namespace) -> None:
    """Raises NoServer, ConfigError or Declined."""
    status = await ask(config, "status")
    if options.json:
        output.print_json(status)
        return
    print(f"sfu {status['version']}, {status['server']}, process {status['process']}: {status['state']}")
    for label, text in _rows(status, datetime.now(UTC)):
        print(f"  {label:11} {text}")
    print()
    output.print_table(_workers(status))


def _rows(status: dict[str, Any], now: datetime) -> list[tuple[str, str]]:
    since, database = output.moment(status["since"]), status["database"]
    people = output.count(status["participants"], "participant", "participants")
    waiting = f", {status['waiting']} waiting in lobbies" if status["waiting"] else ""
    ports = status["udp_ports"]
    udp = f"UDP {ports[0]}" if len(ports) == 1 else f"UDP {ports[0]}-{ports[-1]}"
    tcp = f" and TCP {status['tcp_port']}" if status["tcp_port"] else ", no TCP"
    rows = [
        ("Since", f"{output.shown_time(since)} UTC, {output.shown_duration((now - since).total_seconds())} ago"),
        ("Database", f"{database['state']}, {database['place']}"),
        ("Calls", f"{output.count(status['rooms'], 'room', 'rooms')}, {people}{waiting}"),
        ("Media", f"{', '.join(status['addresses']) or 'no address yet'}; {udp}{tcp}"),
    ]
    if status["certificate_until"]:
        until = output.moment(status["certificate_until"])
        left_s = (until - now).total_seconds()
        left = f"{output.shown_duration(left_s)} left" if left_s > 0 else "EXPIRED"
        rows.append(("Certificate", f"until {output.shown_time(until)} UTC, {left}"))
    return rows


def _workers(status: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("WORKER", "STATE", "LOAD", "ROOMS", "PARTICIPANTS")]
    for worker in status["workers"]:
        full = status["max_load"] is not None and worker["load"] > status["max_load"]
        state = "full" if full else "ready" if worker["ready"] else "down"
        load = f"{worker['load']:.0%}"
        rows.append((str(worker["worker"]), state, load, str(worker["rooms"]), str(worker["participants"])))
    return rows
