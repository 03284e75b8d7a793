"""Call quality of a peer: figures of both directions, a score, and the likely cause. Pure: the clock is an argument,
and it runs every QUALITY_S, never per packet.

The score is the E-model's (ITU-T G.107): the rating R is IDEAL less the damage by delay and loss, and annex B maps it
to what people would say, 1 (bad) to 4.4. The individual damages also tell causes apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from sfu import bridge
from sfu.media.streams.counted import Counted

QUALITY_S = 2.0
IDEAL = 93.2
"""R of a call without delay or loss (G.107 table 3)."""
LOSS_ROBUSTNESS = 20.0
"""The percentage lost that does half the damage that loss can do (Bpl). G.113 has 16 to 25 for codecs that conceal."""
ENDS_S = 0.05
"""Delay that both ends add: an audio frame, encoder and decoder, the device's buffers."""
AMPLE_BPS = 2_000_000
"""Video bitrate from which a limit does no damage."""
LIMIT_DAMAGE = 10.0
"""Damage of each halving below AMPLE_BPS."""

WINDOW_S = 5.0
"""Losses count for about this long."""
FLOW_S = 5.0
"""A direction without packets for this long has no figures."""
ENOUGH = 50
"""Packets; losses among fewer, such as those of a silent microphone, tell nothing."""
FALL_S, RISE_S = 1.0, 15.0
"""The score falls fast, since people suffer at once, and rises slowly, since they wait to see whether it lasts."""

BLAME, FORGIVE = 15.0, 8.0
"""Damage from which a cause is told (3.8 % lost, 415 ms round trip), and below which it is over (1.8 %, 310 ms)."""
WORSE = 10.0
"""Another cause is told instead if it does this much more damage."""
CALM_S = 10.0
"""A cause is told for at least this long, and until it has been over for this long."""
MOST_UPLOADS = 8
"""Troubles of other peers' uplinks that are considered, the worst first."""

Kind = Literal["upload_loss", "download_loss", "download_limited", "delay"]
Unit = Literal["%", "bps", "ms"]
UNITS: dict[Kind, tuple[Unit, int]] = {
    "upload_loss": ("%", 0),
    "download_loss": ("%", 0),
    "download_limited": ("bps", -4),
    "delay": ("ms", -1),
}
"""Unit of each kind's value, and the digit to which it is rounded."""


NOTHING = Counted(0, 0, 0, 0, 0.0)


class Trouble(NamedTuple):
    """`value` is in the unit of UNITS; `peer` is the one whose network has the trouble."""

    kind: Kind
    peer: str
    damage: float
    value: float

    def described(self) -> bridge.Cause:
        unit, digits = UNITS[self.kind]
        return bridge.Cause(self.kind, self.peer, round(self.value, digits), unit)


# --- the E-model -----------------------------------------------------------------------------------------------------


def loss_damage(loss: float) -> float:
    """Damage by a fraction lost at random (G.107 equation 7-29, for a codec that costs nothing by itself)."""
    percent = 100 * loss
    return 95 * percent / (percent + LOSS_ROBUSTNESS)


def delay_damage(delay_s: float) -> float:
    """Damage by mouth-to-ear delay: G.107's Idd as approximated by Cole and Rosenbluth (2001), with a bend at 177
    ms."""
    delay_ms = 1e3 * delay_s
    return 0.024 * delay_ms + 0.11 * max(0.0, delay_ms - 177.3)


def limit_damage(bitrate_bps: float) -> float:
    """Damage of getting no more video than this while more is wanted; not from the E-model, which is about audio."""
    return LIMIT_DAMAGE * math.log2(max(1.0, AMPLE_BPS / max(bitrate_bps, 20_000.0)))


def score(rating: float) -> float:
    """What people would say, 1 to 4.5 (G.107 annex B); the formula dips below 1 where nobody can talk any more."""
    r = min(100.0, max(0.0, rating))
    return max(1.0, 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6)


# --- one peer --------------------------------------------------------------------------------------------------------


