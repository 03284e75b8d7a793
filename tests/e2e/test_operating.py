"""What an operator sees of a real call, and does to it, from the command line of the server's machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from people import Person
from playwright.sync_api import Browser, expect
from support.process import Server, sfu
from support.waiting import eventually

People = Callable[..., Person]


@pytest.mark.soak
def test_an_operator_sees_the_call_removes_somebody_and_reads_the_story(
    start_server: Callable[..., Server], person: People, policed: Browser
) -> None:
    server = start_server("--self-signed")
    alice, eve = person(server, "alice").join("team"), person(server, "eve", on=policed).join("team")

    def known(one: dict[str, Any]) -> bool:
        return one["score"] is not None and len(one["publishes"]) == 2 and one["round_trip_ms"] is not None

    def people() -> dict[str, dict[str, Any]]:
        """By name, once the quality of each is known."""
        shown = sfu("participants", "team", "--json", env=server.env)
        found = json.loads(shown.stdout)["people"]
        return {one["name"]: one for one in found} if len(found) == 2 and all(map(known, found)) else {}

    found = eventually(people, "everybody has a score and sends", 120)
    assert {name: one["path"] for name, one in found.items()} == {"alice": "udp", "eve": "tcp"}
    for one in found.values():
        assert {track["source"] for track in one["publishes"]} == {"camera", "microphone"}
    done = sfu("kick", "team", "eve", env=server.env)
    assert "eve was removed from team." in done.stdout
    expect(eve.page.get_by_text("You were removed")).to_be_visible()
    expect(alice.page.locator(alice.tile(eve))).to_have_count(0)
    story = sfu("log", "eve", env=server.env).stdout
    for words in ("removed: ", "path: tcp from 127.0.0.1", "quality: ", " MB up, "):
        assert words in story
