"""HTTP as clients know it, on all routes: HEAD, OPTIONS, slashes, entity tags, compression, CORS, the access log."""

from __future__ import annotations

import gzip
import json
import logging
from typing import TYPE_CHECKING, Any

import brotli
import pytest
from support.rest import serving

from sfu.store import Store
from sfu.store.records import RoomSettings

if TYPE_CHECKING:
    from support.rest import Rest, Tenant

pytest_plugins = ["support.rest"]

SITE = "https://app.example.org"


async def test_a_wrong_method_is_told_the_right_ones(rest: Rest) -> None:
    for method, path, allowed in (
        ("DELETE", "/rooms", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("PUT", "/rooms/", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("GET", "/tokens/inspect", {"OPTIONS", "POST"}),
    ):
        reply = await rest(method, path)
        assert (reply.status, reply.code) == (405, "method_not_allowed")
        assert set(reply.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("path", ["/tokens?room=%FF", "/sessions?user=%C0%AF", "/audit?room=%FF", "/events?%FF=1"])
async def test_a_query_that_is_no_text_is_refused(rest: Rest, path: str) -> None:
    reply = await rest("GET", path)
    assert (reply.status, reply.code) == (400, "bad_request")


async def test_a_member_that_is_there_twice_is_refused(rest: Rest) -> None:
    """A filter in front may have read the other one."""
    twice = b'{"room_id": "mine", "user_name": "eve", "permissions": {"chat": true, "chat": false}}'
    for raw in (b'{"room_id": "mine", "room_id": "yours", "user_name": "eve"}', twice):
        reply = await rest("POST", "/tokens", raw=raw, headers={"Content-Type": "application/json"})
        assert (reply.status, reply.code) == (422, "bad_field")
        assert reply.json["field"] in ("room_id", "chat")


async def test_a_text_of_another_form_is_told_what_is_wanted(rest: Rest) -> None:
    reply = await rest("GET", "/usage?month=2026-13")
    assert reply.status == 422
    assert reply.json["detail"].startswith("month: is not accepted. A month")
    assert not reply.json["detail"].endswith("..")


async def test_head_and_options(rest: Rest) -> None:
    whole, head = await rest("GET", "/rooms"), await rest("HEAD", "/rooms")
    assert (head.status, head.body) == (200, b"")
    for name in ("etag", "content-type", "content-length"):
        assert head.headers[name] == whole.headers[name]
    options = await rest("OPTIONS", "/rooms", key="")
    assert options.status == 200
    assert set(options.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}


async def test_a_slash_at_the_end_changes_nothing(rest: Rest) -> None:
    made = await rest("POST", "/rooms/", {"room_id": "a b"})
    assert (made.status, made.headers["location"]) == (201, "../rooms/a%20b")
    assert (await rest("GET", "/rooms/a%20b/")).json == (await rest("GET", "/rooms/a%20b")).json
    assert (await rest("PUT", "/rooms/a%20b/", {"name": "New"})).json["name"] == "New"


async def test_a_request_id_of_the_client_is_kept_if_it_is_sane(rest: Rest) -> None:
    assert (await rest("GET", "/rooms", headers={"X-Request-Id": "job-7:a/b"})).headers["x-request-id"] == "job-7:a/b"
    for wrong in ("a b", "x" * 129, "key='pk_'", ""):
        assert (await rest("GET", "/rooms", headers={"X-Request-Id": wrong})).headers["x-request-id"] != wrong


async def test_what_is_known_is_not_sent_again(rest: Rest, store: Store, acme: Tenant) -> None:
    await rest("POST", "/rooms", {"room_id": "team"})
    for path in ("/rooms", "/rooms/team", "/rooms?format=csv", "/openapi.json"):
        first = await rest("GET", path)
        again = await rest("GET", path, headers={"If-None-Match": f'"x", W/{first.headers["etag"]}'})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert (await rest("GET", path, headers={"If-None-Match": '"x"'})).status == 200
    before = (await rest("GET", "/rooms/team")).headers["etag"]
    await store.sessions.admit_anonymous(acme.company.id, "team", "alice")
    reply = await rest("GET", "/rooms/team", headers={"If-None-Match": before})
    assert reply.json["participant_count"] == 1
    changed = await rest("PUT", "/rooms/team", {"name": "New"}, headers={"If-Match": before})
    assert changed.status == 200  # who is in it is no edit
    assert (await rest("PUT", "/rooms/team", {"name": "Old"}, headers={"If-Match": before})).code == "room_changed"


async def test_long_answers_are_compressed_as_the_client_likes(rest: Rest, store: Store, acme: Tenant) -> None:
    for n in range(150):
        await store.rooms.create(acme.company.id, f"room-{n}", RoomSettings(description="x" * 300))
    for path in ("/rooms?limit=10", "/rooms?limit=150"):  # the second one in a thread
        plain = await rest("GET", path)
        assert "content-encoding" not in plain.headers
        for accepted, coding, unpack in (
            ("gzip, br", "br", brotli.decompress),
            ("gzip, br;q=0.5", "gzip", gzip.decompress),
        ):
            packed = await rest("GET", path, headers={"Accept-Encoding": accepted})
            assert packed.headers["content-encoding"] == coding
            assert len(packed.body) < len(plain.body) / 2
            assert unpack(packed.body) == plain.body
            assert packed.headers["etag"] != plain.headers["etag"]
            assert "Accept-Encoding" in packed.headers["vary"]
            sent = {"Accept-Encoding": accepted, "If-None-Match": packed.headers["etag"]}
            assert (await rest("GET", path, headers=sent)).status == 304
    made = await rest("POST", "/rooms", {"room_id": "y", "description": "x" * 4000}, headers={"Accept-Encoding": "br"})
    assert "content-encoding" not in made.headers  # its length would tell of secrets


async def test_pages_of_allowed_sites_may_ask(store: Store, clock: Any, acme: Tenant) -> None:
    async with serving(store, clock, allowed_origins=(SITE,)) as rest:
        rest.key = acme.key
        wanted = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
        asked = await rest("OPTIONS", "/rooms", key="", headers=wanted)
        assert asked.headers["access-control-allow-origin"] == SITE
        assert "POST" in asked.headers["access-control-allow-methods"]
        assert "Authorization" in asked.headers["access-control-allow-headers"]
        for path, key, status in (("/rooms", None, 200), ("/rooms/absent", None, 404), ("/rooms", "pk_x", 401)):
            reply = await rest("GET", path, key=key, headers={"Origin": SITE})
            assert reply.status == status
            assert reply.headers["access-control-allow-origin"] == SITE
            assert "ETag" in reply.headers["access-control-expose-headers"]
        for origin in ("https://evil.example.org", "null", "http://app.example.org"):
            reply = await rest("GET", "/rooms", headers={"Origin": origin})
            assert "access-control-allow-origin" not in reply.headers
            assert "Origin" in reply.headers["vary"]


async def test_the_access_log_has_a_line_for_each_request(
    store: Store, clock: Any, acme: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sfu.access")

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "sfu.access"]

    async with serving(store, clock) as rest:
        await rest("GET", "/rooms", key=acme.key)
        assert not lines()
    async with serving(store, clock, access_log=True) as rest:
        reply = await rest("GET", "/rooms?limit=3", key=acme.key, headers={"X-Request-Id": "mine"})
        await rest("GET", "/nothing")
    found, missed = lines()
    assert "request method='GET' path='/api/v1/rooms' status=200 ms=" in found
    assert f" bytes={len(reply.body)} key={acme.key[:11]} " in found
    assert found.endswith("request_id=mine")
    assert "status=404" in missed
    assert acme.key not in json.dumps(lines())
