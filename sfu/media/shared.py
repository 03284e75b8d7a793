"""What all peers of a worker share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sfu import bridge
from sfu.media.dtls import Certificate
from sfu.media.fanout import Outbox
from sfu.media.inbound import Inbound
from sfu.media.srtp import Packet
from sfu.media.udp import UdpPort


@dataclass(slots=True)
class Shared:
    """One a worker."""

    config: bridge.Configure
    udp: UdpPort[Inbound]
    certificate: Certificate
    emit: Callable[[bridge.Event], None]
    counters: dict[str, int]
    outbox: Outbox
    candidates: list[str]
    out: Packet = field(default_factory=Packet)  # filled, encrypted and sent without a pause between
