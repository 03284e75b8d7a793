"""The audit trail: what each change of the store leaves in the audit log and among the events, on both engines."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sfu.refusals import BadCursor, RoomChanged, RoomExists
from sfu.store import Store
from sfu.store.audit import ACTIONS, Author, Change
from sfu.store.events import TYPES, Event
from sfu.store.records import Company, File, Line, Room, RoomSettings
from sfu.store.trail import Entry, Wanted

pytest_plugins = ["support.storing"]

MAX = Author("key", "k1", "pk_max", "192.0.2.7", "req1")
LINE_ID, FILE_ID = "0f4a8f1e-0000-4000-8000-000000000001", "0f4a8f1e-0000-4000-8000-000000000002"
Issue = Callable[..., Awaitable[Any]]


class Ticking:
    """A time that passes a little whenever it is read, so that entries have an order."""

    def __init__(self) -> None:
        self.now = datetime(2025, 10, 21, 17, 21, 27, 123457, UTC)

    def __call__(self) -> datetime:
        self.advance(0.001)
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Ticking:
    return Ticking()


async def told(store: Store, company: Company, **wanted: str) -> list[Entry]:
    """The entries about a company since it was made, the oldest first."""
    found = (await store.trail.list(Wanted(company.id, **wanted))).items
    return [entry for entry in reversed(found) if entry.change.action != "company.created"]


async def events(store: Store) -> list[tuple[int, str, dict[str, Any]]]:
    rows = await store.database.read("SELECT seq, type, data FROM events ORDER BY seq")
    return [(row["seq"], row["type"], json.loads(row["data"])) for row in rows]


async def test_a_room_leaves_what_changed_and_by_whom(store: Store, company: Company) -> None:
    room = await store.rooms.create(company.id, "team", RoomSettings(name="Team"), MAX)
    await store.rooms.update(company.id, "team", {"name": "Crew", "lobby": False, "metadata": {"n": [1]}}, MAX)
    await store.rooms.update(company.id, "team", {"name": "Crew"}, MAX)
    store.rooms.set(company.id, "team", MAX, locked=True, lobby=None)
    await store.rulings.flush()
    await store.rooms.delete(company.id, "team", MAX)
    created, changed, locked, deleted = await told(store, company)
    assert {(one.change.target, one.change.room_id, one.author) for one in (created, changed, locked, deleted)} == {
        (room.id, "team", MAX)
    }
    assert (created.change.before, (created.change.after or {})["name"]) == (None, "Team")
    assert changed.change.before == {"name": "Team", "metadata": {}}
    assert changed.change.after == {"name": "Crew", "metadata": {"n": [1]}}
    assert (locked.change.before, locked.change.after) == ({"locked": False}, {"locked": True})
    assert ((deleted.change.before or {})["name"], deleted.change.after) == ("Crew", None)
    found = await events(store)
    assert [(seq, kind) for seq, kind, _ in found] == [
        (1, "room.created"),
        (2, "room.changed"),
        (3, "room.changed"),
        (4, "room.deleted"),
    ]
    assert {data["id"] for _, _, data in found} == {room.id}
    assert found[2][2]["changed"] == {"locked": True}
    assert found[2][2]["by"] == {"kind": "key", "id": "k1"}, "no name, no address"


async def test_what_does_not_happen_leaves_nothing(store: Store, company: Company) -> None:
    def judge(_room: Room) -> None:
        raise RoomChanged

    await store.rooms.create(company.id, "team", RoomSettings())
    with pytest.raises(RoomExists):
        await store.rooms.create(company.id, "team", RoomSettings(), MAX)
    with pytest.raises(RoomChanged):
        await store.rooms.update(company.id, "team", {"name": "x"}, MAX, judge=judge)
    with pytest.raises(RoomChanged):
        await store.rooms.delete(company.id, "team", MAX, judge=judge)
    store.rooms.set(company.id, "gone", MAX, locked=True, lobby=None)
    assert await store.chat.delete(company.id, "team", LINE_ID, MAX) is False
    assert await store.bans.lift(company.id, "team", LINE_ID, MAX) is None
    assert await store.tokens.revoke(company.id, LINE_ID, MAX) is None
    assert [entry.change.action for entry in await told(store, company, by="k1")] == []
    assert [kind for _, kind, _ in await events(store)] == ["room.created"]


async def test_a_token_and_its_revocation(store: Store, company: Company, issue: Issue) -> None:
    grant, token = await issue(company, single_use=True)
    for _ in range(2):
        assert await store.tokens.revoke(company.id, grant.id, MAX) is not None
    issued, revoked = await told(store, company)
    assert (issued.change.action, revoked.change.action) == ("token.issued", "token.revoked")
    assert (issued.author.kind, revoked.author) == ("server", MAX)
    assert issued.change.after == revoked.change.before
    assert (issued.change.after or {})["single_use"] is True
    assert issued.change.user_name == "alice"
    assert token not in repr(issued)
    assert token.rpartition(".")[2] not in repr(issued)
    assert await events(store) == [(1, "token.revoked", {"id": grant.id, "by": {"kind": "key", "id": "k1"}})]


async def test_a_company_and_its_keys(store: Store, company: Company) -> None:
    made, first = await store.companies.create("New", "pro", MAX)
    _, second = await store.companies.rotate_key(made.id, MAX)
    await store.companies.rotate_secret(made.id, MAX)
    for active in (True, False, False):
        await store.companies.set_active(made.id, active, MAX)
    found = (await store.trail.list(Wanted(made.id))).items
    whole = {"name": "first", "scopes": ["admin"], "expires_at": None}
    assert sorted((one.change.action, one.change.before, one.change.after) for one in found) == [
        ("company.changed", {"is_active": True}, {"is_active": False}),
        ("company.created", None, {"name": "New", "tier": "pro"}),
        ("company.secret_rotated", None, None),
        ("key.created", None, whole | {"prefix": second.reveal()[:11]}),
        ("key.revoked", whole | {"prefix": first.reveal()[:11]}, None),
    ]
    assert {one.author for one in found} == {MAX}
    for key in (first, second):
        assert key.reveal() not in repr(found)


async def test_what_happens_in_calls(store: Store, company: Company, issue: Issue) -> None:
    grant, token = await issue(company)
    session = await store.sessions.admit(grant, token)
    until = grant.expires_at
    store.bans.add(session, until=until, by="mod", author=MAX)
    store.bans.add(session, until=None, author=MAX)
    (ban,) = (await store.bans.list(company.id, "team")).items
    await store.bans.lift(company.id, "team", ban.id, MAX)
    room = await store.rooms.get(company.id, "team")
    assert room is not None
    whose = Author("person", session.id, "alice")
    await store.files.add(room.id, File(FILE_ID, "a.txt", "text/plain", 5), whose, limit_bytes=10)
    found = [one.change for one in await told(store, company) if one.change.action != "token.issued"]
    assert [change.action for change in found] == [
        "participant.removed",
        "participant.removed",
        "ban.lifted",
        "file.shared",
    ]
    removed, freed, lifted, shared = found
    assert (removed.target, removed.user_name, removed.session_id) == (session.id, "alice", session.id)
    assert (removed.after or {})["banned_until"] == until.isoformat(timespec="seconds").replace("+00:00", "Z")
    assert (freed.after or {})["banned_until"] is None
    assert (lifted.target, (lifted.before or {})["token_id"]) == (ban.id, grant.id)
    assert (shared.target, shared.user_name, shared.session_id) == (FILE_ID, "alice", session.id)
    kinds = [kind for _, kind, _ in await events(store)]
    assert kinds.count("participant.removed") == 2


async def test_a_deleted_line_is_told_without_its_text(store: Store, company: Company, clock: Any) -> None:
    room = await store.rooms.create(company.id, "team", RoomSettings())
    store.chat.add(room.id, Line(LINE_ID, "p", "alice", "secret text", int(clock.now.timestamp() * 1000)))
    assert await store.chat.delete(company.id, "team", LINE_ID, MAX)
    (entry,) = await told(store, company, action="chat.deleted")
    assert (entry.change.target, entry.change.user_name, entry.author) == (LINE_ID, "alice", MAX)
    assert "secret text" not in repr(entry)


async def test_what_is_queued_is_written_once_however_often(store: Store, company: Company, clock: Any) -> None:
    """A connection may be lost while it says that the database has committed: then the queue is written again."""
    at = clock.now
    change, event = Change("call.ended", company.id, "team", "team"), Event("room.changed", company.id, "team", {})
    store.trail.later(MAX, change, event)
    store.trail.later(MAX, None, event)
    items = list(store.rulings._items)
    clock.advance(60)
    await store.rulings.flush()
    await store.database.transaction(partial(store.rulings._run, items))
    (entry,) = await told(store, company)
    assert (entry.at - at < timedelta(seconds=1), entry.author, entry.change) == (True, MAX, change)
    assert [seq for seq, _, _ in await events(store)] == [1, 2]


async def test_filters_and_pages(store: Store, company: Company, other: Company, clock: Any) -> None:
    began = clock.now
    for number in range(5):
        clock.advance(1)
        author = Author("person", f"s{number}", f"mod{number % 2}")
        change = Change("participant.muted", company.id, "x", f"room{number % 2}", user_name=f"user{number}")
        store.trail.later(author, change)
    store.trail.later(MAX, Change("call.ended", other.id, "x"))
    store.trail.later(MAX, Change("backup.restored", None, ""))

    async def who(**wanted: Any) -> list[str]:
        found = (await store.trail.list(Wanted(company.id, **wanted))).items
        return [one.change.user_name for one in found if one.change.user_name]

    assert await who() == [f"user{number}" for number in (4, 3, 2, 1, 0)]
    assert await who(room_id="room1") == ["user3", "user1"]
    assert await who(user_name="user2") == ["user2"]
    assert await who(by="mod0") == ["user4", "user2", "user0"]
    assert await who(by="s3") == ["user3"]
    assert await who(action="participant") == await who(action="participant.muted") == await who()
    assert await who(action="part") == await who(action="participant.") == []
    span = {"since": began + timedelta(seconds=2), "until": began + timedelta(seconds=4)}
    assert await who(**span) == ["user2", "user1"]
    pages, cursor = list[str](), None
    while True:
        page = await store.trail.list(Wanted(company.id, action="participant"), cursor=cursor, limit=2)
        pages += [one.change.user_name for one in page.items]
        if (cursor := page.next) is None:
            break
    assert pages == await who()
    with pytest.raises(BadCursor):
        await store.trail.list(Wanted(company.id), cursor="x")
    everything = {one.change.action for one in (await store.trail.list(Wanted())).items}
    assert {"backup.restored", "call.ended", "participant.muted"} <= everything


def test_names_are_of_one_form_and_in_the_manual() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    for name, text in {**ACTIONS, **TYPES}.items():
        assert name.replace(".", "", 1).replace("_", "").isalpha(), name
        assert text.endswith(".")
    for name, text in ACTIONS.items():
        assert f"| `{name}` | {text} |\n" in manual


@pytest.mark.parametrize(("kind", "known"), [("Change", ACTIONS), ("_change", ACTIONS), ("Event", TYPES)])
def test_the_lists_have_every_name_that_the_code_uses(kind: str, known: dict[str, str]) -> None:
    """Who adds an action or an event describes it there; then the manual has to say it, too."""
    sources = (Path(__file__).parents[2] / "sfu").rglob("*.py")
    used = {name for path in sources for name in re.findall(rf'\b{kind}\(\s*"([^"]+)"', path.read_text())}
    assert used
    assert used <= known.keys()


def test_the_manual_has_every_event_of_a_change() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    stays = {"room.started", "room.ended", "participant.joined", "participant.left"}
    assert {name for name in TYPES if f"| `{name}` | " in manual} >= TYPES.keys() - stays
