"""What both directions of the signalling protocol share. Pure.

A frame is `{"event": …, "data": …}`; client_messages.py has the client's events, server_messages.py the server's.
`offer`, `answer` and `candidate` carry `data` as a JSON *string*, as pion's sfu-ws example does; every other event
carries an object. `docs/protocol.md` is the same table for people, and a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SUBPROTOCOL = "sfu.v1"
"""A client that opens the WebSocket with this subprotocol gets every event; others only those in BARE_EVENTS."""
BATCH = "batch"
"""A further value: the client takes the event `arrivals`, several people in one message."""

BARE_EVENTS = frozenset({"offer", "answer", "candidate"})
"""What pion's sfu-ws clients know. Their `data` is a JSON string."""

Kind = Literal["audio", "video"]

MICROPHONE, CAMERA = "microphone", "camera"
"""The sources of the two sections of the first offer; more are asked for with `publish`."""
SCREEN, SCREEN_AUDIO = "screen", "screen-audio"
"""What a shared screen is published as, with its sound."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An ICE candidate, either way (RFC 8838). The server is ICE-lite: it never probes what a client sends."""

    candidate: str
    sdpMid: str | None = None
    sdpMLineIndex: int | None = None
