"""A server that drains: what people in a call see, what others see, and how everybody comes back."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from people import Person, in_call
from playwright.sync_api import expect
from support.process import Server
from support.waiting import eventually


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server(drain_s="600", answer_s="60")  # browsers are slow on a busy machine
    try:
        yield running.start()
    finally:
        running.close()


def notice(one: Person) -> str:
    """What the page says of the drain; empty if nothing."""
    toast = one.page.locator('.toast[data-id="draining"] p')
    return toast.inner_text() if toast.count() else ""


@pytest.mark.soak
def test_a_drain_is_told_and_a_restart_brings_everybody_back(
    server: Server, room: str, person: Callable[..., Person]
) -> None:
    alice, bob = (person(server, name) for name in ("alice", "bob"))
    carol = person(server, "carol", quiet=True)
    alice.join(room)
    bob.join(room)
    in_call(alice, bob)
    server.send(signal.SIGTERM)
    for one in (alice, bob):
        eventually(partial(notice, one), f"{one.name} is told")
        assert re.fullmatch(r"The server restarts at \d+:\d\d.* You’ll be reconnected automatically\.", notice(one))
    in_call(alice, bob)

    carol.page.goto(f"{server.url}/?room=another&username=carol")
    expect(carol.page.locator("#end-title")).to_have_text("The server is about to restart")
    expect(carol.page.locator("#end-countdown")).to_have_text(re.compile(r"Trying again in \d+ s"))
    carol.page.goto(f"{server.url}/?room=another")
    expect(carol.page.locator("#inside-count")).to_have_text("The server is about to restart")
    expect(carol.page.locator("#join-button")).to_have_text("Wait to join")
    carol.join(room)
    eventually(lambda: notice(carol), "whoever comes is told as well")
    carol.page.click("#leave-button")

    before = [one.peer for one in (alice, bob)]
    assert server.stop(signal.SIGTERM) == 0, "the second signal ends the drain"
    server.start()
    for one, old in zip((alice, bob), before, strict=True):
        eventually(partial(one.has_come_back, old), f"{one.name} is in the room again")
    in_call(alice, bob)
    for one in (alice, bob):
        eventually(lambda one=one: not notice(one), "the notice is gone")
