"""Layers in one VP9 stream (SVC) between real browsers: each gets those that its page shows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from people import Person
from support.process import Server
from support.waiting import eventually

pytestmark = pytest.mark.soak

People = Callable[..., Person]

_SCALE_JS = """({ codecs, encodings }, mode, sender) => {
    sender.setParameters = async () => {}; // the page would make a simulcast of it again
    const { mimeType, clockRate, sdpFmtpLine } = codecs.find((one) => one.mimeType === 'video/VP9');
    const one = { codec: { mimeType, clockRate, sdpFmtpLine }, scaleResolutionDownBy: 1, maxBitrate: 2_500_000 };
    encodings.forEach((encoding, i) => {
        Object.assign(encoding, one, { scalabilityMode: i ? 'L1T1' : mode, active: !i });
    });
}"""
_HEIGHT_JS = """async (tile) => {
    const id = document.querySelector(`${tile} video`)?.srcObject?.getVideoTracks()[0]?.id;
    const stats = await window.room.pc.getStats();
    const found = [...stats.values()].find((report) => report.trackIdentifier === id);
    return stats.get(found?.codecId)?.mimeType === 'video/VP9' ? found.frameHeight ?? 0 : 0;
}"""
_SENT_JS = """async () => Math.max(0, ...[...(await window.room.pc.getStats()).values()]
    .filter((report) => report.type === 'outbound-rtp' && report.kind === 'video' && report.active)
    .map((report) => report.frameHeight ?? 0))"""


def test_everyone_gets_the_layers_that_the_page_shows(server: Server, room: str, person: People) -> None:
    alice = person(server, "alice", lines=360).join(room)
    bob, carol = (person(server, name, quiet=True).join(room) for name in ("bob", "carol"))
    for one in (bob, carol):
        one.sees(alice)
    alice.encodes(_SCALE_JS, "L3T3_KEY")
    alice.keeps_sizes()
    for large, small in ((bob, carol), (carol, bob)):
        large.shows(alice, 360)
        small.shows(alice, 90)
        differ(alice, large, small)


def differ(alice: Person, large: Person, small: Person) -> None:
    """Waits until one gets all layers of hers and the other fewer. Her browser sends fewer or smaller ones while it
    takes its processor or its way for too slow, so sizes are compared with what it sends."""

    def look() -> bool:
        sent, most, least = alice.page.evaluate(_SENT_JS), height(alice, large), height(alice, small)
        return 0 < least < most == sent

    eventually(look, f"{large.name} gets all layers and {small.name} does not", 40)
    for one in (large, small):
        one.sees(alice)


def height(alice: Person, viewer: Person) -> int:
    found: int = viewer.page.evaluate(_HEIGHT_JS, viewer.tile(alice))
    return found