class Way:
    """One direction of a peer. `loss` is the fraction lost over about the last WINDOW_S."""

    __slots__ = ("_at_s", "_before", "_expected", "_flowed_s", "_lost", "bitrate_bps", "jitter_s", "n_bytes")

    def __init__(self) -> None:
        self._before: dict[int, Counted] = {}
        self._expected = self._lost = 0.0
        self._at_s: float | None = None
        self._flowed_s = -math.inf
        self.n_bytes = 0  # since it began
        self.bitrate_bps = self.jitter_s = 0.0

    @property
    def flows(self) -> bool:
        return self._at_s is not None and self._at_s - self._flowed_s < FLOW_S

    @property
    def loss(self) -> float:
        return min(1.0, self._lost / self._expected) if self._expected >= 1 else 0.0

    @property
    def damage(self) -> float:
        """Damage by loss."""
        return loss_damage(self.loss) if self.flows and self._expected >= ENOUGH else 0.0

    def update(self, streams: Iterable[Counted], now_s: float) -> list[float]:
        """Takes the counters of the direction's streams; one that is no longer there is forgotten. Returns the
        round-trip times reported since the last call."""
        before, self._before = self._before, {}
        expected = lost = n_bytes = 0
        jitters, round_trips = [], []
        for stream in streams:
            self._before[stream.key] = stream
            old = before.get(stream.key, NOTHING)
            n_bytes += stream.n_bytes - old.n_bytes
            expected += stream.expected - old.expected
            lost += stream.lost - old.lost
            if stream.expected > old.expected:
                jitters.append(stream.jitter_s)
                if stream.round_trip_s is not None:
                    round_trips.append(stream.round_trip_s)
        passed_s = QUALITY_S if self._at_s is None else max(1e-3, now_s - self._at_s)
        kept = math.exp(-passed_s / WINDOW_S)
        self._expected = self._expected * kept + max(0, expected)
        self._lost = max(0.0, self._lost * kept + lost)
        if n_bytes > 0:
            self._flowed_s = now_s
        self.n_bytes += max(0, n_bytes)
        self.bitrate_bps = max(0, n_bytes) * 8 / passed_s
        if jitters:
            self.jitter_s = min(jitters)  # the least: large pictures take time that is not the network's
        self._at_s = now_s
        return round_trips


