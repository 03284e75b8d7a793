"""What the RTCP of a peer may trigger, with a limit on each.

| What comes | What is done | At most |
|---|---|---|
| anything | it is parsed | BYTES_PER_S per peer |
| sender report of a stream that it publishes | passed on | one per REPORT_S and stream (rtp_stream.py) |
| report block about a stream that it is sent | its downlink is estimated | lowered once per DRAIN_S (estimator.py) |
| transport-wide feedback about what it is sent | likewise; the bitrate that arrives is known | likewise |
| REMB, of clients that give no transport-wide feedback | likewise | likewise |
| generic NACK for a stream that it is sent | retransmission, one per round trip | RTX_PER_S (transport.py) |
| | | a share of its bitrate (retransmission.py) |
| PLI, FIR for a stream that it is sent | a keyframe is requested | one per HOLD_MS and layer (keyframe.py) |
| SDES, BYE, APP, XR, unknown types; anything about other streams | nothing | |
"""

from __future__ import annotations

import time

from sfu.buckets import TokenBucket
from sfu.media.peer.publisher import Publisher
from sfu.media.peer.subscriber import Subscriber
from sfu.media.rtp import rtcp

BYTES_PER_S, BYTES_BURST = 50_000.0, 100_000.0
"""RTCP of one peer that is parsed. A peer that loses a fifth of 25 videos sends 30,000 bytes of NACKs a second. The
most expensive content, packets of 4 bytes or report blocks, costs a hundredth of a core or two."""


class RtcpReader:
    """One per peer, whose halves are `publisher` and `subscriber`."""

    __slots__ = ("_budget", "_counters", "_id", "_publisher", "_subscriber")

    def __init__(self, peer_id: str, publisher: Publisher, subscriber: Subscriber, counters: dict[str, int]) -> None:
        self._id, self._publisher, self._subscriber, self._counters = peer_id, publisher, subscriber, counters
        self._budget = TokenBucket(BYTES_PER_S, BYTES_BURST)

    def read(self, data: bytes) -> None:
        """Takes an authentic compound. Raises ValueError if it is truncated; the packets before that have been
        processed."""
        now_s = time.monotonic()
        if not self._budget.take(now_s, len(data)):
            self._counters["rtcp_over_budget"] += 1
            return
        for packet in rtcp.rtcp_packets(data):
            if packet.type in (rtcp.RTCP_SR, rtcp.RTCP_RR):
                self._reports(packet, now_s)
            elif packet.type == rtcp.RTCP_RTPFB and packet.format == rtcp.RTPFB_NACK:
                self._counters["nack_received"] += 1
                publication = self._subscriber.subscriptions.get(rtcp.feedback_media_ssrc(packet))
                if publication is not None:
                    publication.retransmit(self._id, rtcp.nacked(packet), now_s)
            elif packet.type == rtcp.RTCP_RTPFB and packet.format == rtcp.RTPFB_TRANSPORT_CC:
                self._subscriber.feedback(packet.body[8:], now_s)
            elif (bps := rtcp.remb(packet)) is not None:
                self._subscriber.estimated(bps, now_s)
            elif packet.type == rtcp.RTCP_PSFB and packet.format in (rtcp.PSFB_PLI, rtcp.PSFB_FIR):
                self._counters["pli_received"] += 1
                self._keyframes(packet)

    def _reports(self, packet: rtcp.Rtcp, now_s: float) -> None:
        for block in rtcp.report_blocks(packet):
            self._subscriber.reported(block, now_s)
        if packet.type == rtcp.RTCP_SR and len(packet.body) >= 4:
            stream = self._publisher.by_ssrc.get(int.from_bytes(packet.body[:4], "big"))
            if stream is not None:
                stream.sender_report(packet)

    def _keyframes(self, packet: rtcp.Rtcp) -> None:
        asked = rtcp.fir_ssrcs(packet) if packet.format == rtcp.PSFB_FIR else [rtcp.feedback_media_ssrc(packet)]
        for ssrc in asked:
            if (found := self._subscriber.subscriptions.get(ssrc)) is not None and not found.paused(self._id):
                found.request_keyframe(self._id)
