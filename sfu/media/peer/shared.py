"""Objects that all peers of a worker share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sfu import bridge
from sfu.media.streams.fanout import SendBuffers
from sfu.media.streams.ingress import RtpDemuxer
from sfu.media.transport.demux import UdpPort
from sfu.media.transport.dtls import Certificate
from sfu.media.transport.srtp import Packet


@dataclass(slots=True)
class Shared:
    """One per worker."""

    config: bridge.Configure
    udp: UdpPort[RtpDemuxer]
    certificate: Certificate
    emit: Callable[[bridge.Event], None]
    counters: dict[str, int]
    send_buffers: SendBuffers
    listen: bridge.Listen
    candidates: list[str]
    out: Packet = field(default_factory=Packet)  # scratch; filled, encrypted and sent without awaiting

    @property
    def advertised(self) -> tuple[str, ...]:
        """The addresses in the candidates, all with the port `udp.port`."""
        bound, wanted = self.udp.endpoints, self.listen
        told = tuple(one for one in wanted.advertise if one in bound or one not in wanted.hosts)
        return told or tuple(bound)
