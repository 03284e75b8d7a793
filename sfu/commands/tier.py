"""`sfu tier …`: shows and sets what the tiers of companies allow."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from sfu.commands import output
from sfu.operator.audit import commander, record_command
from sfu.settings import settings_file

if TYPE_CHECKING:
    from sfu.settings.config import Config
    from sfu.store.records import Tier

NAME, HELP = "tier", "show and set the limits of tiers"
DESCRIPTION = (
    "Shows and sets what the tiers of companies allow. Without limits, which is how it begins, they allow all."
)
TIERS: tuple[Tier, ...] = ("free", "pro", "enterprise")
WORDS = {
    "room_people": "people in one room",
    "rooms": "rooms that exist",
    "people": "people in calls at once",
    "minutes_month": "minutes of all people in a month (UTC)",
    "tokens_minute": "tokens issued in a minute",
    "file_bytes": "bytes of one shared file",
    "history_days": "days for which sessions are kept",
}
"""What the limits of a tier count."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands of `sfu tier`."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    one = commands.add_parser("list", help="list the limits", description="Lists the limits.", allow_abbrev=False)
    settings_file.add_option(one)
    output.add_json(one)
    one.set_defaults(tier="")
    text = "set limits of a tier; the others remain"
    one = commands.add_parser("set", help=text, description=f"S{text[1:]}.", allow_abbrev=False)
    settings_file.add_option(one)
    one.add_argument("tier", choices=TIERS)
    for name, words in WORDS.items():
        one.add_argument(f"--{name.replace('_', '-')}", type=_limit, metavar="N", help=f"{words}; none: no limit")
    one.add_argument("--recording", choices=("on", "off"), help="whether calls may be recorded")


def _limit(text: str) -> int | str:
    """A number, or `none`. Not 0: it would close all rooms, or delete the whole history."""
    if text == "none" or (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
        return text if text == "none" else int(text)
    raise argparse.ArgumentTypeError("it must be a whole number from 1 to 999999999, or none for no limit")


async def run(config: Config, options: argparse.Namespace) -> None:
    """Raises ConfigError, or a Refusal that names the problem."""
    from sfu.store.data import open_data
    from sfu.store.tiers import Limits

    async with open_data(config, create=False) as store:
        if options.tier:
            limits = await store.tiers.set(options.tier, _changes(options), author=commander())
            shown = {name: "none" if value is None else value for name, value in asdict(limits).items()}
            record_command("set_tier", tier=options.tier, **shown)
        found = await store.tiers.all()
    if getattr(options, "json", False):
        output.print_json({tier: asdict(found.get(tier, Limits())) for tier in TIERS})
        return
    names = [spec.name for spec in fields(Limits)]
    rows = [["LIMIT", *(tier.upper() for tier in TIERS)]]
    for name in names:
        values = [getattr(found.get(tier, Limits()), name) for tier in TIERS]
        rows.append([name.replace("_", "-"), *map(_shown, values)])
    output.print_table(rows)


def _changes(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in WORDS if getattr(options, name) is not None}
    changes = {name: None if value == "none" else value for name, value in given.items()}
    return changes | ({"recording": options.recording == "on"} if options.recording else {})


def _shown(value: int | bool | None) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)
