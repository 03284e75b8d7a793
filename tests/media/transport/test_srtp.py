"""The seam to libsrtp: what pylibsrtp and aiortc keep private is used here, so that a new version of them shows."""

from __future__ import annotations

import pytest
from pylibsrtp import Error, Policy, Session
from support.media_client import rtp_packet

from sfu.media.rtp.rtcp import pli
from sfu.media.transport.srtp import BUFFER_BYTES, MAX_SSRCS, Context, Packet

KEY = bytes(range(46))
GCM = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
TAGS = {
    Policy.SRTP_PROFILE_AES128_CM_SHA1_80: 10,
    Policy.SRTP_PROFILE_AES128_CM_SHA1_32: 4,
    GCM: 16,
    Policy.SRTP_PROFILE_AEAD_AES_256_GCM: 16,
}
every_profile = pytest.mark.parametrize("profile", TAGS)


def session(direction: int, profile: int = GCM) -> Session:
    """As aiortc makes them."""
    policy = Policy(key=KEY, ssrc_type=direction, srtp_profile=profile)
    policy.allow_repeat_tx = True
    policy.window_size = 1024
    return Session(policy)


def sender(profile: int = GCM) -> Session:
    return session(Policy.SSRC_ANY_OUTBOUND, profile)


def receiver(profile: int = GCM) -> Session:
    return session(Policy.SSRC_ANY_INBOUND, profile)


def loaded(data: bytes) -> Packet:
    packet = Packet()
    packet.load(data, len(data))
    return packet


def content(packet: Packet) -> bytes:
    return bytes(packet.view[: packet.n])


@every_profile
def test_what_a_session_protects_a_context_reads(profile: int) -> None:
    theirs, ours = sender(profile), Context(receiver(profile))
    for seq16 in (65534, 65535, 0, 1):
        plain = rtp_packet(seq16, 7, b"media")
        packet = loaded(theirs.protect(plain))
        assert ours.unprotect(packet)
        assert content(packet) == plain
    packet = loaded(theirs.protect_rtcp(pli(9)))
    assert ours.unprotect_rtcp(packet)
    assert content(packet) == pli(9)


@every_profile
@pytest.mark.parametrize("size", [0, 1, 1200, 1500 - 12 - 16])
def test_what_a_context_protects_a_session_reads(profile: int, size: int) -> None:
    ours, theirs = Context(sender(profile)), receiver(profile)
    plain = rtp_packet(1, 7, b"x" * size)
    packet = loaded(plain)
    assert ours.protect(packet)
    assert packet.n == len(plain) + TAGS[profile]
    assert theirs.unprotect(content(packet)) == plain
    packet = loaded(pli(9))
    assert ours.protect_rtcp(packet)
    assert theirs.unprotect_rtcp(content(packet)) == pli(9)


@every_profile
def test_the_same_packet_again_is_the_same_bytes(profile: int) -> None:
    """What a retransmission is; the receiver's replay check then takes whichever comes first."""
    ours, theirs = Context(sender(profile)), receiver(profile)
    sent = []
    for seq16 in (1, 2, 3, 2):
        packet = loaded(rtp_packet(seq16, 7))
        assert ours.protect(packet)
        sent.append(content(packet))
    assert sent[3] == sent[1]
    for data in (sent[0], sent[2], sent[3]):  # the second was lost, its retransmission arrives last
        theirs.unprotect(data)
    with pytest.raises(Error, match="replay"):
        theirs.unprotect(sent[1])


@every_profile
def test_forged_and_replayed_packets_are_refused(profile: int) -> None:
    theirs, ours = sender(profile), Context(receiver(profile))
    data = theirs.protect(rtp_packet(1, 7))
    for at in range(len(data)):
        assert not ours.unprotect(loaded(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]))
    assert ours.unprotect(loaded(data))
    assert not ours.unprotect(loaded(data))


@every_profile
@pytest.mark.parametrize("first", [0x80, 0x8F, 0x90, 0xBF])
def test_cut_packets_are_refused(profile: int, first: int) -> None:
    ours, packet = Context(receiver(profile)), Packet()
    data = sender(profile).protect(rtp_packet(1, 7, bytes(40)))
    for n in range(len(data)):
        packet.load(bytes([first]) + data[1:], len(data))
        packet.n = n
        assert not ours.unprotect(packet)
        packet.load(bytes([first]) + data[1:], len(data))
        packet.n = n
        assert not ours.unprotect_rtcp(packet)


def test_a_packet_holds_its_buffer_and_no_more() -> None:
    packet = Packet()
    assert len(packet.view) == BUFFER_BYTES
    with pytest.raises(ValueError, match="different"):
        packet.load(bytes(BUFFER_BYTES + 1), BUFFER_BYTES + 1)


def test_ssrcs_are_bounded() -> None:
    """libsrtp keeps a stream for every SSRC and looks through them one by one: 20,000 make a packet take 60 µs. Those
    in use are not given up for others."""
    theirs, ours = sender(), Context(receiver())
    ours.live = range(1, MAX_SSRCS + 1)
    for ssrc in range(1, MAX_SSRCS + 1):
        assert ours.unprotect(loaded(theirs.protect(rtp_packet(1, ssrc))))
    for ssrc in range(MAX_SSRCS + 1, 3 * MAX_SSRCS):
        assert not ours.unprotect(loaded(theirs.protect(rtp_packet(1, ssrc))))
        assert not ours.unprotect_rtcp(loaded(theirs.protect_rtcp(pli(1)[:4] + ssrc.to_bytes(4, "big") + bytes(4))))
    assert ours.unprotect(loaded(theirs.protect(rtp_packet(2, 1))))
    assert not ours.unprotect(loaded(theirs.protect(rtp_packet(2, 2 * MAX_SSRCS))))


def test_a_forgotten_ssrc_has_no_stream_any_more() -> None:
    """Only where it is never used again: what is sent under it could repeat numbers."""
    ours = Context(sender())
    ours.forget(7)  # under which nothing went
    assert ours.protect(loaded(rtp_packet(5000, 7)))
    assert not ours.protect(loaded(rtp_packet(100, 7))), "far behind"
    ours.forget(7)
    assert ours.protect(loaded(rtp_packet(100, 7)))


def test_streams_that_ended_give_their_places_to_others() -> None:
    """The oldest first; one that is in use keeps its place and its replay window."""
    theirs, ours = sender(), Context(receiver())
    ours.live = {7}
    kept = theirs.protect(rtp_packet(1, 7))
    assert ours.unprotect(loaded(kept))
    for ssrc in range(1000, 1000 + 5 * MAX_SSRCS):
        assert ours.unprotect(loaded(theirs.protect(rtp_packet(1, ssrc))))
    assert not ours.unprotect(loaded(kept)), "a replay"
    last = 1000 + 5 * MAX_SSRCS - 1
    assert not ours.unprotect(loaded(theirs.protect(rtp_packet(1, last)))), "still known: a replay, too"
    assert ours.unprotect(loaded(theirs.protect(rtp_packet(2, last))))
