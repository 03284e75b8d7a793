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


@pytest.mark.parametrize(("lines", "layers"), [(180, {"q"}), (360, {"q", "h"})])
def test_a_small_camera_is_seen_whole(server: Server, room: str, person: People, lines: int, layers: set[str]) -> None:
    alice = person(server, "alice", lines=lines).join(room)
    bob = person(server, "bob", quiet=True).join(room)
    bob.sees(alice)
    alice.keeps_sizes()
    bob.shows(alice, lines)
    eventually(lambda: height(bob) == lines, f"bob gets all {lines} lines")
    bob.moves(lambda: frames(bob), "sees them move")
    assert sent(alice) <= layers


_OTHER_CAMERA_JS = """([width, height]) => {
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const pen = canvas.getContext('2d');
    let n = 0;
    setInterval(() => { pen.fillStyle = `hsl(${n++ * 7} 80% 50%)`; pen.fillRect(0, 0, width, height); }, 66);
    const stream = canvas.captureStream(15);
    window.room.publish('camera', stream.getVideoTracks()[0], stream);
}"""


def test_a_camera_that_changes_its_size_is_still_seen_whole(server: Server, room: str, person: People) -> None:
    """As a phone's does when it is turned."""
    alice = person(server, "alice", lines=720).join(room)
    bob = person(server, "bob", quiet=True).join(room)
    bob.sees(alice)
    bob.shows(alice, 640)
    for size in ((640, 360), (360, 640), (320, 180)):
        alice.page.evaluate(_OTHER_CAMERA_JS, size)
        alice.keeps_sizes()
        eventually(lambda e=size[1]: height(bob) == e, f"bob gets all {size[1]} lines")
