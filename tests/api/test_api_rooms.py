"""Rooms over REST: merge patches, create or get, and the bound on metadata."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.variants import both_engines

from sfu.api.schemas.rooms import METADATA_BYTES

if TYPE_CHECKING:
    from support.rest import Rest

pytest_plugins = ["support.rest"]


def metadata(size: int) -> dict[str, str]:
    """Metadata of so many bytes of compact JSON, each character of two bytes."""
    return {"a": "é" * ((size - len('{"a":""}')) // 2)}


async def test_a_patch_merges_metadata_and_keeps_the_rest(rest: Rest) -> None:
    first = {"a": 1, "b": {"c": [1, 2], "d": 2}, "e": None}
    made = await rest("POST", "/rooms", {"room_id": "team", "name": "T", "metadata": first})
    patch = {"locked": True, "metadata": {"a": None, "b": {"c": [3]}, "f": {"g": None, "h": 1}}}
    merge = {"Content-Type": "application/merge-patch+json", "If-Match": made.headers["etag"]}
    reply = await rest("PATCH", "/rooms/team", raw=json.dumps(patch).encode(), headers=merge)
    assert (reply.status, reply.json["name"], reply.json["locked"]) == (200, "T", True)
    assert reply.json["metadata"] == {"b": {"c": [3], "d": 2}, "e": None, "f": {"h": 1}}
    assert [room.locked for room in rest.calls.changed] == [True]
    stale = await rest("PATCH", "/rooms/team", {"name": "U"}, headers={"If-Match": made.headers["etag"]})
    assert (stale.status, stale.code) == (412, "room_changed")
    replaced = await rest("PUT", "/rooms/team", {"metadata": {"z": 1}})
    assert replaced.json["metadata"] == {"z": 1}


async def test_a_patch_that_is_refused(rest: Rest) -> None:
    await rest("POST", "/rooms", {"room_id": "team"})
    for patch in ({"name": None}, {"metadata": None}, {"nothing": 1}, []):
        assert (await rest("PATCH", "/rooms/team", patch)).code == "bad_field"
    assert (await rest("PATCH", "/rooms/absent", {"name": "A"})).code == "room_not_found"
    merge = {"Content-Type": "application/merge-patch+json"}
    assert (await rest("PUT", "/rooms/team", raw=b"{}", headers=merge)).code == "unsupported_media_type"


@both_engines
async def test_patches_at_once_all_count(rest: Rest) -> None:
    await rest("POST", "/rooms", {"room_id": "team"})

    async def patch(name: str) -> None:
        while True:
            reply = await rest("PATCH", "/rooms/team", {"metadata": {name: 1}})
            if reply.status != 503:
                break
            await trio.sleep(float(reply.headers["retry-after"]))
        assert reply.status == 200

    async with trio.open_nursery() as nursery:
        for name in "abcdefgh":
            nursery.start_soon(patch, name)
    assert (await rest("GET", "/rooms/team")).json["metadata"] == dict.fromkeys("abcdefgh", 1)


async def test_metadata_is_bounded(rest: Rest) -> None:
    most, more = metadata(METADATA_BYTES), metadata(METADATA_BYTES + 2)
    assert (await rest("POST", "/rooms", {"room_id": "team", "metadata": most})).status == 201
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/rooms", {"room_id": "other", "metadata": more}),
        ("PUT", "/rooms/team", {"metadata": more}),
        ("PATCH", "/rooms/team", {"metadata": {"b": 1}}),
    ]
    for method, path, body in requests:
        reply = await rest(method, path, body)
        assert (reply.status, reply.code, reply.json["field"]) == (422, "bad_field", "metadata")
    assert (await rest("GET", "/rooms/team")).json["metadata"] == most
    assert (await rest("PATCH", "/rooms/team", {"name": "T"})).status == 200


async def test_a_room_is_made_or_returned(rest: Rest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sfu.audit")
    made = await rest("POST", "/rooms?if_exists=return", {"room_id": "a/b", "name": "First"})
    again = await rest("POST", "/rooms?if_exists=return", {"room_id": "a/b", "name": "Second"})
    assert (made.status, again.status) == (201, 200)
    assert again.json == made.json
    for name in ("location", "etag"):
        assert again.headers[name] == made.headers[name]
    assert len(caplog.messages) == 1, "nothing was changed by the second"
    for query in ("", "?if_exists=fail"):
        assert (await rest("POST", f"/rooms{query}", {"room_id": "a/b"})).code == "room_exists"
    assert (await rest("POST", "/rooms?if_exists=replace", {"room_id": "a/b"})).code == "bad_field"
