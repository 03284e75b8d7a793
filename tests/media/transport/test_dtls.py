"""The seam to aiortc's DTLS: what it keeps private is overridden, so that a new version of it shows."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import SRTP_PROFILES, RTCDtlsTransport, SRTPProtectionProfile
from pylibsrtp import Policy
from support.media_client import DEADLINE_S, rtp_packet

from sfu.media.rtp.numbering import HISTORY
from sfu.media.transport.dtls import PROFILES, Certificate, Dtls
from sfu.media.transport.srtp import Packet

OURS = Certificate.generateCertificate()


class Wire:
    """What RTCDtlsTransport needs of an ICE transport, and the other end of it."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.peer: Wire = self
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()

    async def _recv(self) -> bytes:
        return await self._inbox.get()

    async def _send(self, data: bytes) -> None:
        self.peer._inbox.put_nowait(data)


def fingerprints(certificate: RTCCertificate) -> list[tuple[str, str]]:
    return [(one.algorithm, one.value) for one in certificate.getFingerprints()]


async def meet(*, client: bool = False, profiles: list[Any] = SRTP_PROFILES, known: bool = True) -> tuple[Dtls, Any]:
    """Our end, and aiortc's own as any browser's; `known`: we were told its certificate."""
    near, far = Wire("controlled"), Wire("controlling")
    near.peer, far.peer = far, near
    theirs = RTCCertificate.generateCertificate()
    ours, other = Dtls(near, OURS, client=client), RTCDtlsTransport(far, [theirs])  # type: ignore[arg-type]
    other._srtp_profiles = profiles
    other._set_role("server" if client else "client")
    parameters = RTCDtlsTransport(far, [OURS]).getLocalParameters()  # type: ignore[arg-type]
    told = theirs if known else RTCCertificate.generateCertificate()
    done, _ = await asyncio.gather(ours.handshake(fingerprints(told), DEADLINE_S), other.start(parameters))
    assert done == (ours.state == "connected")
    for end in (ours, other):
        await end.stop()
    return ours, other


def packet(data: bytes) -> Packet:
    loaded = Packet()
    loaded.load(data, len(data))
    return loaded


def test_the_cheapest_cipher_is_asked_for_first() -> None:
    assert PROFILES[0].openssl_profile == b"SRTP_AEAD_AES_128_GCM"
    assert {p.openssl_profile for p in PROFILES} == {p.openssl_profile for p in SRTP_PROFILES}
    assert all(a is PROFILES[0] or SRTP_PROFILES.index(a) < SRTP_PROFILES.index(b) for a, b in pairwise(PROFILES))


@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("profile", SRTP_PROFILES)
def test_both_ends_have_the_same_keys(profile: Any, client: bool) -> None:
    ours, other = asyncio.run(meet(client=client, profiles=[profile]))
    assert ours.incoming is not None
    assert ours.outgoing is not None
    plain = rtp_packet(1, 7)
    sent = packet(plain)
    assert ours.outgoing.protect(sent)
    assert sent.n == len(plain) + ours.outgoing.tag_bytes
    assert other._rx_srtp.unprotect(bytes(sent.view[: sent.n])) == plain
    came = packet(other._tx_srtp.protect(plain))
    assert ours.incoming.unprotect(came)
    assert bytes(came.view[: came.n]) == plain


def test_another_certificate_than_was_told_is_refused() -> None:
    ours, _ = asyncio.run(meet(known=False))
    assert ours.ended
    assert ours.outgoing is None


def test_no_common_cipher_is_refused() -> None:
    short = SRTPProtectionProfile(Policy.SRTP_PROFILE_AES128_CM_SHA1_32, b"SRTP_AES128_CM_SHA1_32", 16, 14)
    ours, _ = asyncio.run(meet(profiles=[short]))
    assert ours.ended
    assert ours.outgoing is None


def test_what_leaves_late_is_encrypted_and_what_nobody_waits_for_is_not() -> None:
    ours, other = asyncio.run(meet())
    outgoing: Any = ours.outgoing
    assert outgoing.protect(packet(rtp_packet(1000 + HISTORY, 7)))
    late = packet(rtp_packet(1000, 7))
    assert outgoing.protect(late)
    assert other._rx_srtp.unprotect(bytes(late.view[: late.n])) == rtp_packet(1000, 7)
    assert not outgoing.protect(packet(rtp_packet(1000 - HISTORY, 7)))


def test_one_context_serves_all_and_keeps_no_sessions() -> None:
    context = OURS._create_ssl_context(PROFILES)
    assert OURS._create_ssl_context(PROFILES) is context
    assert context.get_session_cache_mode() == 0
