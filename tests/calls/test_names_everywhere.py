"""Rooms of any name: made by links, addressed by REST."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from urllib.parse import quote, urlencode

from hypothesis import given, settings
from hypothesis import strategies as st
from support.control import running
from support.control import settings as served
from support.rest_client import request

from sfu.tenancy.names import canonical

SPELLINGS = st.text(
    st.characters() | st.sampled_from("./%?#& \u200c\u200d\u0301\u202e\x00\ufeff"), min_size=1, max_size=12
).map(lambda text: f"{text}x") | st.sampled_from(
    [".", "..", "/lead", "x/chat", "a/bans", "a/end", "👩\u200d👧", "👩" * 255]
)


@settings(max_examples=3, deadline=None)
@given(names=st.lists(SPELLINGS, min_size=10, max_size=10, unique_by=canonical))
async def test_a_room_entered_by_link_can_be_read_locked_and_deleted(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), served(limits=False)) as server:
            _, key = await server.store.companies.rotate_key(server.default.id)
            headers = {"Authorization": f"Bearer {key.reveal()}", "Content-Type": "application/json"}
            headers |= {"Host": "x", "Connection": "close"}
            for spelling in names:
                name = canonical(spelling)
                target = "/ws?" + urlencode({"room": spelling, "username": spelling})
                async with server.connect(target) as client:
                    welcome = await client.expect("welcome")
                    assert (welcome["room"], welcome["name"], welcome["state"]["public"]) == (name, name, True)
                    room = "/api/v1/rooms/" + (f"%20{name}" if name in (".", "..") else quote(name, safe=""))
                    found = await request(server.port, "GET", room, headers)
                    assert [one["user_name"] for one in found.json["participants"]] == [name]
                    body = json.dumps({"locked": True}).encode()
                    more = {"Content-Length": str(len(body))}
                    assert (await request(server.port, "PUT", room, headers | more, body)).json["locked"]
                    assert (await server.refused(target))["code"] == "room_locked"
                    assert (await request(server.port, "DELETE", room, headers)).status == 204
                    assert await client.closed() == 4410
                assert (await request(server.port, "GET", room, headers)).status == 404
