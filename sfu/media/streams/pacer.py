"""Paced sending to a peer whose downlink is limited: its video waits here and leaves a little faster than the downlink
carries it, so that a large picture does not overflow the queue of a router on the way.

A queue of this server costs nothing, and its packets can still be taken back. Sound does not wait; nor does anything to
peers that are not limited, which this module never sees (fanout.py). The rates are those of libwebrtc's pacing
controller, but slower while little waits: where the link is the bottleneck, to send faster only fills its queue.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from sfu.media.rtp import codecs
from sfu.media.streams.down_track import DownTrack
from sfu.media.streams.retransmission import RetransmissionBudget
from sfu.media.streams.send_history import SendHistory
from sfu.media.transport.transport import Transport

LEAST_PACE, MOST_PACE = 1.25, 2.5
"""Bitrate at which packets leave, as a multiple of the downlink's."""
DRAIN_S = 0.2
"""How long what waits should take to leave, within these limits."""
TICK_S = 0.005
LATE_S = 0.02
"""A timer that is late by up to this is made up for."""
QUEUE_S = 0.5
"""How long a picture may have to wait. Past this, pictures are left out until a keyframe."""
CROWDED_S = 0.25
"""Past this, pictures that no others refer to are left out."""
QUEUE_BYTES = 500_000
"""What may wait in any case: more than the keyframes of a screen full of videos."""
LEAST_BPS = 50_000.0
"""Below this an estimate says no more than that hardly anything arrives."""
PROBE_BACK = 8
"""How many of the newest packets of each down track are repeated in turn by a probe."""
PROBE_BYTES = 200
"""Smaller packets are not worth repeating; padding fills a packet with more."""
PROBE_RENEW_S = 0.1
PADDING_BYTES = 255
"""The most that RFC 3550 section 5.1 can express."""

_sent_bytes = attrgetter("sent_bytes")


class Waiting(Protocol):
    """What takes a packet when its time has come (paced.py)."""

    down_track: DownTrack[Any]

    def send(self, number: int, packet: bytearray, now_s: float) -> None: ...


class Entry(NamedTuple):
    """A packet under a subscriber's own number. `late`: others overtook it."""

    source: Waiting
    number: int
    packet: bytearray
    late: bool


class Repeat(NamedTuple):
    """A packet to be sent once more."""

    down_track: DownTrack[Any]
    packet: bytes


