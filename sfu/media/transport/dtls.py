"""DTLS on aiortc's transport, and the SRTP keys that it exports (RFC 5764).

aiortc makes an OpenSSL context for each peer (17 KB), and gives outgoing SRTP a replay window of 1,024 packets, which
libsrtp shifts for every packet of every subscriber: a twentieth of a large room's CPU. The methods overridden here are
private to aiortc: its version is pinned, and tests/media/transport/test_dtls.py covers them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import (
    SRTP_AEAD_AES_128_GCM,
    SRTP_AES128_CM_SHA1_80,
    SRTP_PROFILES,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    SRTPProtectionProfile,
    State,
)
from OpenSSL import SSL
from pylibsrtp import Policy, Session

from sfu.media.rtp.numbering import HISTORY
from sfu.media.transport.deadline import within
from sfu.media.transport.records import Records
from sfu.media.transport.srtp import Context

PROFILES = sorted(SRTP_PROFILES, key=lambda profile: profile is not SRTP_AEAD_AES_128_GCM)
"""AES-128-GCM first: it is the cheapest to encrypt, and as server OpenSSL picks by its own order."""
LABEL = b"EXTRACTOR-dtls_srtp"
WINDOW = HISTORY + 32
"""libsrtp's replay window in packets. libsrtp shifts all of it for each packet, and a packet that arrives or leaves
late is at most HISTORY behind (numbering.py)."""


class Certificate(RTCCertificate):
    """The server's certificate. One OpenSSL context serves all peers. Sessions are not cached, so none can be
    resumed."""

    _context: SSL.Context | None = None

    def _create_ssl_context(self, srtp_profiles: list[SRTPProtectionProfile]) -> SSL.Context:
        if self._context is None:
            self._context = super()._create_ssl_context(srtp_profiles)
            self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        return self._context


class _Wire:
    """An agent as the RTCIceTransport of aiortc's DTLS. Forged records do not reach it."""

    def __init__(self, agent: Any, records: Records) -> None:
        self._agent, self._records = agent, records
        self.role, self._send = agent.role, agent._send

    async def _recv(self) -> bytes:
        while not (data := self._records.admit(await self._agent._recv())):
            pass
        return data


class Dtls(RTCDtlsTransport):
    """One peer's DTLS. Of an RTCIceTransport it needs only role, _recv and _send, which `agent` has."""

    def __init__(self, agent: Any, certificate: Certificate, *, client: bool) -> None:
        super().__init__(_Wire(agent, Records(from_client=not client)), [certificate])  # type: ignore[arg-type]
        self._srtp_profiles = PROFILES
        self._set_role("client" if client else "server")
        self.incoming: Context | None = None
        self.outgoing: Context | None = None

    async def handshake(self, fingerprints: Iterable[tuple[str, str]], timeout_s: float) -> bool:
        """With a client whose certificate has one of these (algorithm, value) fingerprints. False if it fails or times
        out."""
        parameters = RTCDtlsParameters([RTCDtlsFingerprint(algorithm, value) for algorithm, value in fingerprints])
        with contextlib.suppress(TimeoutError):
            async with within(timeout_s):
                await self.start(parameters)
        return bool(self.state == "connected")

    @property
    def ended(self) -> bool:
        return self.state in ("closed", "failed")

    def _setup_srtp(self) -> None:
        assert self._ssl is not None
        selected = self._ssl.get_selected_srtp_profile()
        profile = next((one for one in PROFILES if one.openssl_profile == selected), None)
        if profile is None:
            self._set_state(State.FAILED)
            return
        material = self._ssl.export_keying_material(LABEL, 2 * (profile.key_length + profile.salt_length))
        mine = 0 if self._role == "client" else 1  # RFC 5764 section 4.2: the client's keys come first
        theirs = profile.get_key_and_salt(material, 1 - mine)
        self.incoming = _context(profile, theirs, Policy.SSRC_ANY_INBOUND)
        ours = profile.get_key_and_salt(material, mine)
        self.outgoing = _context(profile, ours, Policy.SSRC_ANY_OUTBOUND)


def _context(profile: SRTPProtectionProfile, key: bytes, ssrc_type: int) -> Context:
    policy = Policy(key=key, ssrc_type=ssrc_type, srtp_profile=profile.libsrtp_profile)
    policy.allow_repeat_tx = True
    policy.window_size = WINDOW
    return Context(Session(policy), 10 if profile is SRTP_AES128_CM_SHA1_80 else 16)
