"""Other codecs than VP8 between real browsers, until somebody comes who cannot show them; and redundant sound."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from people import Person
from support.process import Server
from support.variants import variants
from support.waiting import eventually

People = Callable[..., Person]
Two = tuple[Person, Person]

_CODEC_JS = """({ codecs, encodings }, name) => {
    const { mimeType, clockRate, sdpFmtpLine } = codecs.find((one) => one.mimeType === `video/${name}`);
    const codec = sdpFmtpLine ? { mimeType, clockRate, sdpFmtpLine } : { mimeType, clockRate };
    for (const encoding of encodings) encoding.codec = codec;
}"""
_ONLY_VP8_JS = """
const answer = RTCPeerConnection.prototype.createAnswer;
RTCPeerConnection.prototype.createAnswer = function (...options) {
    const codecs = RTCRtpReceiver.getCapabilities('video').codecs;
    const few = codecs.filter(({ mimeType }) => /VP8|rtx/.test(mimeType));
    for (const one of this.getTransceivers()) {
        if (one.receiver.track.kind === 'video' && one.direction === 'recvonly') one.setCodecPreferences(few);
    }
    return answer.apply(this, options);
};
"""
_CODECS_JS = """async () => {
    const stats = await window.room.pc.getStats();
    const inbound = [...stats.values()].filter((one) => one.type === 'inbound-rtp' && one.kind === 'video');
    return inbound.map((one) => stats.get(one.codecId)?.mimeType);
}"""

_SOUND_JS = """() => {
    const of = (ends) => ends.filter(({ track }) => track?.kind === 'audio').map((end) => end.getParameters().codecs);
    const { pc } = window.room;
    return [of(pc.getSenders()), of(pc.getReceivers())].map((found) => found.map(([first]) => first?.mimeType));
}"""
"""What their sound is sent and received as; statistics call it Opus (tests/test_redundant.py has the packets)."""
_ONLY_OPUS_JS = """
const answer = RTCPeerConnection.prototype.createAnswer;
RTCPeerConnection.prototype.createAnswer = function (...options) {
    const few = RTCRtpReceiver.getCapabilities('audio').codecs.filter(({ mimeType }) => /opus/.test(mimeType));
    for (const one of this.getTransceivers()) {
        if (one.receiver.track.kind === 'audio' && one.direction === 'recvonly') one.setCodecPreferences(few);
    }
    return answer.apply(this, options);
};
"""


@pytest.mark.soak
def test_sound_is_redundant_between_those_who_know_that(server: Server, person: People, two: Two) -> None:
    alice, bob = two
    carol = person(server, "carol", quiet=True)
    carol.page.add_init_script(_ONLY_OPUS_JS)
    carol.join(alice.room)
    for one in (alice, bob, carol):
        one.hears()
    for one in (alice, bob):
        sent, heard = one.page.evaluate(_SOUND_JS)
        assert sent == ["audio/red"]
        assert "audio/red" in heard
    assert "audio/red" not in carol.page.evaluate(_SOUND_JS)[1]


@pytest.mark.soak
@pytest.mark.parametrize("codec", ["VP9", *variants("AV1", "H264")])
def test_a_codec_that_everybody_can_show(server: Server, person: People, two: Two, codec: str) -> None:
    alice, bob = two
    alice.encodes(_CODEC_JS, codec)
    eventually(lambda: f"video/{codec}" in bob.page.evaluate(_CODECS_JS), f"{codec} comes")
    bob.sees(alice)
    late = person(server, "late", quiet=True).join(alice.room)
    late.sees(alice)
    assert f"video/{codec}" in late.page.evaluate(_CODECS_JS)


@pytest.mark.soak
def test_who_cannot_show_it_is_sent_what_it_can(server: Server, person: People, two: Two) -> None:
    alice, bob = two
    alice.encodes(_CODEC_JS, "VP9")
    eventually(lambda: "video/VP9" in bob.page.evaluate(_CODECS_JS), "VP9 comes")
    carol = person(server, "carol", quiet=True)
    carol.page.add_init_script(_ONLY_VP8_JS)
    carol.join(alice.room)
    for one in (bob, carol):
        one.sees(alice)
        eventually(lambda one=one: set(one.page.evaluate(_CODECS_JS)) == {"video/VP8"}, f"{one.name} gets VP8")