class PacedQueue:
    """What waits for one peer, retransmissions first, and when the next packet may leave. Pure."""

    __slots__ = ("_at_s", "_debt", "_entries", "_most", "_repeats", "_waited", "n_bytes", "rate_bps")

    def __init__(self) -> None:
        self._entries, self._repeats = deque[Entry](), deque[Repeat]()
        self.n_bytes = self._most = 0  # waiting bytes, and the most since nothing waited
        self.rate_bps = LEAST_BPS  # of the downlink
        self._debt, self._at_s = 0.0, 0.0  # bytes sent ahead of the pace, at a time
        self._waited = False  # whether anything waited since then

    def __bool__(self) -> bool:
        return bool(self._entries or self._repeats)

    @property
    def delay_s(self) -> float:
        """How long the last packet will wait at most, if nothing more comes."""
        return self.n_bytes * 8 / (self.rate_bps * MOST_PACE)

    @property
    def pace_bps(self) -> float:
        """All that waits together leaves at one pace."""
        wanted = self._most * 8 / DRAIN_S
        return min(max(wanted, self.rate_bps * LEAST_PACE), self.rate_bps * MOST_PACE)

    def put(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._add(len(entry.packet))

    def repeat(self, repeat: Repeat) -> None:
        self._repeats.append(repeat)
        self._add(len(repeat.packet))

    def _add(self, n_bytes: int) -> None:
        self.n_bytes += n_bytes
        self._most = max(self._most, self.n_bytes)

    def take(self, now_s: float) -> Entry | Repeat | None:
        """The next packet, if it may leave now."""
        per_s = self.pace_bps / 8
        # time in which nothing waited is no reason to send faster afterwards
        self._debt = max(self._debt - (now_s - self._at_s) * per_s, -LATE_S * per_s if self._waited else 0.0)
        self._at_s = now_s
        if not self or self._debt > TICK_S * per_s:
            return None
        packet = self._repeats.popleft() if self._repeats else self._entries.popleft()
        size = len(packet.packet)
        self.n_bytes -= size
        self._debt += size
        self._waited = bool(self)
        if not self._waited:
            self._most = 0
        return packet

    def drop(self, down_track: DownTrack[Any]) -> list[Entry]:
        """Takes back what waits for a down track; its retransmissions, too."""
        dropped = [entry for entry in self._entries if entry.source.down_track is down_track]
        self._entries = deque(entry for entry in self._entries if entry.source.down_track is not down_track)
        self._repeats = deque(repeat for repeat in self._repeats if repeat.down_track is not down_track)
        self.n_bytes = sum(len(entry.packet) for entry in self._entries) + sum(len(r.packet) for r in self._repeats)
        self._most = self.n_bytes
        return dropped


class Pacer:
    """One per subscribing peer, whose timer runs only while something waits or is probed. `down_tracks` are those of
    its videos."""

    __slots__ = (
        "_budget", "_clock", "_counters", "_down_tracks", "_peer", "_probe", "_probe_bps", "_probe_due", "_probed",
        "_probed_s", "_queue", "_rate_bps", "_renewed_s", "_timer", "history",
    )  # fmt: skip

    def __init__(
        self,
        peer: Transport,
        history: SendHistory,
        down_tracks: Callable[[], Sequence[DownTrack[Any]]],
        counters: dict[str, int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._peer, self._down_tracks, self._counters = peer, down_tracks, counters
        self._clock = clock  # that of the packets that arrive: the loop's counts whole milliseconds
        self.history = history
        self._rate_bps = self._probe_bps = 0.0
        self._queue: PacedQueue | None = None  # until the downlink is limited for the first time
        self._budget = RetransmissionBudget()
        self._timer: asyncio.TimerHandle | None = None
        self._probe: list[tuple[DownTrack[Any], bytes]] = []  # packets to repeat
        self._probed, self._probed_s, self._probe_due, self._renewed_s = 0, 0.0, 0.0, 0.0

    # --- what the downlink carries ------------------------------------------------------------------------------------

    @property
    def rate_bps(self) -> float:
        """What the downlink carries; 0 if it is not limited."""
        return self._rate_bps

    @rate_bps.setter
    def rate_bps(self, bps: float) -> None:
        changed, self._rate_bps = bool(bps) != bool(self._rate_bps), bps
        if bps:
            self.queue.rate_bps = max(bps, LEAST_BPS)
        if changed:
            for down_track in self._down_tracks():
                down_track.stream.down_tracks_changed()

    @property
    def probe_bps(self) -> float:
        """Bitrate to send in addition, to learn whether the downlink carries it."""
        return self._probe_bps

    @probe_bps.setter
    def probe_bps(self, bps: float) -> None:
        if bps and not self._probe_bps:
            self._probed_s, self._probe_due, self._renewed_s = 0.0, 0.0, 0.0
        self._probe_bps = bps
        if bps:
            self._arm()
        else:
            self._probe = []

    @property
    def queue(self) -> PacedQueue:
        if self._queue is None:
            self._queue = PacedQueue()
        return self._queue

    @property
    def crowded(self) -> bool:
        """Whether to leave out pictures that no others refer to."""
        return bool(self._rate_bps) and self.queue.delay_s > CROWDED_S

    def is_full(self, *, keyframe: bool) -> bool:
        """Whether the next picture must be left out. A keyframe fits if the queue takes bytes at all: without it,
        everything after it would have to wait, too."""
        queue = self.queue
        late = bool(self._rate_bps) and queue.delay_s > QUEUE_S
        return queue.n_bytes > QUEUE_BYTES or (late and not keyframe)

    # --- packets ------------------------------------------------------------------------------------------------------

    def put(self, entry: Entry, now_s: float) -> None:
        """A packet is to leave as soon as the pace allows. Once the downlink is not limited any more, that is at once,
        except behind what still waits."""
        if not self._rate_bps and not self._queue:
            entry.source.send(entry.number, entry.packet, now_s)
            return
        self.queue.put(entry)
        self.send(now_s)

    def repeat(self, down_track: DownTrack[Any], packet: bytes, now_s: float, *, twice: bool = False) -> bool:
        """A packet is to leave once more, before others; `twice` if the downlink is not limited. False if
        retransmissions have taken their share, of which the second copy takes nothing."""
        sent_bytes = 0 if self._rate_bps else sum(map(_sent_bytes, self._down_tracks()))
        if not self._budget.take(len(packet), self._rate_bps, sent_bytes, now_s):
            return False
        if not self._rate_bps:
            for _ in range(1 + twice):
                self._again(down_track, packet, now_s)
            return True
        self.queue.repeat(Repeat(down_track, packet))
        self.send(now_s)
        return True

    def drop(self, down_track: DownTrack[Any]) -> list[Entry]:
        """Takes back what waits for a down track."""
        return self._queue.drop(down_track) if self._queue else []

    def send(self, now_s: float) -> None:
        """Sends what may leave now; the rest follows."""
        queue = self.queue
        while (packet := queue.take(now_s)) is not None:
            if isinstance(packet, Entry):
                packet.source.send(packet.number, packet.packet, now_s)
            else:
                self._again(packet.down_track, packet.packet, now_s)
        if queue:
            self._arm()

    def _again(self, down_track: DownTrack[Any], packet: bytes, now_s: float) -> None:
        self._peer.send_rtx(down_track.again(packet, self.history, now_s))

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._peer.ready() is None:  # gone: nothing that waits will be asked for
            self.close()
            return
        now_s = self._clock()
        if self._queue:
            self.send(now_s)
        if self._probe_bps:
            self._send_probe(now_s)
            self._arm()

    def close(self) -> None:
        """Nothing is sent any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._queue, self._probe, self._probe_bps = None, None, [], 0.0

    # --- probes -------------------------------------------------------------------------------------------------------

    def _send_probe(self, now_s: float) -> None:
        """Sends what is due of the probe since the last call: packets that were sent before, or else padding."""
        if self._probed_s:
            self._probe_due += min(now_s - self._probed_s, LATE_S) * self._probe_bps / 8
        self._probed_s = now_s
        if now_s - self._renewed_s > PROBE_RENEW_S:
            self._probe, self._renewed_s = self._repeatable(), now_s
        while self._probe_due > 0:
            if self._probe:
                self._probed += 1
                down_track, packet = self._probe[self._probed % len(self._probe)]
                data = down_track.again(packet, self.history, now_s)
            else:
                padded = next((down_track for down_track in self._down_tracks() if down_track.rtx_ssrc), None)
                if padded is None:
                    return
                data = padded.padding(PADDING_BYTES, self.history, now_s)
            self._peer.send_rtx(data)
            self._counters["packets_probe"] += 1
            self._probe_due -= len(data)

    def _repeatable(self) -> list[tuple[DownTrack[Any], bytes]]:
        return [
            (down_track, packet)
            for down_track in self._down_tracks()
            if down_track.rtx_ssrc
            for back in range(PROBE_BACK)
            if (packet := down_track.lately(back)) is not None
            and len(packet) > PROBE_BYTES
            and packet[1] & 0x7F in codecs.CODEC_RTX
        ]
