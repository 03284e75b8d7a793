"""One client's transport: its ICE agent, its SRTP keys, and sending. It knows no rooms, no streams and no SDP."""

from __future__ import annotations

from sfu.buckets import TokenBucket
from sfu.media.transport.ice import Agent
from sfu.media.transport.sockets import CandidatePair
from sfu.media.transport.srtp import Context, Packet

RTX_PER_S = 1000.0
RTX_BURST = 500.0
"""Retransmissions that one subscriber may request a second and at once, so that NACKs multiply neither traffic nor
work. A subscriber that loses a fifth of 25 videos requests 800 a second."""


class Transport:
    """`outgoing` is None before DTLS is up and after the end. `out` is a scratch packet shared by all peers of a
    worker."""

    def __init__(self, peer_id: str, agent: Agent, out: Packet, counters: dict[str, int]) -> None:
        self.id, self.agent = peer_id, agent
        self.outgoing: Context | None = None
        self.hears_redundant: bool | None = None  # whether it supports RED; None until an answer accepts any audio
        self.rtx_budget = TokenBucket(RTX_PER_S, RTX_BURST)  # retransmissions it may request
        self.rtx_bytes = 0  # retransmissions and probes
        self._out, self._counters = out, counters

    def ready(self) -> tuple[Context, CandidatePair] | None:
        """The SRTP context and the path to send to this peer; None while media does not flow to it."""
        if self.outgoing is None or self.agent.selected is None:
            return None
        return self.outgoing, self.agent.selected

    def learn_redundancy(self, supported: bool) -> None:
        """The first call decides for good: packets that were sent without RED cannot be sent again with it."""
        if self.hears_redundant is None:
            self.hears_redundant = supported

    def send_rtx(self, data: bytes | bytearray) -> None:
        """Sends a packet again that was sent before."""
        self.rtx_bytes += len(data)
        self.send_rtp(data)

    def send_rtp(self, data: bytes | bytearray) -> None:
        """Encrypts and sends one packet; does nothing before DTLS is up and after the end."""
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
