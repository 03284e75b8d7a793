"""Sessions of a company over REST, and analytics by the days of a time zone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from sfu.store import Store

if TYPE_CHECKING:
    from support.rest import Rest, Tenant

pytest_plugins = ["support.rest"]


async def test_sessions_of_all_rooms_are_listed_and_shown(
    rest: Rest, store: Store, acme: Tenant, rival: Tenant, issue: Any
) -> None:
    grant, token = await issue(acme.company, user_id="u-7")
    session = await store.sessions.admit(grant, token)
    await store.sessions.admit_anonymous(acme.company.id, "lab", "bob")
    await store.sessions.admit_anonymous(rival.company.id, "lab", "eve")
    listed = (await rest("GET", "/sessions")).json["items"]
    assert {item["user_name"] for item in listed} == {"alice", "bob"}
    (found,) = (await rest("GET", "/sessions?user=u-7&state=open&room=team")).json["items"]
    assert (found["id"], found["user_id"]) == (session.id, "u-7")
    assert (await rest("GET", f"/sessions/{session.id}")).json == found
    assert (await rest("GET", f"/sessions/{session.id}", key=rival.key)).code == "session_not_found"
    assert (await rest("GET", "/sessions/x")).status == 404
    csv = (await rest("GET", "/sessions?format=csv&room=lab")).body.decode()
    assert "user_id" in csv.splitlines()[0]
    assert len(csv.splitlines()) == 2


async def test_a_filter_that_finds_nothing_is_no_missing_room(rest: Rest, store: Store, acme: Tenant) -> None:
    await store.sessions.admit_anonymous(acme.company.id, "team", "alice")
    await store.rooms.delete(acme.company.id, "team")
    reply = await rest("GET", "/rooms/team/sessions?user=bob")
    assert (reply.status, reply.json["items"]) == (200, [])
    assert (await rest("GET", "/rooms/team/sessions?user=alice")).json["items"] != []
    assert (await rest("GET", "/rooms/absent/sessions?user=alice")).code == "room_not_found"


async def test_days_are_those_of_the_zone(rest: Rest, store: Store, acme: Tenant, clock: Any) -> None:
    clock.now = datetime(2025, 7, 1, 22, 30, tzinfo=UTC)
    await store.sessions.admit_anonymous(acme.company.id, "team", "alice")
    assert (await rest("GET", "/analytics/rooms")).json["items"][0]["date"] == "2025-07-01"
    reply = await rest("GET", "/analytics/rooms?tz=Europe/Berlin")
    assert (reply.json["to"], reply.json["items"][0]["date"]) == ("2025-07-02", "2025-07-02")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "America", "/etc/localtime", "x" * 65, "%00"])
async def test_what_is_no_zone_is_refused(rest: Rest, zone: str) -> None:
    reply = await rest("GET", f"/analytics/rooms?tz={zone}")
    assert (reply.status, reply.json["field"]) == (422, "tz")
