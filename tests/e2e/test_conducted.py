"""A company conducts a call over REST, and the pages in it follow at once."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from crowd import Crowd
from people import Person
from playwright.sync_api import expect
from support.process import Server
from support.waiting import eventually


class Api:
    """The REST API of a room, with the company's key."""

    def __init__(self, server: Server, crowd: Crowd, room: str) -> None:
        self._base, self._key = f"{server.url}/api/v1/rooms/{room}", crowd.key

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self._base + path, data, headers, method=method)) as reply:
            return json.loads(reply.read() or b"null")

    def session(self, one: Person) -> str:
        items = self("GET", "/participants")["items"]
        return str(next(item["session_id"] for item in items if item["peer"] == one.peer))


@pytest.fixture
def api(server: Server, crowd: Crowd, room: str) -> Api:
    return Api(server, crowd, room)


@pytest.fixture
def pair(server: Server, crowd: Crowd, room: str, person: Callable[..., Person]) -> tuple[Person, Person]:
    """Two people with tokens, who see each other."""
    made = []
    for name in ("ann", "ben"):
        one = person(server, name)
        one.page.goto(f"{server.url}/?token={crowd.token(room, name)}&preview=off")
        eventually(lambda one=one: one.peer, f"{name} is in {room}")
        made.append(one)
    ann, ben = made
    ann.sees(ben)
    return ann, ben


def test_pages_follow_what_the_company_does(api: Api, pair: tuple[Person, Person], room: str) -> None:
    ann, ben = pair
    where = f"/participants/{api.session(ben)}"

    api("PATCH", where, {"user_name": "Dr. Ben", "permissions": {"publish": False, "chat": False, "moderate": True}})
    expect(ann.page.locator(".viewers")).to_contain_text("1 viewer")
    eventually(lambda: not ann.page.evaluate("[...room.participants.values()][0].tracks.size"), "ben's tracks ended")
    expect(ben.page.locator("#mic-button")).to_have_attribute("aria-disabled", "true")
    assert ben.page.evaluate("room.permissions.moderate && room.name") == "Dr. Ben"

    api("PATCH", where, {"permissions": {"publish": True}})
    expect(ben.page.locator("#camera-button")).not_to_have_attribute("aria-disabled", "true")
    ben.page.click("#camera-button")
    ann.sees(ben)

    api("POST", "/spotlight", {"session_id": api.session(ben)})
    expect(ann.page.locator(ann.tile(ben))).to_contain_class("is-main")
    assert ben.page.locator(".tile.is-main").count() == 0, "nobody needs to see themself large"
    ben.page.click("#people-button")
    ben.page.locator(".person", has_text="ann").get_by_role("button", name="More actions for ann").click()
    ben.page.get_by_role("menuitem", name="Show to everyone").click()
    expect(ben.page.locator(ben.tile(ann))).to_contain_class("is-main")

    ann.page.click("#chat-button")
    api("POST", "/chat", {"user_name": "Dr. Ben", "text": "<b>Welcome</b>"})
    expect(ann.page.locator(".message")).to_contain_text("<b>Welcome</b>")
    expect(ann.page.locator(".message__who")).to_contain_text("Organizer")

    for one in pair:
        api("POST", f"/participants/{api.session(one)}/move", {"room_id": f"{room}-breakout"})
        eventually(lambda one=one: one.page.evaluate("room.room") == f"{room}-breakout" and one.peer, "they are there")
    ann.sees(ben)
    assert ann.page.locator("#end-view").is_hidden()
    expect(ann.page.locator(".message")).to_have_count(0)
