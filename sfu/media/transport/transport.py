"""One client's transport: its ICE agent, its SRTP keys, and sending. It knows no room, no track and no SDP."""

from __future__ import annotations

from sfu.media.transport.budget import TokenBucket
from sfu.media.transport.ice import Agent
from sfu.media.transport.sockets import CandidatePair
from sfu.media.transport.srtp import Context, Packet

RTX_PER_S = 1000.0
RTX_BURST = 500.0
"""Packets that one subscriber may ask for, so that NACKs multiply neither traffic nor work. Who loses a fifth of 25
videos asks for 800 a second."""


class Transport:
    """`outgoing` is None before DTLS is up and after the end. `out` is one packet to work in, shared by a worker."""

    def __init__(self, peer_id: str, agent: Agent, out: Packet, counters: dict[str, int]) -> None:
        self.id, self.agent = peer_id, agent
        self.outgoing: Context | None = None
        self.hears_redundant: bool | None = None  # whether it takes RED; None until an answer took any sound
        self.rtx_budget = TokenBucket(RTX_PER_S, RTX_BURST)  # what it may ask for once more
        self.rtx_bytes = 0  # of packets sent once more
        self._out, self._counters = out, counters

    def ready(self) -> tuple[Context, CandidatePair] | None:
        """How to encrypt and where to send what goes to this peer, while its media flows."""
        if self.outgoing is None or self.agent.selected is None:
            return None
        return self.outgoing, self.agent.selected

    def send_rtx(self, data: bytes | bytearray) -> None:
        """One packet that was sent before, once more."""
        self.rtx_bytes += len(data)
        self.send_rtp(data)

    def send_rtp(self, data: bytes | bytearray) -> None:
        """Encrypts and sends one packet; before DTLS is up and after the end it does nothing."""
        if self.outgoing is None or self.agent.selected is None:
            return
        out, path = self._out, self.agent.selected
        out.load(memoryview(data), len(data))
        if self.outgoing.protect(out):
            self._counters["packets_out"] += 1
            path.endpoint.send(out.view[: out.n], path.address)
        else:
            self._counters["protect_failed"] += 1

    def send_rtcp(self, data: bytes) -> None:
        if self.outgoing is None or self.agent.selected is None:
            return
        out, path = self._out, self.agent.selected
        out.load(data, len(data))
        if self.outgoing.protect_rtcp(out):
            path.endpoint.send(out.view[: out.n], path.address)
        else:
            self._counters["protect_failed"] += 1
