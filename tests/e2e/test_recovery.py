"""What breaks and comes back by itself: the server, and a media worker."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from people import Person
from process import Server, eventually, workers

pytestmark = pytest.mark.xdist_group("browser")

People = Callable[..., Person]


@pytest.fixture
def call(server: Server, person: People) -> tuple[Person, Person]:
    alice, bob = person(server, "alice").join("team"), person(server, "bob").join("team")
    alice.sees(bob)
    bob.sees(alice)
    return alice, bob


def back(call: tuple[Person, Person], before: list[str | None]) -> None:
    """Waits until both are in the call again, as new peers, with moving pictures."""
    for one, old in zip(call, before, strict=True):
        eventually(partial(one.has_come_back, old), f"{one.name} is in the room again", 30)
    for one, other in (call, call[::-1]):
        one.sees(other)
        one.hears()
        assert one.others() == [other.name]


def test_both_are_back_after_the_server_was_killed(server: Server, call: tuple[Person, Person]) -> None:
    before = [one.peer for one in call]
    server.kill()
    for one in call:
        one.page.locator("#banner").wait_for(state="visible")
    server.start()
    back(call, before)
    for one in call:
        one.page.locator("#banner").wait_for(state="hidden")


def test_both_are_back_after_a_restart_in_order(server: Server, call: tuple[Person, Person]) -> None:
    before = [one.peer for one in call]
    assert server.stop() == 0
    server.start()
    back(call, before)


def test_both_are_back_after_their_media_worker_died(server: Server, call: tuple[Person, Person]) -> None:
    before = [one.peer for one in call]
    (worker,) = workers(server.pid)
    worker.kill()
    back(call, before)
    assert server.get("/health")["peers"] == 2
