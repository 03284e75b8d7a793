"""What happens in calls, as the audit log and the events say it. Queued, so that nobody waits; the store writes it."""

from __future__ import annotations

from datetime import datetime

from sfu import errors
from sfu.calls.lobby import Waiter
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
    data = {"id": waiter.id, "user_name": entry.user_name}
    store.trail.later(SERVER, None, Event("lobby.waiting", entry.company_id, entry.room_id, data, entry.user_name))


def waited(store: Store, waiter: Waiter) -> None:
    """Somebody no longer waits in the lobby. If a moderator decided that, the audit log has it."""
    entry, author = waiter.entry, waiter.by
    admitted = waiter.decided.is_set() and waiter.error is None and not waiter.left
    kind = "lobby.admitted" if admitted else "lobby.refused"
    data = {"id": waiter.id, "user_name": entry.user_name}
    if not admitted:
        data["reason"] = waiter.error.code if waiter.error else "left"
    where = (entry.company_id, entry.room_id)
    change = Change(kind, where[0], waiter.id, where[1], None, data, entry.user_name) if author != SERVER else None
    event = Event(kind, *where, {**data, "by": author.shown}, entry.user_name)
    store.trail.later(author, change, event)
