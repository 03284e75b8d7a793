"""`sfu log NAME`: one person's story from the database, whether the server runs or not."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sfu.commands import output
from sfu.errors import API, OPERATOR, all_codes
from sfu.settings.config import Config

if TYPE_CHECKING:
    from sfu.store import Store
    from sfu.store.records import Company, Session

NAME, HELP = "log", "show one person's story: joins, paths, quality, ends"
DESCRIPTION = (
    "Shows the calls of everybody with a name, the latest last: when they joined from where, over which path their "
    "media came, how the call went, and how it ended. It reads the database, whether the server runs or not. Quality "
    "and path of a session are in the database once it has ended; `sfu participants` shows those that last."
)
DAYS = 7
MEANINGS = {
    "left": "left by themselves",
    "server_lost": "the server was killed, or could not reach the database",
    "removed": "removed from the room",
    "call_ended": "the call was ended for everybody",
    "time_over": "their token's time in the call was over",
    "room_full": "not admitted: the room was full",
    "quota_exceeded": "not admitted: a limit of the company's tier was reached",
    "room_locked": "not admitted: the room was locked",
    "lobby_refused": "not let in from the lobby",
    "lobby_timeout": "nobody let them in from the lobby",
    "too_many_connections": "too many connections came from their address",
    "no_common_codec": "their browser cannot decode VP8 video",
    "media_restarted": "the media part of the server was restarted",
    "session_gone": "came back after their session had ended",
}
"""Reasons whose texts are for the person concerned, as an operator reads them."""


ENDERS = {API: "the REST API", OPERATOR: "the operator"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `sfu log`."""
    parser.add_argument("name", type=output.text, help="the person's name, in upper or lower case")
    parser.add_argument("--room", type=output.text, help="only this room: its name, COMPANY/ROOM, or a link")
    parser.add_argument(
        "--since", type=since, default=f"{DAYS}d", metavar="TIME", help=f"90m, 8h, 30d or 2026-11-30 (default: {DAYS}d)"
    )
    parser.add_argument("--limit", type=_limit, default=100, help="the last so many sessions (default: 100)")
    output.add_json(parser)


def since(text: str) -> datetime:
    """A time: a duration before now, or a date or time in UTC."""
    try:
        return datetime.now(UTC) - timedelta(seconds=output.duration(text))
    except (argparse.ArgumentTypeError, OverflowError):
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("it must be a time such as 90m, 8h, 30d or 2026-11-30") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10_000):
        raise argparse.ArgumentTypeError("it must be a whole number from 1 to 10000")
    return int(text)


async def run(config: Config, options: argparse.Namespace) -> None:
    """Raises ConfigError, or a Refusal that names the problem."""
    from sfu.network.relays import relay_addresses
    from sfu.store.data import open_data
    from sfu.tenancy.names import sought

    async with open_data(config, create=False) as store:
        companies = {company.id: company for company in await store.companies.list()}
        sessions = await _sessions(store, companies, sought(options.name), options)
        enders = {session.id: await _ender(store, session) for session in sessions}
    relays = await relay_addresses(config.turn_urls)
    if options.json:
        output.print_json([_plain(one, companies, relays) | {"ended_by": enders[one.id]} for one in sessions])
    elif not sessions:
        place = f" in {options.room}" if options.room else ""
        print(f"Nobody was called {options.name!r}{place} since {output.shown_time(options.since)} UTC.")
    for session in () if options.json else sessions:
        print("\n".join(_story(session, companies, relays, enders[session.id])))


async def _sessions(
    store: Store, companies: Iterable[str], name: str, options: argparse.Namespace
) -> Sequence[Session]:
    """The last sessions of this name in all companies, or in the room of the options, in the order of time."""
    from sfu.store.places import place

    room_id = ""
    if options.room:
        company, room_id = await place(store, options.room)
        companies = [company.id]
    found: list[Session] = []
    for company_id in companies:
        limits = {"since": options.since, "limit": options.limit}
        found += await store.history.person(company_id, name, room_id=room_id, **limits)
    return sorted(found, key=lambda session: session.connected_at)[-options.limit :]


async def _ender(store: Store, session: Session) -> str | None:
    """Who ended the session, if somebody else did."""
    by = str(session.metadata.get("ended_by", ""))
    if not by or by in ENDERS:
        return ENDERS.get(by)
    from sfu.store.persons import Persons

    moderator = await Persons(store.database).by_id(by)
    return moderator.name if moderator else "a moderator whose session is no longer stored"


