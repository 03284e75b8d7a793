"""REST under /api/v1, on both engines: what each route does. Who may ask is in test_api_auth.py."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jwt
import pytest
from support.variants import variants

from sfu.store import Store
from sfu.store.pages import encode_cursor
from sfu.store.records import SessionQuality
from sfu.tenancy.tokens import Permissions

if TYPE_CHECKING:
    from support.rest import Rest, Tenant

pytest_plugins = ["support.rest"]

WANTED = {"room_id": "team-meeting", "user_name": "alice", "duration": 3600}
NAMES = [
    *(
        "a b",
        "Équipe",
        "会议室",
        "50%",
        "%2F",
        "x?y#z",
        "👍",
        "a\"b'c;--",
        ".",
        "..",
        "...",
        "/lead",
        "tail/",
        "a/b",
        "a//b",
    ),
    *(
        "x/chat",
        "a/bans",
        "a/sessions",
        "end",
        "a/end",
        "a/participants/b",
        "می\u200cخواهم",
        "\\",
        "x" * 255,
        "👩" * 255,
    ),
]


def segment(name: str) -> str:
    """As docs/api.md says: clients resolve segments of dots, also encoded ones."""
    return f"%20{name}" if name in (".", "..") else quote(name, safe="")


# --- tokens ----------------------------------------------------------------------------------------------------------


async def test_a_token_is_answered_as_the_specification_says(rest: Rest, acme: Tenant) -> None:
    reply = await rest("POST", "/tokens", WANTED)
    assert reply.status == 201
    assert list(reply.json) == ["token", "expires_at", "room_id", "user_name", "id", "not_before"]
    assert (reply.json["room_id"], reply.json["user_name"]) == ("team-meeting", "alice")
    assert reply.json["expires_at"] == "2025-10-21T18:21:27Z"
    claims = jwt.decode(reply.json["token"], options={"verify_signature": False})
    assert claims["company_id"] == acme.company.id
    assert claims["permissions"] == Permissions().to_json()
    assert reply.headers["location"] == f"tokens/{claims['jti']}"
    assert reply.headers["cache-control"] == "no-store"


async def test_permissions_and_single_use_reach_token_and_record(rest: Rest) -> None:
    asked = {"permissions": {"publish": False, "moderate": True}, "single_use": True}
    reply = await rest("POST", "/tokens", WANTED | asked)
    claims = jwt.decode(reply.json["token"], options={"verify_signature": False})
    expected = {"publish": False, "subscribe": True, "chat": True, "moderate": True}
    assert claims["permissions"] == expected
    (record,) = (await rest("GET", "/tokens")).json["items"]
    assert reply.headers["location"].endswith(record["id"])
    assert (record["permissions"], record["single_use"], record["used_at"]) == (expected, True, None)
    assert reply.json["token"] not in str(record)


async def test_a_revoked_token_ends_its_call_and_says_so(rest: Rest) -> None:
    issued = await rest("POST", "/tokens", WANTED)
    path = "/" + issued.headers["location"]
    assert (await rest("DELETE", path)).status == 204
    assert rest.calls.ended == [("token", path.rpartition("/")[2])]
    assert (await rest("DELETE", path)).status == 204
    inspected = (await rest("POST", "/tokens/inspect", {"token": issued.json["token"]})).json
    assert (inspected["valid"], inspected["code"]) == (False, "token_revoked")
    assert inspected["claims"]["user_name"] == "alice"
    assert inspected["advice"]


async def test_inspection_explains(
    rest: Rest, store: Store, clock: Any, acme: Tenant, rival: Tenant, issue: Callable[..., Any]
) -> None:
    token = (await rest("POST", "/tokens", WANTED)).json["token"]
    found = (await rest("POST", "/tokens/inspect", {"token": token})).json
    assert (found["valid"], found["code"]) == (True, "valid")
    assert "alice may enter room team-meeting" in found["message"]
    theirs = (await rest("POST", "/tokens/inspect", {"token": token}, key=rival.key)).json
    assert (theirs["valid"], theirs["code"]) == (False, "token_signature")
    assert theirs["message"].startswith("The token was not made by this company")
    grant, evil = await issue(acme.company, user_name="eve")
    store.bans.add(await store.sessions.admit(grant, evil), until=grant.expires_at, by="max")
    banned = (await rest("POST", "/tokens/inspect", {"token": evil})).json
    assert (banned["valid"], banned["code"]) == (False, "removed")
    assert "/bans/" in banned["advice"]
    for later_s, code in ((3600 + 59, "valid"), (1, "token_expired")):  # as for a join
        clock.advance(later_s)
        assert (await rest("POST", "/tokens/inspect", {"token": token})).json["code"] == code
    assert (await rest("POST", "/tokens/inspect", {"token": "nonsense"})).json["code"] == "token_malformed"


async def test_a_path_that_is_no_text_names_nothing(rest: Rest) -> None:
    for path in ("/rooms/%ff", "/rooms/caf%e9/chat", "/users/%ed%a0%80/rooms"):
        assert (await rest("GET", path)).code == "bad_request"


async def test_tokens_are_listed_the_newest_first(rest: Rest, clock: Any) -> None:
    for name in ("alice", "bob", "carol"):
        await rest("POST", "/tokens", WANTED | {"user_name": name})
        clock.advance(1)
    page = (await rest("GET", "/tokens?limit=2")).json
    assert [item["user_name"] for item in page["items"]] == ["carol", "bob"]
    rest_of_it = (await rest("GET", f"/tokens?limit=2&cursor={page['next']}")).json
    assert [item["user_name"] for item in rest_of_it["items"]] == ["alice"]
    assert rest_of_it["next"] is None


# --- rooms -----------------------------------------------------------------------------------------------------------


async def test_a_room_is_made_read_changed_and_deleted(rest: Rest, acme: Tenant) -> None:
    settings = {"name": "Team", "description": "Daily", "max_participants": 5, "access": "token"}
    settings["metadata"] = {"a": [1, None]}
    made = await rest("POST", "/rooms", {"room_id": "team", **settings})
    assert made.status == 201
    assert made.headers["location"] == "rooms/team"
    assert {name: made.json[name] for name in settings} == settings
    assert (made.json["participants"], made.json["participant_count"]) == ([], 0)
    read = await rest("GET", "/rooms/team")
    assert read.json == made.json
    assert read.headers["etag"].startswith(made.headers["etag"][:-1])
    changed = await rest("PUT", "/rooms/team", {"name": "New"})
    assert {name: changed.json[name] for name in settings} == settings | {"name": "New"}
    assert changed.headers["etag"] != made.headers["etag"]
    assert (await rest("DELETE", "/rooms/team")).status == 204
    assert rest.calls.ended == [("room", acme.company.id, "team")]
    for method in ("GET", "PUT", "DELETE"):
        gone = await rest(method, "/rooms/team", {} if method == "PUT" else None)
        assert (gone.status, gone.code) == (404, "room_not_found")
    assert (await rest("POST", "/rooms", {"room_id": "team"})).headers["etag"] != made.headers["etag"]


async def test_a_room_takes_the_usual_settings(rest: Rest) -> None:
    made = (await rest("POST", "/rooms", {"room_id": "team"})).json
    assert (made["max_participants"], made["access"], made["metadata"]) == (100, "open", {})
    again = await rest("POST", "/rooms", {"room_id": "team"})
    assert (again.status, again.code) == (409, "room_exists")


async def test_a_room_tells_who_is_in_it(rest: Rest, store: Store, acme: Tenant, clock: Any) -> None:
    session = await store.sessions.admit_anonymous(acme.company.id, "team", "alice")
    clock.advance(5)
    await store.sessions.admit_anonymous(acme.company.id, "team", "bob")
    room = (await rest("GET", "/rooms/team")).json
    assert [one["user_name"] for one in room["participants"]] == ["alice", "bob"]
    assert room["participants"][0] == {
        "session_id": session.id, "user_name": "alice", "connected_at": "2025-10-21T17:21:27.123Z",
    }  # fmt: skip
    assert room["participant_count"] == 2
    assert (await rest("GET", "/rooms")).json["items"][0]["participant_count"] == 2
    rooms = (await rest("GET", "/users/bob/rooms")).json["items"]
    assert rooms == [{"room_id": "team", "name": "", "participant_count": 2, "since": "2025-10-21T17:21:32.123Z"}]


@pytest.mark.parametrize("room_id", [*NAMES[::4], *variants(*(one for one in NAMES if one not in NAMES[::4]))])
async def test_rooms_of_any_name_can_be_asked_for(rest: Rest, store: Store, acme: Tenant, room_id: str) -> None:
    await store.sessions.admit_anonymous(acme.company.id, room_id, "R/D <b>")
    path = f"/rooms/{segment(room_id)}"
    assert (await rest("GET", path)).json["room_id"] == room_id
    sessions = await rest("GET", f"{path}/sessions")
    assert [one["user_name"] for one in sessions.json["items"]] == ["R/D <b>"]
    user = quote("R/D <b>", safe="")
    assert [one["room_id"] for one in (await rest("GET", f"/users/{user}/rooms")).json["items"]] == [room_id]
    assert (await rest("GET", f"{path}/chat")).json["items"] == []
    assert (await rest("PUT", path, {"locked": True})).json["locked"]
    assert (await rest("DELETE", path)).status == 204
    made = await rest("POST", "/rooms", {"room_id": f" {unicodedata.normalize('NFD', room_id)}  "})
    assert (made.status, made.json["room_id"]) == (201, room_id)
    assert made.headers["location"] == f"rooms/{segment(room_id)}"
    issued = await rest("POST", "/tokens", {"room_id": room_id, "user_name": room_id})
    assert (issued.json["room_id"], issued.json["user_name"]) == (room_id, room_id)
    inspected = await rest("POST", "/tokens/inspect", {"token": issued.json["token"]})
    assert inspected.json["valid"]


async def test_any_spelling_finds_the_room(rest: Rest) -> None:
    await rest("POST", "/rooms", {"room_id": "a  e\u0301"})
    for spelling in ("a é", " a e\u0301 ", "a\t\u202eé"):
        assert (await rest("GET", f"/rooms/{quote(spelling, safe='')}")).json["room_id"] == "a é"
    assert (await rest("POST", "/rooms", {"room_id": "a é"})).code == "room_exists"


async def test_every_room_is_on_one_page(rest: Rest) -> None:
    names = sorted(f"room-{n}" for n in range(7))
    for name in names:
        await rest("POST", "/rooms", {"room_id": name})
    found, path = [], "/rooms?limit=3"
    while path:
        page = await rest("GET", path)
        found += [item["room_id"] for item in page.json["items"]]
        link = page.headers.get("link", "")
        assert bool(link) == (page.json["next"] is not None)
        path = link and "/rooms" + link[link.find("<") + 1 : link.find(">")]
    assert found == names


# --- history ---------------------------------------------------------------------------------------------------------


async def use(store: Store, clock: Any, company_id: str) -> None:
    """Alice and =Bob for a minute, together; then alice alone for two, which go on."""
    admit = partial(store.sessions.admit_anonymous, company_id, "team", peer_address="192.0.2.1")
    people = [await admit("alice"), await admit("=Bob")]
    clock.advance(60)
    for one in people:
        store.sessions.close(one, "left", quality=SessionQuality(score_mean=3.5, score_min=2.0, bytes_up=7_500_000))
    await store.sessions.flush()
    await store.sessions.admit_anonymous(company_id, "team", "alice")
    clock.advance(120)


async def test_sessions_of_a_room(rest: Rest, store: Store, acme: Tenant, clock: Any) -> None:
    await use(store, clock, acme.company.id)
    items = (await rest("GET", "/rooms/team/sessions")).json["items"]
    assert [(one["leave_reason"], one["duration_s"]) for one in items] == [(None, None), ("left", 60.0), ("left", 60.0)]
    assert [(one["score_mean"], one["bytes_up"], one["loss_down"]) for one in items] == [
        (None, None, None), (3.5, 7_500_000, None), (3.5, 7_500_000, None)
    ]  # fmt: skip
    assert {one["peer_address"] for one in items[1:]} == {"192.0.2.1"}
    assert (await rest("GET", "/rooms/nowhere/sessions")).code == "room_not_found"
    await rest("POST", "/rooms", {"room_id": "new"})
    assert (await rest("GET", "/rooms/new/sessions")).json == {"items": [], "next": None}
    await rest("DELETE", "/rooms/team")
    kept = (await rest("GET", "/rooms/team/sessions")).json["items"]
    assert [one["leave_reason"] for one in kept] == ["room_deleted", "left", "left"]


async def test_analytics_by_room_and_day(rest: Rest, store: Store, acme: Tenant, clock: Any) -> None:
    await use(store, clock, acme.company.id)
    reply = (await rest("GET", "/analytics/rooms?from=2025-10-21&to=2025-10-21")).json
    assert (reply["from"], reply["to"], reply["next"]) == ("2025-10-21", "2025-10-21", None)
    assert reply["items"] == [
        {
            "date": "2025-10-21",
            "room_id": "team",
            "unique_users": 2,
            "total_sessions": 3,
            "avg_session_duration_s": 60.0,
            "total_duration_s": 120.0,
            "peak_concurrency": 2,
            "avg_score": 3.5,
            "min_score": 2.0,
        }
    ]
    month = (await rest("GET", "/analytics/rooms")).json
    assert (month["from"], month["to"], len(month["items"])) == ("2025-09-22", "2025-10-21", 1)
    assert (await rest("GET", "/analytics/rooms?to=2025-10-20")).json["items"] == []
    wrong = await rest("GET", "/analytics/rooms?from=2025-10-22&to=2025-10-21")
    assert (wrong.status, wrong.code, wrong.json["field"]) == (422, "bad_field", "from")


async def test_lists_come_as_csv_too(rest: Rest, store: Store, acme: Tenant, clock: Any) -> None:
    await use(store, clock, acme.company.id)
    await rest("POST", "/tokens", WANTED)
    lists = ("/tokens", "/rooms", "/rooms/team/sessions", "/users/alice/rooms", "/analytics/rooms")
    for path in lists:
        items = (await rest("GET", path)).json["items"]
        for reply in (await rest("GET", path + "?format=csv"), await rest("GET", path, headers={"Accept": "text/csv"})):
            assert reply.headers["content-type"] == "text/csv; charset=utf-8"
            rows = list(csv.DictReader(io.StringIO(reply.body.decode())))
            assert len(rows) == len(items) > 0
            assert all(row.keys() == item.keys() for row, item in zip(rows, items, strict=True)) or path == "/tokens"
        assert (await rest("GET", path + "?format=json", headers={"Accept": "text/csv"})).json["items"] == items
    rows = csv.DictReader(io.StringIO((await rest("GET", "/rooms/team/sessions?format=csv")).body.decode()))
    assert "'=Bob" in {row["user_name"] for row in rows}  # a spreadsheet would run =Bob


# --- bad input -------------------------------------------------------------------------------------------------------


WRONG_BODIES: list[tuple[Any, str]] = [
    ({"user_name": "a"}, "room_id"),
    ({"room_id": "a"}, "user_name"),
    (WANTED | {"room_id": ""}, "room_id"),
    (WANTED | {"room_id": " \u200b\u3164"}, "room_id"),
    (WANTED | {"room_id": 7}, "room_id"),
    (WANTED | {"room_id": "x" * 256}, "room_id"),
    (WANTED | {"user_name": "\n\u202e"}, "user_name"),
    (WANTED | {"user_name": "\ud800"}, "user_name"),
    (WANTED | {"duration": 0}, "duration"),
    (WANTED | {"duration": 86401}, "duration"),
    (WANTED | {"duration": "3600"}, "duration"),
    (WANTED | {"duration": True}, "duration"),
    (WANTED | {"duration": 1.5}, "duration"),
    (WANTED | {"permissions": []}, "permissions"),
    (WANTED | {"permissions": {"chat": 1}}, "permissions.chat"),
    (WANTED | {"permissions": {"fly": True}}, "permissions.fly"),
    (WANTED | {"single_use": None}, "single_use"),
    (WANTED | {"roomId": "x"}, "roomId"),
    ([], "body"),
    ("x", "body"),
]


async def test_what_is_wrong_with_a_body_is_named(rest: Rest) -> None:
    for body, field in WRONG_BODIES:
        reply = await rest("POST", "/tokens", body)
        assert (reply.status, reply.code, reply.json["field"]) == (422, "bad_field", field), body
        assert field in reply.json["detail"]


WRONG_ROOMS: list[tuple[dict[str, Any], str]] = [
    ({"max_participants": 0}, "max_participants"),
    ({"access": "closed"}, "access"),
    ({"metadata": {"a": {"b": "\0"}}}, "metadata.a.b"),
    ({"metadata": {"\0": 1}}, "metadata.\0"),
    ({"metadata": 1}, "metadata"),
    ({"description": "x" * 4097}, "description"),
    ({"name": "two\nlines"}, "name"),
]


async def test_what_is_wrong_with_a_room_is_named(rest: Rest) -> None:
    await rest("POST", "/rooms", {"room_id": "team"})
    for changes, field in WRONG_ROOMS:
        put, post = await rest("PUT", "/rooms/team", changes), await rest("POST", "/rooms", {"room_id": "x", **changes})
        for reply in (put, post):
            assert (reply.status, reply.code, reply.json["field"]) == (422, "bad_field", field), changes


UNREADABLE: list[tuple[bytes, int, str]] = [
    (b"", 400, "bad_json"),
    (b"{", 400, "bad_json"),
    (b"\xff", 400, "bad_json"),
    (b"[" * 60_000, 400, "bad_json"),
    (b"NaN", 400, "bad_json"),
    (b'{"metadata": {"a": 1e999}, "room_id": "x"}', 422, "bad_field"),
    (b'{"metadata": ' + b'{"a":' * 40 + b"1" + b"}" * 40 + b', "room_id": "x"}', 422, "bad_field"),
    (b" " * 70_000, 413, "body_too_large"),
]


async def test_a_body_that_cannot_be_read(rest: Rest) -> None:
    for raw, status, code in UNREADABLE:
        reply = await rest("POST", "/rooms", raw=raw, headers={"Content-Type": "application/json"})
        assert (reply.status, reply.code) == (status, code), raw[:60]


async def test_a_body_must_say_that_it_is_json(rest: Rest) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        reply = await rest("POST", "/rooms", raw=b"{}", headers={"Content-Type": kind})
        assert (reply.status, reply.code) == (415, "unsupported_media_type")


WRONG_QUERIES: list[tuple[str, str]] = [
    ("limit=0", "limit"),
    ("limit=1001", "limit"),
    ("limit=x", "limit"),
    ("limit=1&limit=2", "limit"),
    ("format=xml", "format"),
    ("page=2", "page"),
    ("limit=%00", "limit"),
]


async def test_what_is_wrong_with_a_query_is_named(rest: Rest) -> None:
    for query, field in WRONG_QUERIES:
        reply = await rest("GET", f"/rooms?{query}")
        assert (reply.status, reply.code, reply.json["field"]) == (422, "bad_field", field), query


async def test_a_cursor_nobody_gave_out_is_refused(rest: Rest) -> None:
    await rest("POST", "/rooms", {"room_id": "x"})
    for cursor in ("x", "W10", "é", "WyJhIiwiYiIsImMiXQ", "%00", "=", "MQ", ""):
        for path in ("/rooms", "/tokens", "/rooms/x/sessions", "/analytics/rooms"):
            reply = await rest("GET", f"{path}?cursor={quote(cursor, safe='%')}")
            assert reply.status == (200 if cursor == "" else 404), cursor
            assert cursor == "" or reply.code == "bad_cursor"


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2025-01-01T00:00:00"])
async def test_a_cursor_of_no_time_there_is(rest: Rest, time: str) -> None:
    await rest("POST", "/rooms", {"room_id": "x"})
    cursor = encode_cursor(time, "00000000-0000-4000-8000-000000000000")
    for path in ("/tokens", "/rooms/x/sessions"):
        assert (await rest("GET", f"{path}?cursor={cursor}")).code == "bad_cursor"


async def test_what_is_not_there(rest: Rest) -> None:
    for path in ("/nothing", "/rooms//", "/tokens/x/y"):
        assert (await rest("GET", path)).status == 404


async def test_a_link_cannot_carry_what_a_name_holds(rest: Rest, store: Store, acme: Tenant) -> None:
    for _ in range(2):
        await store.sessions.admit_anonymous(acme.company.id, "a>b", "alice")
    reply = await rest("GET", "/rooms/a%3Eb/sessions?limit=1")
    assert reply.headers["link"].startswith("<?limit=1&cursor=")