class Quality:
    """One peer's quality: `up` is from it to the server, `down` from the server to it. `rating` is smoothed, None while
    nothing flows."""

    __slots__ = ("_at_s", "down", "limit_bps", "rating", "round_trip_s", "telling", "up")

    def __init__(self) -> None:
        self.up, self.down = Way(), Way()
        self.limit_bps: float | None = None
        self.round_trip_s: float | None = None
        self.rating: float | None = None
        self.telling = Telling()
        self._at_s = 0.0

    def described(self, way: Way) -> bridge.Direction | None:
        """The figures of one direction; None while nothing flows there."""
        if not way.flows:
            return None
        round_trip_ms = None if self.round_trip_s is None else round(1e3 * self.round_trip_s, 1)
        return bridge.Direction(round(way.loss, 4), round(1e3 * way.jitter_s, 1), round_trip_ms, round(way.bitrate_bps))

    @property
    def score(self) -> float | None:
        return None if self.rating is None else round(score(self.rating), 1)

    def update(
        self, up: Iterable[Counted], down: Iterable[Counted], now_s: float, limit_bps: float | None = None
    ) -> None:
        """Takes the counters of both directions; round trips come from subscribers' reports. `limit_bps` is what the
        downlink allows for video, if that is less than is wanted."""
        self.limit_bps = limit_bps
        self.up.update(up, now_s)
        round_trips = self.down.update(down, now_s)
        if round_trips:
            self.round_trip_s = sum(round_trips) / len(round_trips)
        ways = [way for way in (self.up, self.down) if way.flows]
        if not ways:
            self.rating = None
        else:
            rating = min(IDEAL - way.damage - delay_damage(self._delay_s(way) + ENDS_S) for way in ways)
            self._smooth(rating - self._limit_damage, now_s)
        self._at_s = now_s

    def _smooth(self, rating: float, now_s: float) -> None:
        if self.rating is None:
            self.rating = rating
        else:
            slow_s = FALL_S if rating < self.rating else RISE_S
            self.rating += (rating - self.rating) * (1 - math.exp(-max(0.0, now_s - self._at_s) / slow_s))

    @property
    def _limit_damage(self) -> float:
        return 0.0 if self.limit_bps is None else limit_damage(self.limit_bps)

    def _delay_s(self, way: Way) -> float:
        """One-way delay of audio: half the round trip, and the buffer that jitter requires."""
        return (self.round_trip_s or 0.0) / 2 + 2 * way.jitter_s

    def upload_troubles(self, peer: str) -> Iterator[Trouble]:
        """The troubles of this peer's uplink, from which its subscribers suffer too."""
        if self.up.flows:
            yield Trouble("upload_loss", peer, self.up.damage, 100 * self.up.loss)
            delay_s = self._delay_s(self.up)
            yield Trouble("delay", peer, delay_damage(delay_s + ENDS_S), 1e3 * delay_s)

    def blame(self, peer: str, uploads: Iterable[Trouble], now_s: float) -> None:
        """Chooses the cause that this peer is told: its own network, or another peer's uplink."""
        own = list(self.troubles(peer))
        self.telling.update(own + [trouble for trouble in uploads if trouble.peer != peer], now_s)

    def troubles(self, peer: str) -> Iterator[Trouble]:
        """What is wrong with this peer's own network."""
        yield from self.upload_troubles(peer)
        if self.down.flows:
            yield Trouble("download_loss", peer, self.down.damage, 100 * self.down.loss)
            if self.limit_bps is not None and self.down.damage < FORGIVE:  # otherwise loss explains the limit
                yield Trouble("download_limited", peer, self._limit_damage, self.limit_bps)
            delay_s = self._delay_s(self.down)
            yield Trouble("delay", peer, delay_damage(delay_s + ENDS_S), 1e3 * delay_s)


# --- causes ----------------------------------------------------------------------------------------------------------


class Telling:
    """The one cause that a peer is told, if any. It does not flap: see BLAME, FORGIVE, WORSE and CALM_S."""

    __slots__ = ("_bad_s", "_since_s", "cause")

    def __init__(self) -> None:
        self.cause: Trouble | None = None
        self._since_s = self._bad_s = 0.0

    def update(self, troubles: Iterable[Trouble], now_s: float) -> Trouble | None:
        """Takes everything that is wrong now; returns the cause to tell."""
        found: dict[tuple[str, str], Trouble] = {}
        for trouble in troubles:
            key = trouble.kind, trouble.peer
            if key not in found or trouble.damage > found[key].damage:
                found[key] = trouble
        worst = max(found.values(), key=lambda trouble: trouble.damage, default=None)
        told = self.cause
        if told is not None:
            now = found.get((told.kind, told.peer)) or told._replace(damage=0.0, value=0.0)
            if now.damage >= FORGIVE:
                self._bad_s, self.cause = now_s, now
            if now_s - max(self._bad_s, self._since_s) >= CALM_S:
                self.cause = None
            elif worst is None or worst.damage < now.damage + WORSE or now_s - self._since_s < CALM_S:
                return self.cause
        if worst is not None and worst.damage >= BLAME:
            self.cause, self._since_s, self._bad_s = worst, now_s, now_s
        return self.cause


def uploads(peers: dict[str, Quality]) -> list[Trouble]:
    """What is wrong with the uplinks of a room's peers, the worst first."""
    found = (t for peer, quality in peers.items() for t in quality.upload_troubles(peer) if t.damage >= FORGIVE)
    return sorted(found, key=lambda trouble: -trouble.damage)[: MOST_UPLOADS + 1]
