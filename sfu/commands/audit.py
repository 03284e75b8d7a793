"""`sfu audit`: who changed what, from the database, whether the server runs or not."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sfu import logs
from sfu.commands import output
from sfu.commands.log import since
from sfu.settings.config import Config

if TYPE_CHECKING:
    from sfu.store import Store
    from sfu.store.audit import Author, Change
    from sfu.store.trail import Entry, Wanted

NAME, HELP = "audit", "show who changed what: rooms, tokens, people in calls"
DESCRIPTION = (
    "Shows the audit log of all companies, the latest entry last: what was changed by whom, from which address. It "
    "reads the database, whether the server runs or not. Companies read their own with GET /api/v1/audit."
)
DAYS = 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `sfu audit`."""
    parser.add_argument("--company", type=output.text, metavar="NAME", help="only this company")
    parser.add_argument("--room", type=output.text, help="only this room: its name, COMPANY/ROOM, or a link")
    parser.add_argument("--user", type=output.text, metavar="NAME", help="only what is about this person")
    parser.add_argument("--by", type=output.text, metavar="WHO", help="only what this name or id did")
    parser.add_argument("--action", type=_action, help="only this action, such as room.changed, or all of room")
    parser.add_argument(
        "--since", type=since, default=f"{DAYS}d", metavar="TIME", help=f"90m, 8h, 30d or 2026-11-30 (default: {DAYS}d)"
    )
    parser.add_argument("--limit", type=_limit, default=100, help="the last so many entries (default: 100)")
    output.add_json(parser)


def _action(text: str) -> str:
    from sfu.store.audit import ACTIONS  # takes a quarter of a second; `sfu --help` need not wait for it

    known = {*ACTIONS, *(name.partition(".")[0] for name in ACTIONS)}
    if text not in known:
        raise argparse.ArgumentTypeError(f"there is no such action; there are {', '.join(sorted(known))}")
    return text


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10_000):
        raise argparse.ArgumentTypeError("it must be a whole number from 1 to 10000")
    return int(text)


async def run(config: Config, options: argparse.Namespace) -> None:
    """Raises ConfigError, or a Refusal that names the problem."""
    from sfu.store.data import open_data

    async with open_data(config, create=False) as store:
        companies = {one.id: "" if one.is_default else one.name for one in await store.companies.list()}
        page = await store.trail.list(await _wanted(store, options), limit=options.limit)
    entries = page.items[::-1]
    if options.json:
        output.print_json([_plain(entry) for entry in entries])
    elif not entries:
        print(f"There is no such entry since {output.shown_time(options.since)} UTC.")
    for entry in () if options.json else entries:
        print("  ".join(_parts(entry, companies)))


async def _wanted(store: Store, options: argparse.Namespace) -> Wanted:
    from sfu.store.places import company_named, place
    from sfu.store.trail import Wanted
    from sfu.tenancy.names import sought

    company_id, room_id = None, ""
    if options.room:
        company, room_id = await place(store, options.room, options.company)
        company_id = company.id
    elif options.company:
        company_id = (await company_named(store, options.company)).id
    return Wanted(
        company_id,
        since=options.since,
        room_id=room_id,
        user_name=sought(options.user or ""),
        action=options.action or "",
        by=sought(options.by or ""),
    )


def _parts(entry: Entry, companies: Mapping[str, str]) -> Iterable[str]:
    """The parts of an entry's line. Texts that people wrote are quoted."""
    change = entry.change
    yield output.shown_time(entry.at)
    yield change.action
    yield _where(change, companies)
    yield f"by {_who(entry.author)}"
    if what := ", ".join(_what(change)):
        yield what


def _where(change: Change, companies: Mapping[str, str]) -> str:
    if change.company_id is None:
        return "the whole server"
    company = companies.get(change.company_id, change.company_id)
    names = (company, change.room_id) if change.room_id is not None else (company or "default",)
    return logs.quoted("/".join(filter(None, names)))


def _who(author: Author) -> str:
    name = logs.quoted(author.name) if author.kind in ("person", "token", "command") else author.name
    return " ".join(filter(None, (author.kind, name, author.address and f"from {author.address}")))


def _what(change: Change) -> Iterable[str]:
    before, after = dict(change.before or {}), dict(change.after or {})
    if change.user_name and "user_name" not in before | after:
        yield f"user_name={logs.quoted(change.user_name)}"
    for name in after if change.after is not None else before:
        old, new = (logs.quoted(json.dumps(values.get(name), ensure_ascii=False))[1:-1] for values in (before, after))
        yield f"{name}: {old} → {new}" if name in before and name in after else f"{name}={new if after else old}"


def _plain(entry: Entry) -> dict[str, Any]:
    author = {
        f"by_{name}" if name in ("kind", "id", "name") else name: text for name, text in asdict(entry.author).items()
    }
    return {"id": entry.id, "at": entry.at.isoformat(), **author, **asdict(entry.change)}
