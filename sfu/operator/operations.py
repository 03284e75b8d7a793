"""What the operator's commands ask of the running server, over the control socket.

Answers are JSON objects, the same that the commands print with `--json`. Everything is found in memory, so that it
works without the database; only the names of companies come from there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from sfu import __version__
from sfu.calls.moderation import Moderation
from sfu.calls.registry import Calls, Seat
from sfu.calls.rooms import Room
from sfu.logs import quoted
from sfu.network.relays import relay_addresses, shown_path
from sfu.operator import audit
from sfu.operator.control import Call, Control
from sfu.protocol.server_messages import Waiter
from sfu.refusals import DatabaseUnavailable, NoCall, Refusal
from sfu.settings.config import Config
from sfu.store.audit import Author
from sfu.store.data import described, server_name
from sfu.tenancy.links import Named, named, page_urls
from sfu.web.tls import Tls, names_of

SHOWN = 10
"""Most people or rooms that a refusal names."""


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """The arguments of a command that takes none."""


class InRoom(msgspec.Struct, forbid_unknown_fields=True):
    room: str


class Kick(msgspec.Struct, forbid_unknown_fields=True):
    """`who` is a name, a peer's id or a session's. Without `ban` they may come back at once."""

    room: str
    who: str
    ban: bool = True


class RoomAmbiguous(Refusal):
    code, status = "room_ambiguous", 409


class PersonAmbiguous(Refusal):
    code, status = "person_ambiguous", 409


class PersonNotFound(Refusal):
    code, status = "person_not_found", 404


@dataclass(frozen=True, slots=True)
class _Here:
    """A call of this server: a room with people in it or in its lobby. `name` is what operators call it."""

    key: str
    name: str
    company: str
    room: Room | None
    waiting: tuple[Waiter, ...]

    @property
    def room_id(self) -> str:
        return self.key.partition("/")[2]


class Operations:
    """`tls` returns what TLS offers new connections, None for http."""

    def __init__(self, config: Config, calls: Calls, moderation: Moderation, tls: Callable[[], Tls | None]) -> None:
        self._config, self._calls, self._moderation, self._tls = config, calls, moderation, tls
        self._since = datetime.now(UTC)
        self._companies: dict[str, str] = {}  # names by id, as last read

    def register(self, control: Control) -> None:
        """Registers the handlers of all commands here."""
        control.add("status", Nothing, self._status)
        control.add("rooms", Nothing, self._rooms)
        control.add("participants", InRoom, self._participants)
        control.add("kick", Kick, self._kick)
        control.add("end", InRoom, self._end)

    # --- what there is ------------------------------------------------------------------------------------------------

    async def _status(self, _asked: Nothing, _call: Call) -> dict[str, Any]:
        hub, tls = self._calls, self._tls()
        store = hub.admission.store
        leaf = tls.leaf if tls else None
        names = [name for name in names_of(leaf) if "*" not in name and name != "localhost"] if leaf else []
        return {
            "version": __version__,
            "server": server_name(self._config),
            "process": os.getpid(),
            "since": self._since,
            "state": hub.life.phase if hub.life.draining or hub.workers.ready else "starting",
            "database": {"state": store.database.state, "place": described(self._config)},
            "rooms": len(hub.rooms.rooms),
            "participants": len(hub.rooms.peers),
            "waiting": hub.lobby.count,
            "urls": page_urls(self._config, hub.workers.advertised, names, secure=tls is not None),
            "addresses": hub.workers.advertised,
            "udp_ports": list(self._config.udp_ports),
            "tcp_port": self._config.public_tcp_port or None,
            "certificate_until": leaf and leaf.not_valid_after_utc,
            "max_load": self._config.max_load if self._config.limits else None,
            "workers": self._workers(),
        }

    def _workers(self) -> list[dict[str, Any]]:
        hub, found = self._calls, []
        for index in range(self._config.workers):
            rooms = [room for room in hub.rooms.rooms.values() if room.worker == index]
            found.append(
                {
                    "worker": index,
                    "ready": hub.workers.is_ready(index),
                    "load": round(hub.workers.capacity.load(index), 3),
                    "rooms": len(rooms),
                    "participants": sum(len(room.peers) for room in rooms),
                }
            )
        return found

    async def _rooms(self, _asked: Nothing, _call: Call) -> list[dict[str, Any]]:
        return [_room(here) for here in await self._here()]

    async def _participants(self, asked: InRoom, _call: Call) -> dict[str, Any]:
        here = await self._find(named(asked.room))
        relays = await relay_addresses(self._config.turn_urls)
        if self._config.turn_urls:
            relays.update(self._calls.workers.advertised)  # a TURN server on this machine
        people = [self._person(seat, relays) for seat in self._seats(here)]
        waiting = [{"name": waiter.name, "peer": waiter.peer} for waiter in here.waiting]
        return _room(here) | {"people": people, "lobby_people": waiting}

    def _person(self, seat: Seat, relays: set[str]) -> dict[str, Any]:
        peer, quality = seat.peer, seat.peer.quality
        figures = quality.up or quality.down
        return {
            "name": peer.name,
            "peer": peer.id,
            "session": seat.record.id,
            "since": seat.record.connected_at,
            "address": seat.entry.address,
            "connected": seat.connected,
            "moderator": peer.moderator,
            "path": shown_path(seat.path.get("transport"), seat.path.get("address"), seat.entry.address, relays),
            "media_address": seat.path.get("address"),
            "score": peer.room.scores.get(peer.id),
            "loss_up": quality.up and quality.up.loss,
            "loss_down": quality.down and quality.down.loss,
            "round_trip_ms": figures and figures.round_trip_ms,
            "cause": quality.cause and quality.cause.kind,
            "publishes": [
                {"source": source, "kind": kind, "muted": source in peer.muted} for source, kind in peer.tracks.items()
            ],
            "drops": seat.drops.now.drops,
            "returns": seat.drops.now.returns,
            "last_drop": seat.drops.now.last_drop,
        }

    # --- what an operator changes -------------------------------------------------------------------------------------

    async def _kick(self, asked: Kick, call: Call) -> dict[str, Any]:
        here = await self._find(named(asked.room))
        for waiter in here.waiting:
            if asked.who == waiter.peer:
                return self._refuse(here, waiter, call)
        seats = self._matching(here, asked.who)
        if not seats and (waiters := [waiter for waiter in here.waiting if _same(waiter.name, asked.who)]):
            if len(waiters) > 1:
                raise PersonAmbiguous(_which(asked.who, [f"{waiter.peer} (waiting)" for waiter in waiters]))
            return self._refuse(here, waiters[0], call)
        if not seats:
            names = sorted({seat.peer.name for seat in self._seats(here)} | {waiter.name for waiter in here.waiting})
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            raise PersonNotFound(
                f"Nobody in {here.name} is called {asked.who!r}. There are {', '.join(names[:SHOWN])}{more}."
            )
        if len({seat.entry.person for seat in seats}) > 1:
            raise PersonAmbiguous(_which(asked.who, [f"{seat.peer.id} ({seat.entry.address})" for seat in seats]))
        until = self._moderation.remove_person(seats[0], _author(call), ban=asked.ban)
        for seat in seats:
            about = {"peer": seat.peer.id, "name": quoted(seat.peer.name), "session": seat.record.id}
            self._record(
                "remove_participant", here, call, **about, banned_until=until and until.isoformat("T", "seconds")
            )
        return {"room": here.name, "name": seats[0].peer.name, "sessions": len(seats), "banned_until": until}

    def _refuse(self, here: _Here, waiter: Waiter, call: Call) -> dict[str, Any]:
        self._moderation.refuse_waiting(here.key, waiter.peer, _author(call))
        self._record("refuse_participant", here, call, peer=waiter.peer, name=quoted(waiter.name))
        return {"room": here.name, "name": waiter.name, "sessions": 0, "banned_until": None}

    async def _end(self, asked: InRoom, call: Call) -> dict[str, Any]:
        here = await self._find(named(asked.room))
        company_id, _, room_id = here.key.partition("/")
        ended = {"room": here.name, "participants": len(self._seats(here)), "waiting": len(here.waiting)}
        self._moderation.end_call(company_id, room_id, _author(call))
        self._record("end_call", here, call)
        return ended

    def _record(self, event: str, here: _Here, call: Call, **about: object) -> None:
        audit.record(event, room=quoted(here.key), **about, by=call.by, client=call.client)

    # --- which one is meant -------------------------------------------------------------------------------------------

    async def _here(self) -> list[_Here]:
        """Every call of this server, by name."""
        hub = self._calls
        if (store := hub.admission.store).database.state == "ok":
            with contextlib.suppress(DatabaseUnavailable):  # then the names as last read, or ids
                self._companies = {company.id: company.name for company in await store.companies.list()}
        keys = {*hub.rooms.rooms, *(seat.entry.key for seat in hub.sessions()), *hub.lobby.keys}
        found = []
        for key in keys:
            company_id, _, room_id = key.partition("/")
            company = self._companies.get(company_id, company_id)
            name = room_id if company_id == hub.admission.default_id else f"{company}/{room_id}"
            found.append(_Here(key, name, company, hub.rooms.rooms.get(key), hub.lobby.waiting(key).waiting))
        return sorted(found, key=lambda here: here.name)

    async def _find(self, asked: Named) -> _Here:
        """The call that is meant: by its name or key, else by the id of a room that only one company has a call in.

        Raises RoomAmbiguous or NoCall.
        """
        calls = await self._here()
        by_key = [here for here in calls if here.key == (asked.key or asked.text)]
        by_name = [here for here in calls if here.name == asked.text and not asked.key]
        by_id = [here for here in calls if here.room_id == asked.text and not asked.key]
        for found in (by_key, by_name, by_id):
            if len(found) > 1:
                names = found if len({here.name for here in found}) == len(found) else []
                shown = [here.name for here in names] or [here.key for here in found]
                raise RoomAmbiguous(f"{asked.text!r} may be {' or '.join(shown[:SHOWN])}. Name one of them.")
            if found:
                return found[0]
        raise NoCall(f"Nobody is in a room {asked.text!r} on this server. `sfu rooms` shows those with people.")

    def _seats(self, here: _Here) -> list[Seat]:
        return [seat for seat in self._calls.sessions() if seat.entry.key == here.key]

    def _matching(self, here: _Here, who: str) -> list[Seat]:
        """The sessions with this id, or else of people with this name."""
        seats = self._seats(here)
        by_id = [seat for seat in seats if who in (seat.peer.id, seat.record.id)]
        exact = [seat for seat in seats if seat.peer.name == who]
        return by_id or exact or [seat for seat in seats if _same(seat.peer.name, who)]


def _author(call: Call) -> Author:
    return audit.author_of(call.by, call.client)


def _same(name: str, text: str) -> bool:
    return name.casefold() == text.strip().casefold()


def _which(who: str, ids: list[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f"Several people are called {who!r}: {', '.join(ids[:SHOWN])}{more}. Give the id of one instead."


def _room(here: _Here) -> dict[str, Any]:
    room = here.room
    return {
        "room": here.name,
        "company": here.company,
        "room_id": here.room_id,
        "participants": len(room.peers) if room else 0,
        "waiting": len(here.waiting),
        "since": datetime.fromtimestamp(room.since_ms / 1000, UTC) if room else None,
        "worker": room.worker if room else None,
        "locked": room is not None and room.state.locked,
        "lobby": room.state.lobby if room else bool(here.waiting),
    }
