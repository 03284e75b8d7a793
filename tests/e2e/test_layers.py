"""Simulcast between real browsers: each gets the layer that its page shows, and nobody sends what nobody watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from people import Person
from support.process import Server
from support.waiting import eventually

pytestmark = pytest.mark.soak

People = Callable[..., Person]

_SENT_JS = """async () => {
    const found = {};
    for (const report of (await window.room.pc.getStats()).values()) {
        if (report.type === 'outbound-rtp' && report.kind === 'video') found[report.rid] = report.active;
    }
    return found;
}"""


def sent(publisher: Person) -> set[str]:
    layers: dict[str, bool] = publisher.page.evaluate(_SENT_JS)
    return {rid for rid, active in layers.items() if active}


def height(viewer: Person) -> Any:
    return next((report.get("frameHeight") for report in viewer.inbound("video")), None)


def frames(viewer: Person) -> int:
    return sum(report.get("framesDecoded", 0) for report in viewer.inbound("video"))


def test_everyone_gets_the_layer_that_the_page_shows(server: Server, room: str, person: People) -> None:
    alice = person(server, "alice", lines=720).join(room)
    bob = person(server, "bob", quiet=True).join(room)
    bob.sees(alice)
    eventually(lambda: set(alice.page.evaluate(_SENT_JS)) == {"q", "h", "f"}, "three layers are negotiated")
    alice.keeps_sizes()
    for shown, expected in ((180, 180), (720, 720), (360, 360)):
        bob.shows(alice, shown)
        eventually(lambda e=expected: height(bob) == e, f"bob gets {expected} lines")
        bob.moves(lambda: frames(bob), f"sees {expected} lines")
    # where the processor is busy the estimate may ask for less, never for more
    eventually(lambda: "f" not in sent(alice), "alice sends no layer that is larger than anybody sees")
    bob.shows(alice, 0)
    eventually(lambda: sent(alice) == set(), "alice sends nothing that nobody watches")
    bob.shows(alice, 180)
    before = frames(bob)
    eventually(lambda: frames(bob) >= before + 10, "bob sees alice again")
