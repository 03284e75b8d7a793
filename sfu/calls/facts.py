"""What happens in calls, as the audit log and the events say it. Queued, so that nobody waits; the store writes it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sfu import errors
from sfu.calls.lobby import Waiter
from sfu.protocol.server_messages import ChatLine
from sfu.store import Store
from sfu.store.audit import SERVER, Author, Change
from sfu.store.bans import removal
from sfu.store.events import Event
from sfu.store.records import Session


def ender(author: Author) -> str:
    """Who ended a session, as in SfuError.by."""
    return author.id if author.kind == "person" else errors.OPERATOR if author.kind == "command" else errors.API


def moderator(author: Author) -> str:
    """The name of a moderator in the call; empty for others."""
    return author.name if author.kind == "person" else ""


def muted(store: Store, session: Session, source: str, author: Author) -> None:
    """Somebody was muted by somebody else."""
    about, whom = {"user_name": session.user_name, "source": source}, (session.user_name, session.id)
    where = (session.company_id, session.room_id)
    change = Change("participant.muted", where[0], session.id, where[1], None, about, *whom)
    data = {"session_id": session.id, **about, "by": author.shown}
    store.trail.later(author, change, Event("participant.muted", *where, data, *whom))


def removed_too(store: Store, session: Session, until: datetime | None, author: Author) -> None:
    """Another session of somebody who was removed ended with theirs, such as that of a second tab."""
    change, events = removal(session, until, author)
    store.trail.later(author, change, *events)


def ended(store: Store, company_id: str, room_id: str, author: Author, *, people: int, waiting: int) -> None:
    """A call was ended for everybody. Each of them leaves, which is an event of its own."""
    before = {"people": people, "waiting": waiting}
    store.trail.later(author, Change("call.ended", company_id, room_id, room_id, before))


def waiting(store: Store, waiter: Waiter) -> None:
    """Somebody came to the lobby of a room."""
    entry = waiter.entry
    data = _waiter(waiter)
    store.trail.later(SERVER, None, Event("lobby.waiting", entry.company_id, entry.room_id, data, entry.user_name))


def _waiter(waiter: Waiter) -> dict[str, Any]:
    grant = waiter.entry.grant
    known = {"user_id": grant.user_id or None, "token_id": grant.id} if grant else {"user_id": None, "token_id": None}
    return {"id": waiter.id, "user_name": waiter.entry.user_name, **known}


def waited(store: Store, waiter: Waiter) -> None:
    """Somebody no longer waits in the lobby. If a moderator decided that, the audit log has it."""
    entry, author = waiter.entry, waiter.by
    admitted = waiter.decided.is_set() and waiter.error is None and not waiter.left
    kind = "lobby.admitted" if admitted else "lobby.refused"
    data = _waiter(waiter)
    if not admitted:
        data["reason"] = waiter.error.code if waiter.error else "left"
    where = (entry.company_id, entry.room_id)
    change = Change(kind, where[0], waiter.id, where[1], None, data, entry.user_name) if author != SERVER else None
    event = Event(kind, *where, {**data, "by": author.shown}, entry.user_name)
    store.trail.later(author, change, event)


def changed(
    store: Store, session: Session, before: Mapping[str, Any], after: Mapping[str, Any], author: Author
) -> None:
    """Somebody got another name or other permissions; `before` and `after` have what differs."""
    where, whom = (session.company_id, session.room_id), (session.user_name, session.id)
    change = Change("participant.changed", where[0], session.id, where[1], before, after, *whom)
    data = {"session_id": session.id, "user_name": session.user_name, **after, "by": author.shown}
    store.trail.later(author, change, Event("participant.changed", *where, data, *whom))


def moved(store: Store, session: Session, room_id: str, token_id: str, author: Author) -> None:
    """Somebody was sent to another room, with this token. If they go, they leave and join, which are events."""
    after = {"room_id": room_id, "token_id": token_id}
    whom = (session.user_name, session.id)
    change = Change("participant.moved", session.company_id, session.id, session.room_id, None, after, *whom)
    store.trail.later(author, change)


def spotlit(store: Store, company_id: str, room_id: str, session: Session | None, author: Author) -> None:
    """The spotlight of a room was turned to somebody, or off."""
    whom = ("", None) if session is None else (session.user_name, session.id)
    after = {"session_id": whom[1]}
    store.trail.later(author, Change("spotlight.turned", company_id, room_id, room_id, None, after, *whom))


def sent(store: Store, company_id: str, room_id: str, topic: str, people: int, author: Author) -> None:
    """Data were sent to so many people in a call."""
    after = {"topic": topic, "delivered": people}
    store.trail.later(author, Change("message.sent", company_id, room_id, room_id, None, after))


def written(store: Store, company_id: str, room_id: str, line: ChatLine, author: Author) -> None:
    """A line of chat was written as the company."""
    store.trail.later(author, Change("chat.written", company_id, line.id, room_id, None, {"shown_as": line.name}))
