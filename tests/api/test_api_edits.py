"""Several requests that change one room: with If-Match one of them counts, without it all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.variants import both_engines, variants

if TYPE_CHECKING:
    from support.rest import Rest
    from support.rest_client import Reply

pytest_plugins = ["support.rest"]


async def patient(rest: Rest, method: str, body: Any, headers: dict[str, str]) -> Reply:
    """The answer to a request about the room. As clients do, asks again where the machine is too busy for the database
    to answer in time."""
    while True:
        reply = await rest(method, "/rooms/team", body, headers=headers)
        if reply.status != 503:
            return reply
        await trio.sleep(float(reply.headers["retry-after"]))


async def test_two_editors_do_not_overwrite_each_other(rest: Rest) -> None:
    tag = (await rest("POST", "/rooms", {"room_id": "team"})).headers["etag"]
    first = await rest("PUT", "/rooms/team", {"name": "A"}, headers={"If-Match": tag})
    second = await rest("PUT", "/rooms/team", {"name": "B"}, headers={"If-Match": tag})
    assert (first.status, second.status, second.code) == (200, 412, "room_changed")
    for wrong in (tag, f"W/{tag}", '"x"', "x"):
        assert (await rest("DELETE", "/rooms/team", headers={"If-Match": wrong})).status == 412
    for right in (f'"x", {first.headers["etag"]}', "*"):
        assert (await rest("PUT", "/rooms/team", {}, headers={"If-Match": right})).status in (200, 412)
    weak = "W/" + (await rest("GET", "/rooms/team")).headers["etag"]  # as a proxy that compresses makes it
    assert (await rest("DELETE", "/rooms/team", headers={"If-Match": weak})).status == 204


@both_engines
@pytest.mark.parametrize("headers", [{}, *variants({"If-Match": "*"})])
async def test_edits_without_a_version_all_count(rest: Rest, headers: dict[str, str]) -> None:
    await rest("POST", "/rooms", {"room_id": "team"})
    changes = [{"name": "N"}, {"description": "D"}, {"max_participants": 7}] * 7
    tags: set[str] = set()

    async def edit(change: dict[str, Any]) -> None:
        reply = await patient(rest, "PUT", change, headers)
        assert reply.status == 200, reply.body
        tags.add(reply.headers["etag"])

    async with trio.open_nursery() as nursery:
        for change in changes:
            nursery.start_soon(edit, change)
    assert len(tags) == len(changes), "each edit has its own version"
    room = (await rest("GET", "/rooms/team")).json
    assert (room["name"], room["description"], room["max_participants"]) == ("N", "D", 7)


@both_engines
async def test_of_edits_of_one_version_one_counts(rest: Rest) -> None:
    tag = (await rest("POST", "/rooms", {"room_id": "team"})).headers["etag"]
    statuses: list[int] = []

    async def edit(name: str) -> None:
        statuses.append((await patient(rest, "PUT", {"name": name}, {"If-Match": tag})).status)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(edit, str(number))
    assert sorted(statuses) == [200] + 19 * [412]


@both_engines
@pytest.mark.parametrize("headers", [{}, *variants({"If-Match": "*"})])
async def test_a_room_is_deleted_while_others_edit_it(rest: Rest, headers: dict[str, str]) -> None:
    await rest("POST", "/rooms", {"room_id": "team"})
    statuses: dict[str, set[int]] = {"PUT": set(), "DELETE": set()}

    async def ask(method: str, body: Any) -> None:
        statuses[method].add((await patient(rest, method, body, headers)).status)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, "PUT", {"name": str(number)})
        nursery.start_soon(ask, "DELETE", None)
    assert statuses["DELETE"] == {204}
    assert statuses["PUT"] <= {200, 404}
