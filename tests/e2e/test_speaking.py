"""Who speaks is seen, in real browsers."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from people import Person
from playwright.sync_api import expect
from process import Server, eventually

pytestmark = pytest.mark.xdist_group("browser")

People = Callable[..., Person]

_SOUND_JS = """([source, loudness]) => {
    const context = new AudioContext();
    const [tone, volume] = [context.createOscillator(), context.createGain()];
    const out = context.createMediaStreamDestination();
    volume.gain.value = loudness;
    tone.connect(volume).connect(out);
    tone.start();
    window.room.publish(source, out.stream.getAudioTracks()[0], out.stream);
}"""

_CODECS_JS = """async () => {
    const stats = await window.room.pc.getStats();
    const inbound = [...stats.values()].filter((one) => one.type === 'inbound-rtp' && one.kind === 'audio');
    return inbound.filter((one) => one.codecId).map((one) => stats.get(one.codecId).sdpFmtpLine).sort();
}"""


def sound(one: Person, source: str = "microphone", loudness: float = 0.3) -> None:
    """Sends a tone instead of the fake microphone, whose beeps count as speech."""
    one.page.evaluate(_SOUND_JS, [source, loudness])


def test_who_speaks_has_a_ring_until_muted(server: Server, person: People) -> None:
    alice, bob = person(server, "alice").join("team"), person(server, "bob").join("team")
    bob.sees(alice)
    sound(bob, loudness=0)
    sound(alice)
    for one in (alice, bob):
        expect(one.page.locator(f"{one.tile(alice)}.is-speaking.is-dominant")).to_have_count(1)
        expect(one.page.locator(".is-speaking")).to_have_count(1)
    expect(bob.page.locator(bob.tile(alice))).to_have_attribute("aria-label", "alice, main speaker")
    carol = person(server, "carol").join("team")
    sound(carol, loudness=0)
    expect(carol.page.locator(f"{carol.tile(alice)}.is-speaking")).to_have_count(1)

    alice.page.click("#mic-button")
    for one in (alice, bob, carol):
        expect(one.page.locator(".is-speaking")).to_have_count(0)
        expect(one.page.locator(".is-dominant")).to_have_count(0)


def test_music_comes_in_stereo_and_voices_do_not(server: Server, person: People) -> None:
    alice, bob = person(server, "alice").join("team"), person(server, "bob").join("team")
    bob.hears()
    for one in (alice, bob):
        sound(one, loudness=0)
    sound(alice, "music")
    eventually(lambda: len(bob.page.evaluate(_CODECS_JS)) == 2, "bob gets both")
    assert sorted("stereo=1" in line for line in bob.page.evaluate(_CODECS_JS)) == [False, True]
    asked = eventually(
        lambda: [line for line in alice.page.evaluate("window.room.pc.remoteDescription.sdp").splitlines()
                 if line.startswith("a=fmtp:111") and ";stereo=1" in line],
        "alice is asked for stereo",
    )  # fmt: skip
    assert len(asked) == 1
    expect(bob.page.locator(".is-speaking")).to_have_count(0)


def test_with_one_video_each_it_is_the_speakers(start_server: Callable[..., Server], person: People) -> None:
    server = start_server(LAST_N="1")
    alice, bob, carol = people = [person(server, name).join("team") for name in ("alice", "bob", "carol")]
    for one in people:
        sound(one, loudness=0)
    sound(alice)
    carol.sees(alice)
    expect(carol.page.locator(carol.tile(bob))).to_have_attribute(
        "aria-label", re.compile("^bob, video paused: not speaking")
    )
    expect(carol.page.locator(f"{carol.tile(bob)} .why")).to_have_text("Video paused: not speaking")
    sound(alice, loudness=0)
    sound(bob)
    carol.sees(bob)
    expect(carol.page.locator(f"{carol.tile(alice)} .why")).to_have_text("Video paused: not speaking")
    expect(carol.page.locator(f"{carol.tile(alice)}.has-picture")).to_have_count(0)
    alice.sees(bob)
    bob.sees(alice)
