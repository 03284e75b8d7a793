"""The m-lines of a peer's session (RFC 8829), in order, and the current use of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sfu.media.peer.publication import Publication


@dataclass(slots=True, eq=False)
class Transceiver:
    """One m-line of a peer. A receiving transceiver belongs to a source, a sending one to a track, in turn to several.

    `settled` is false from the moment a transceiver loses its use until an answer has seen it inactive. Only then may
    it be reused, so that a browser never takes a new track for the old one.
    """

    kind: Literal["audio", "video"]
    receives: bool
    source: str | None = None
    track: Publication | None = None
    accepted: bool = False
    settled: bool = True
    rtx_ssrc: int = 0  # of what is sent again in it
    repairs: bool = False  # the client takes that
