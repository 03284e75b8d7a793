"""A link with a token, in a real browser: straight in, nothing left in the address bar, and words when it is over."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from people import Person
from playwright.sync_api import expect
from process import Server, eventually

pytestmark = pytest.mark.xdist_group("browser")

People = Callable[..., Person]


def api(server: Server, key: str, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """The JSON of an answer, and its headers."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"{server.url}/api/v1{path}", data, headers, method=method)
    with urllib.request.urlopen(asked, timeout=5) as answer:
        text = answer.read()
        return json.loads(text) if text else None, answer.headers


def test_a_link_with_a_token_leads_into_the_call(server: Server, person: People) -> None:
    key = server.company("Token House")
    wanted = {"room_id": "team", "user_name": "alice", "duration": 600}
    issued, headers = api(server, key, "POST", "/tokens", wanted)
    alice, bob = person(server, "alice"), person(server, "bob")
    alice.page.goto(f"{server.url}/?token={issued['token']}")
    eventually(lambda: alice.peer, "alice is in the room")
    assert alice.page.url == f"{server.url}/?room=team"
    expect(alice.page.locator("#room-badge")).to_contain_text("team")

    other, _ = api(server, key, "POST", "/tokens", wanted | {"user_name": "bob", "permissions": {"publish": False}})
    bob.page.goto(f"{server.url}/?token={other['token']}")
    eventually(lambda: bob.peer, "bob is in the room")
    bob.sees(alice)
    assert alice.inbound("video") == []
    alice.page.reload()
    bob.sees(alice)

    api(server, key, "DELETE", headers["Location"].removeprefix("/api/v1"))
    expect(alice.page.get_by_text("Your link was withdrawn")).to_be_visible()
    assert issued["token"] not in server.output
