"""Who speaks is seen, in real browsers."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from crowd import NAMES, SAY_JS, VOICE_JS, Crowd
from people import FRAMES, People, Person
from playwright.sync_api import Browser, expect
from support.process import Server
from support.waiting import eventually

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


def decoded(one: Person) -> dict[str, int]:
    """Frames by track, of those of which anything came."""
    return {report["trackIdentifier"]: report["framesDecoded"] for report in one.inbound("video")}


def on(one: Person, before: dict[str, int]) -> list[str]:
    """The tracks that move since."""
    return [track for track, frames in decoded(one).items() if frames >= before.get(track, 0) + FRAMES]


def test_who_speaks_has_a_ring_until_muted(server: Server, room: str, person: People) -> None:
    alice, bob = person(server, "alice").join(room), person(server, "bob").join(room)
    bob.sees(alice)
    sound(bob, loudness=0)
    sound(alice)
    for one in (alice, bob):
        expect(one.page.locator(f"{one.tile(alice)}.is-speaking.is-dominant")).to_have_count(1)
        expect(one.page.locator(".is-speaking")).to_have_count(1)
    expect(bob.page.locator(bob.tile(alice))).to_have_attribute("aria-label", "alice, main speaker")
    carol = person(server, "carol").join(room)
    sound(carol, loudness=0)
    expect(carol.page.locator(f"{carol.tile(alice)}.is-speaking")).to_have_count(1)

    alice.page.click("#mic-button")
    for one in (alice, bob, carol):
        expect(one.page.locator(".is-speaking")).to_have_count(0)
        # carol may be the last who was heard: her fake microphone beeped before it was silenced
        expect(one.page.locator(f"{one.tile(alice)}.is-dominant")).to_have_count(0)


@pytest.mark.soak
def test_music_comes_in_stereo_and_voices_do_not(server: Server, room: str, person: People) -> None:
    alice, bob = person(server, "alice").join(room), person(server, "bob").join(room)
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


@pytest.mark.soak
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


@pytest.mark.soak
def test_of_twelve_people_four_are_seen_and_whoever_speaks_is_among_them(
    start_server: Callable[..., Server], browser: Browser, person: People
) -> None:
    server, names = start_server(LAST_N="4"), NAMES[:11]
    crowd, eva = Crowd(browser, server), person(server, "eva")
    try:
        crowd.join("team", names)
        for name in names:
            crowd.page.evaluate(VOICE_JS, name)
        eva.page.goto(f"{server.url}/?token={crowd.token('team', 'eva', permissions={'publish': False})}&preview=off")
        seen, unseen = (
            eva.page.locator(".tile.has-picture:not(.is-self)"),
            eva.page.locator('.tile[aria-label*="video paused: not speaking"]'),
        )
        expect(seen).to_have_count(4)
        expect(unseen).to_have_count(7)
        for name in (names[10], names[5], names[10]):
            crowd.page.evaluate(SAY_JS, [name, 1])
            tile = eva.page.get_by_role("article", name=name)
            expect(tile.and_(eva.page.locator(".has-picture.is-dominant"))).to_have_count(1)
            crowd.page.evaluate(SAY_JS, [name, 0])
            expect(seen).to_have_count(4)
            before = decoded(eva)
            moving = eventually(lambda before=before: len(found := on(eva, before)) >= 4 and found, "four move")  # type: ignore[misc]
            assert len(moving) == 4, "who made room may have a frame or two still to come"
    finally:
        crowd.context.close()
