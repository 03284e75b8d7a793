"""A restart of the server in the middle of a call: everybody is back, as they were, and is told the truth meanwhile."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from people import Person, in_call
from playwright.sync_api import expect
from support.process import Server
from support.waiting import eventually

People = Callable[..., Person]

NAMES = ("alice", "bob", "carol")
ALONE = "You’re the only one here"
AWAITED = "Waiting for the others"
_INVITED_JS = """() => {
    window.invited = []; // what the page has said to somebody who is alone
    const box = document.querySelector('#invitation');
    const look = () => {
        const said = box.checkVisibility({ visibilityProperty: true }) && box.querySelector('h2').innerText;
        if (said && window.invited.at(-1) !== said) window.invited.push(said);
        requestAnimationFrame(look);
    };
    look();
}"""


@pytest.fixture
def server() -> Iterator[Server]:
    """With the settings that people have, but for the wait for calls to end by themselves."""
    running = Server()
    try:
        yield running.start()
    finally:
        running.close()


@pytest.mark.soak
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
def test_everybody_is_back_after_a_restart_as_they_were(server: Server, person: People, signum: int) -> None:
    people = [person(server, name).join("team") for name in NAMES]
    in_call(*people)
    alice, bob, carol = people
    bob.page.click("#mic-button")
    carol.page.click("#camera-button")
    expect(alice.page.locator(alice.tile(bob))).to_have_attribute("aria-label", "bob, muted")
    before = [one.peer for one in people]
    for one in people:
        one.page.evaluate(_INVITED_JS)

    server.stop(signum)
    began_s = time.monotonic()
    server.start()
    up_s = time.monotonic()
    for one, old in zip(people, before, strict=True):
        eventually(partial(one.has_come_back, old), f"{one.name} is in the room again")
    joined_s = time.monotonic()
    for one, other in ((alice, bob), (carol, bob), (bob, alice), (carol, alice)):
        one.sees(other)
    print(f"up after {up_s - began_s:.1f} s, all joined after {joined_s - began_s:.1f} s, seen by all after "
          f"{time.monotonic() - began_s:.1f} s")  # fmt: skip
    for one in people:
        one.hears()
        assert sorted(one.others()) == [name for name in NAMES if name != one.name]
        expect(one.page.locator("#banner")).to_be_hidden()
        assert ALONE not in one.page.evaluate("window.invited"), f"{one.name} is told of the others"
    for one in (alice, carol):
        expect(one.page.locator(one.tile(bob))).to_have_attribute("aria-label", "bob, muted")
    for one in (alice, bob):
        expect(one.page.locator(f"{one.tile(carol)}.has-picture")).to_have_count(0)
    expect(bob.page.locator("#mic-button")).to_have_attribute("aria-label", "Unmute")


def test_the_first_page_back_waits_for_the_others(server: Server, person: People) -> None:
    alice, bob = (person(server, name, quiet=True).join("team") for name in NAMES[:2])
    eventually(lambda: alice.others() == ["bob"], "alice has bob")
    before = alice.peer
    bob.context.set_offline(True)  # until somebody has looked
    server.kill()
    server.start()
    eventually(partial(alice.has_come_back, before), "alice is in the room again")
    title = alice.page.locator("#invitation h2")
    expect(title).to_have_text(AWAITED)
    expect(alice.page.locator("#invitation-text")).to_be_visible()
    expect(alice.page.locator("#copy-link")).to_be_hidden()
    bob.context.set_offline(False)
    eventually(lambda: alice.others() == ["bob"], "bob is back")
    bob.page.click("#leave-button")
    expect(title).to_have_text(ALONE)
    expect(alice.page.locator("#copy-link")).to_be_visible()
