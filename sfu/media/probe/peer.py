"""A peer on one pipe: ICE as the controlling agent, DTLS, and RTP that its owner makes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from aioice import stun
from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport
from aiortc.sdp import SessionDescription

from sfu.media.probe.pipes import Pipe
from sfu.media.transport.dtls import PROFILES

UFRAG, PWD = "doctor", "doctordoctordoctordoctor"
"""Of every peer here: whoever knows them could only answer checks that reach this process anyway."""
CHECK_S = 0.2
"""Time after which an unanswered check is sent again."""


class Candidate(NamedTuple):
    transport: str
    host: str
    port: int


def candidates(sdp: str) -> list[Candidate]:
    """The server's candidates in an offer."""
    found = re.findall(r"^a=candidate:\S+ 1 (udp|tcp) [0-9]+ (\S+) ([0-9]+) typ host", sdp, re.MULTILINE)
    return [Candidate(transport, host, int(port)) for transport, host, port in found]


def answer(sdp: str, fingerprint: str, ssrcs: dict[str, int]) -> str:
    """An answer that receives all that is offered, and sends one SSRC for each kind in `ssrcs`."""
    parsed, left = SessionDescription.parse(sdp).media, dict(ssrcs)
    lines = ["v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0"]
    lines.append("a=group:BUNDLE " + " ".join(media.rtp.muxId for media in parsed))
    for media in parsed:
        sends = media.direction == "recvonly" and media.kind in left
        direction = "sendonly" if sends else "recvonly" if media.direction == "sendonly" else "inactive"
        lines += [
            f"m={media.kind} 9 UDP/TLS/RTP/SAVPF {' '.join(map(str, media.fmt))}", "c=IN IP4 0.0.0.0",
            f"a=ice-ufrag:{UFRAG}", f"a=ice-pwd:{PWD}", f"a=fingerprint:sha-256 {fingerprint}", "a=setup:active",
            f"a=mid:{media.rtp.muxId}", f"a={direction}", "a=rtcp-mux",
        ]  # fmt: skip
        if sends:
            lines.append(f"a=ssrc:{left.pop(media.kind)} cname:doctor")
    return "\r\n".join(lines) + "\r\n"


class Peer:
    """What DTLS needs of an ICE transport, and the peer around it. `on_rtp` gets each decrypted packet."""

    role = "controlling"

    def __init__(self, sdp: str, certificate: RTCCertificate, on_rtp: Callable[[bytes], None] | None = None) -> None:
        ufrag, pwd = (re.search(rf"a=ice-{name}:(\S+)", sdp) for name in ("ufrag", "pwd"))
        if ufrag is None or pwd is None:
            raise ValueError("an offer without ICE credentials")
        self.pipe: Pipe | None = None
        self._ufrag, self._pwd = ufrag[1], pwd[1]
        dtls = SessionDescription.parse(sdp).media[0].dtls
        self._fingerprints = dtls.fingerprints if dtls is not None else []
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue(256)
        self.dtls = _Dtls(self, certificate, on_rtp)

    def received(self, data: bytes) -> None:
        """A datagram from the pipe."""
        if data and data[0] < 4:
            self._stun(data)
        elif not self._inbox.full():
            self._inbox.put_nowait(data)

    def _stun(self, data: bytes) -> None:
        try:
            message = stun.parse_message(data)
        except ValueError:
            return
        if message.message_class == stun.Class.REQUEST:
            response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, message.transaction_id)
            response.add_message_integrity(PWD.encode())
            self.send(bytes(response))
        elif (waiting := self._waiting.pop(message.transaction_id, None)) is not None and not waiting.done():
            waiting.set_result(None)

    async def check(self) -> None:
        """Sends checks until one is answered."""
        request = self.request()
        answered = self._waiting[request.transaction_id] = asyncio.get_running_loop().create_future()
        while not answered.done():
            self.send(bytes(request))
            await asyncio.wait([answered], timeout=CHECK_S)

    def request(self) -> stun.Message:
        """A check that nominates its pair."""
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        request.attributes |= {
            "USERNAME": f"{self._ufrag}:{UFRAG}", "PRIORITY": 1853693695, "ICE-CONTROLLING": 1, "USE-CANDIDATE": None,
        }  # fmt: skip
        request.add_message_integrity(self._pwd.encode())
        return request

    async def handshake(self) -> None:
        """DTLS; `dtls.state` is `connected` afterwards, or it failed."""
        prints = [RTCDtlsFingerprint(one.algorithm, one.value) for one in self._fingerprints]
        await self.dtls.start(RTCDtlsParameters(prints))

    def send(self, data: bytes) -> None:
        if self.pipe is not None:
            self.pipe.send(data)

    async def _recv(self) -> bytes:
        return await self._inbox.get()

    async def _send(self, data: bytes) -> None:
        self.send(data)

    async def close(self) -> None:
        if (task := self.dtls._task) is not None:
            task.cancel()
            await asyncio.wait([task])
        if self.pipe is not None:
            self.pipe.close()


class _Dtls(RTCDtlsTransport):
    """aiortc's DTLS as the client, without its RTP. The methods overridden here are private to aiortc."""

    def __init__(self, ice: Any, certificate: RTCCertificate, on_rtp: Callable[[bytes], None] | None) -> None:
        super().__init__(ice, [certificate])
        self._srtp_profiles = PROFILES
        self._set_role("client")
        self._on_rtp = on_rtp

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:
        if self._on_rtp is not None:
            self._on_rtp(data)

    async def _handle_rtcp_data(self, data: bytes) -> None:
        pass


def fingerprint(certificate: RTCCertificate) -> str:
    return next(one.value for one in certificate.getFingerprints() if one.algorithm == "sha-256")