def _story(session: Session, companies: Mapping[str, Company], relays: set[str], ender: str | None) -> Iterable[str]:
    yield f"{session.user_name} in {_room(session, companies)}"
    for time, text in _events(session, ender):
        yield f"  {output.shown_time(time)}  {text}"
    for text in (_path(session, relays), _quality(session), _drops(session)):
        if text:
            yield f"  {'':19}  {text}"
    yield f"  {'':19}  session {session.id} on {session.server}" + (
        f", token {session.token_id}" if session.token_id else ", without a token"
    )


def _events(session: Session, ender: str | None) -> Iterable[tuple[datetime, str]]:
    others = output.count(session.concurrency - 1, "other was", "others were")
    yield session.connected_at, f"joined from {session.peer_address or 'nowhere known'}; {others} there"
    if session.disconnected_at is None:
        yield session.last_seen_at, "seen last by the server; the session is open"
        return
    code = session.leave_reason or "left"
    lasted = output.shown_duration(session.duration_s or 0)
    yield session.disconnected_at, f"{_meaning(code, ender)} After {lasted}."


def _meaning(code: str, ender: str | None) -> str:
    """A code of the database as a sentence with the code."""
    by = f" by {ender}" if ender else ""
    if (text := MEANINGS.get(code)) is not None:
        return f"{text}{by}." if code == "left" else f"{code}: {text}{by}."
    error = all_codes().get(code)
    return f"{code}: {error.default}" if error else f"{code}."


def _path(session: Session, relays: set[str]) -> str:
    from sfu.network.relays import shown_path

    transport, address = (session.metadata.get(name) for name in ("transport", "address"))
    if not transport:
        return "" if session.disconnected_at is None else "path: none, no media ever came"
    return f"path: {shown_path(transport, address, session.peer_address, relays)} from {address}"


def _quality(session: Session) -> str:
    quality = session.quality
    if quality.score_mean is None:
        return ""
    parts = [f"quality: {quality.score_mean:.1f} in the mean, {quality.score_min or quality.score_mean:.1f} at worst"]
    for name, loss, jitter_ms in (
        ("up", quality.loss_up, quality.jitter_up_ms),
        ("down", quality.loss_down, quality.jitter_down_ms),
    ):
        if loss is not None:
            parts.append(f"{name} {output.shown_share(loss)} lost, jitter {jitter_ms or 0:.0f} ms")
    if quality.round_trip_ms is not None:
        parts.append(f"round trip {quality.round_trip_ms:.0f} ms")
    parts.append(f"{(quality.bytes_up or 0) / 1e6:.1f} MB up, {(quality.bytes_down or 0) / 1e6:.1f} MB down")
    return "; ".join(parts)


def _drops(session: Session) -> str:
    drops = session.drops
    if not drops.drops:
        return ""
    times = output.count(drops.drops, "time", "times")
    return f"connection lost {times}, back {output.count(drops.returns, 'time', 'times')}; last: {drops.last_drop}"


def _room(session: Session, companies: Mapping[str, Company]) -> str:
    company = companies.get(session.company_id)
    return session.room_id if company and company.is_default else f"{_name(session, companies)}/{session.room_id}"


def _name(session: Session, companies: Mapping[str, Company]) -> str:
    company = companies.get(session.company_id)
    return company.name if company else session.company_id


def _plain(session: Session, companies: Mapping[str, Company], relays: set[str]) -> dict[str, Any]:
    from sfu.network.relays import shown_path

    transport, address = (session.metadata.get(name) for name in ("transport", "address"))
    found: dict[str, Any] = {
        "name": session.user_name,
        "room": _room(session, companies),
        "company": _name(session, companies),
        "room_id": session.room_id,
        "session": session.id,
        "token": session.token_id,
        "server": session.server,
        "address": session.peer_address,
        "connected_at": session.connected_at,
        "last_seen_at": session.last_seen_at,
        "disconnected_at": session.disconnected_at,
        "leave_reason": session.leave_reason,
        "duration_s": session.duration_s,
        "participants": session.concurrency,
        "path": shown_path(transport, address, session.peer_address, relays),
        "media_address": address,
        **asdict(session.drops),
        **asdict(session.quality),
    }
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in found.items()}
