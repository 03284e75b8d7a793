"""Active speakers of a room, from audio levels in RTP header extensions (RFC 6464). Pure: the clock is an argument.

Levels are in dBov: 0 is the loudest there is, -127 silence. They are smoothed, up quickly and down slowly, so that
neither a click nor the pause between two words counts. One peer is dominant: it stays so through its own pauses and
after everybody fell silent, until another one speaks instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

LISTEN_S = 0.1
"""How often `update` is meant to be called. A new speaker is known after one or two calls."""
FLOOR_DBOV = -90.0
ON_DBOV, OFF_DBOV = -45.0, -52.0
"""Speech after a browser's gain control is at -35 to -15, a quiet room below -60."""
RISE_S, FALL_S = 0.06, 0.4
"""Time constants of smoothing."""
HOLD_S = 0.7
"""A pause of this length between words is still speech."""
MARGIN_DB, LEAD_S = 6.0, 0.9
"""While the dominant speaker talks, another one takes over by being this much louder for this long."""


@dataclass(frozen=True, slots=True)
class Speaking:
    """Who speaks at one moment, as peer ids. `speaking` is in the order in which they began. `dominant` may be in a
    pause."""

    dominant: str | None = None
    speaking: tuple[str, ...] = ()


@dataclass(slots=True)
class _Voice:
    level: float = FLOOR_DBOV
    loud_s: float = -math.inf  # when it was last above OFF_DBOV


class Speakers:
    """The voices of one room."""

    def __init__(self) -> None:
        self.now = Speaking()
        self._voices: dict[str, _Voice] = {}
        self._spoke: list[str] = []  # peers that fell silent, the last one first
        self._challenger: str | None = None
        self._since_s = self._updated_s = -math.inf

    @property
    def ranking(self) -> list[str]:
        """All peers here that ever spoke: the dominant one, those who speak, then those who fell silent, the last one
        first."""
        first = [] if self.now.dominant is None else [self.now.dominant]
        return list(dict.fromkeys([*first, *self.now.speaking, *self._spoke]))

    @property
    def audible(self) -> bool:
        """Whether anybody sends levels, so that it matters when `update` is called."""
        return bool(self._voices)

    def update(self, levels: Mapping[str, float], now_s: float) -> Speaking | None:
        """Takes each peer's mean level since the last call; a missing peer sent nothing. Returns `now` if it
        changed."""
        passed_s = max(0.0, min(now_s - self._updated_s, 1.0))
        self._updated_s = now_s
        if not (levels or self._voices or self.now.speaking or self.now.dominant):
            return None
        rise, fall = 1 - math.exp(-passed_s / RISE_S), 1 - math.exp(-passed_s / FALL_S)
        for peer in levels:
            self._voices.setdefault(peer, _Voice())
        spoke = dict.fromkeys(self.now.speaking)
        began = []
        for peer, voice in self._voices.items():
            level = max(FLOOR_DBOV, levels.get(peer, FLOOR_DBOV))
            voice.level += (level - voice.level) * (rise if level > voice.level else fall)
            if voice.level >= OFF_DBOV:
                voice.loud_s = now_s
            if voice.level >= ON_DBOV and peer not in spoke:
                began.append(peer)
        speaking = [peer for peer in spoke if peer in self._voices and now_s - self._voices[peer].loud_s <= HOLD_S]
        silenced = [peer for peer in spoke if peer not in speaking]
        speaking += began
        self._spoke = silenced + [peer for peer in self._spoke if peer not in silenced]
        before, self.now = self.now, Speaking(self._dominant(speaking, now_s), tuple(speaking))
        return self.now if self.now != before else None

    def mute(self, peer: str) -> None:
        """The peer's levels so far no longer count: the next `update` reports it silent."""
        self._voices.pop(peer, None)

    def leave(self, peer: str) -> None:
        """Removes a peer that left, also from `now`. `update` does not report that, since everybody knows."""
        self.mute(peer)
        dominant = None if self.now.dominant == peer else self.now.dominant
        self.now = Speaking(dominant, tuple(other for other in self.now.speaking if other != peer))
        self._spoke = [other for other in self._spoke if other != peer]

    def _dominant(self, speaking: list[str], now_s: float) -> str | None:
        holder = self.now.dominant if self.now.dominant in self._voices else None
        loudest = max(speaking, key=lambda peer: self._voices[peer].level, default=holder)
        if holder not in speaking or loudest is None:
            return loudest
        held, level = self._voices[holder].level, self._voices[loudest].level
        if level < held + MARGIN_DB:
            self._challenger = None
            return holder
        if self._challenger != loudest:
            self._challenger, self._since_s = loudest, now_s
        if held >= OFF_DBOV and now_s - self._since_s < LEAD_S:
            return holder
        self._challenger = None
        return loudest
