"""The answer to a subscriber's NACK. Pure: the clock is an argument."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from sfu.media.streams.down_track import DownTrack
from sfu.media.streams.retransmission import ROUND_TRIP_S
from sfu.media.streams.send_history import SendHistory

NACKED = 256
"""Packets of one NACK that are looked at: the loss of a second of 2.5 Mbps."""

LOSSY, LOSSIER = 0.03, 0.3
"""Between these shares of loss, packets are sent again twice if the downlink is not limited: one of both may get lost,
and a third try comes too late. No path that carries a call loses more."""


def answer(
    down_track: DownTrack[Any], seqs: Iterable[int], history: SendHistory, counters: dict[str, int], now_s: float
) -> bool:
    """Sends packets again, the newest first, each once per round trip, and none of a layer that was left. Packets that
    are not resent use up the budget, too; past it the rest of the NACK is dropped. True if some can never be answered,
    since they are no longer remembered."""
    budget, forgotten = down_track.peer.rtx_budget, False
    if not budget.holds(now_s):
        counters["nack_over_budget"] += 1
        return False
    for seq16 in reversed(list(islice(seqs, NACKED))):  # browsers list them in ascending order
        if not budget.take(now_s):
            counters["nack_over_budget"] += 1
            break
        if down_track.left(seq16):
            counters["nack_left"] += 1
        elif (packet := down_track.find(seq16)) is None:
            counters["nack_missed"] += 1
            forgotten = forgotten or down_track.forgot(seq16)
        elif not _due(down_track, seq16, now_s):
            counters["nack_repeated"] += 1
        elif not _resend(down_track, packet, history, now_s):
            counters["nack_over_budget"] += 1
            break
        else:
            counters["nack_answered"] += 1
            down_track.answers.answered(seq16, now_s)
    return forgotten


def _due(down_track: DownTrack[Any], seq16: int, now_s: float) -> bool:
    measured_s = down_track.delivery.round_trip_s
    return down_track.answers.due(seq16, ROUND_TRIP_S if measured_s is None else measured_s, now_s)


def _resend(down_track: DownTrack[Any], packet: bytes, history: SendHistory, now_s: float) -> bool:
    """False if retransmissions have taken their share of the downlink. Sound may always be sent again."""
    lossy = LOSSY < (down_track.delivery.loss or 0.0) < LOSSIER
    if down_track.pacer is not None:
        return down_track.pacer.repeat(down_track, packet, now_s, twice=lossy and bool(down_track.rtx_ssrc))
    for _ in range(1 + lossy):
        down_track.peer.send_rtx(down_track.again(packet, history, now_s))
    return True
