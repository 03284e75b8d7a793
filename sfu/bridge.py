"""The channel between the control plane (trio) and a media worker (asyncio), and its message types.

One Unix socket pair a worker, one JSON object a line, one-way messages: commands down, events up. anyio runs on both
loops, so both ends share this file and nothing else. A peer is named by its id, a room by its key; the worker holds no
names of people and the control plane no SSRCs.
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import anyio
from anyio.abc import UNIXSocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

LINE_BYTES = 16 << 20
"""Longest message; an offer or answer of a room of 100 is well under it. A longer one means a broken peer process."""

WRITE_BYTES = 64 << 10
"""Messages that wait for each other to be written together are no more than this."""

Kind = Literal["audio", "video"]

# --- commands: control plane to worker -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Configure:
    """First command: where to listen and what to advertise. The worker answers Ready or exits.

    `hosts` are the local addresses to bind one UDP socket each to; empty means every address of every interface.
    `advertise` replaces the bound addresses in candidates; empty means what is bound. `last_n` is how many videos a
    peer gets at most, 0 for all. `limits`: what a peer may send is bounded. Where workers share the port, `handovers`
    are the files of the Unix datagram sockets between worker 0 and the others: worker 0's to each, or another's to
    worker 0. `joins`: others of them may have the port already.
    """

    port: int
    hosts: list[str]
    advertise: list[str]
    max_tracks: int
    last_n: int
    answer_s: float
    ice_s: float
    dtls_s: float
    limits: bool
    index: int = 0
    handovers: list[int] = field(default_factory=list)
    joins: bool = False


@dataclass(frozen=True, slots=True)
class Join:
    """A peer enters a room; an Offer event follows. `full`: the client speaks sfu.v1."""

    peer: str
    room: str
    full: bool
    publish: bool
    subscribe: bool


@dataclass(frozen=True, slots=True)
class Answer:
    peer: str
    sdp: str


@dataclass(frozen=True, slots=True)
class Publish:
    peer: str
    source: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Unpublish:
    peer: str
    source: str


@dataclass(frozen=True, slots=True)
class Mute:
    peer: str
    source: str
    muted: bool


@dataclass(frozen=True, slots=True)
class RestartIce:
    """An Offer with new ICE credentials is to follow (RFC 8445 section 9)."""

    peer: str


@dataclass(frozen=True, slots=True)
class Hold:
    """The peer's WebSocket is away (`held`), so it can answer no offer; or it has another one, to which everything is
    told again that the last one may not have brought: the offer in flight, and what is paused."""

    peer: str
    held: bool


@dataclass(frozen=True, slots=True)
class View:
    """What the peer's page shows: [publishing peer, source, height in device pixels] of each video. Others are not
    sent to it."""

    peer: str
    videos: list[list[Any]]


@dataclass(frozen=True, slots=True)
class Leave:
    """The peer is gone; no event about it follows. Unknown peers are ignored."""

    peer: str


Command = Configure | Join | Answer | Publish | Unpublish | Mute | View | RestartIce | Hold | Leave

# --- events: worker to control plane ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker listens on UDP `port` at `addresses`, and advertises `advertised`."""

    port: int
    addresses: list[str]
    advertised: list[str]


@dataclass(frozen=True, slots=True)
class Fatal:
    """The worker cannot start and exits; `message` names what to change."""

    message: str


@dataclass(frozen=True, slots=True)
class Offer:
    """`send`: mid → source the peer may send there. `receive`: mid → [publishing peer, source]."""

    peer: str
    sdp: str
    send: dict[str, str]
    receive: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An address the worker listens on since the last offer."""

    peer: str
    candidate: str
    mid: str


@dataclass(frozen=True, slots=True)
class Connected:
    """DTLS is up; `address` is where the peer's media comes from."""

    peer: str
    address: str


@dataclass(frozen=True, slots=True)
class Track:
    """The peer's answer says that it sends this source, and a packet of it came."""

    peer: str
    source: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class TrackEnded:
    peer: str
    source: str


@dataclass(frozen=True, slots=True)
class Paused:
    """The peer is not forwarded somebody's video from now on, for a reason; an empty one: it is again."""

    peer: str
    publisher: str
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Layers:
    """The rids of a simulcast that anybody wants, of those the peer can send from this source."""

    peer: str
    source: str
    active: list[str]


@dataclass(frozen=True, slots=True)
class Speakers:
    """Who speaks in a room has changed; peers that left are dropped without it. `dominant` may be in a pause."""

    room: str
    dominant: str | None
    speaking: list[str]


@dataclass(frozen=True, slots=True)
class Quality:
    """How a peer's call goes, every few seconds. `up` and `down` have the members of server_messages.Direction, `cause`
    those of server_messages.Cause; the bytes are those since the peer came."""

    peer: str
    score: float | None
    up: dict[str, Any] | None
    down: dict[str, Any] | None
    cause: dict[str, Any] | None
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The peer's last command was refused with an error code; the peer goes on."""

    peer: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The peer's media is over; the control plane is to end it (and send Leave)."""

    peer: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Stats:
    """Once a second, for /metrics: counters since start and what is true now, by name. Its absence means the worker
    hangs."""

    counters: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)


Event = (
    Ready | Fatal | Offer | Candidate | Connected | Track | TrackEnded | Paused | Layers | Speakers | Quality | Refused
    | Failed | Stats
)  # fmt: skip

COMMANDS: dict[str, type] = {cls.__name__: cls for cls in get_args(Command)}
EVENTS: dict[str, type] = {cls.__name__: cls for cls in get_args(Event)}

_NAMES = {cls: tuple(f.name for f in fields(cls)) for cls in (*COMMANDS.values(), *EVENTS.values())}
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class Channel:
    """One end of a bridge. Both planes are ours, so a message that does not decode is a bug and raises."""

    def __init__(self, stream: UNIXSocketStream, incoming: dict[str, type]) -> None:
        self._stream = stream
        self._lines = BufferedByteReceiveStream(stream)
        self._incoming = incoming
        self._unsent = bytearray()

    @classmethod
    async def open(cls, sock: socket.socket, incoming: dict[str, type]) -> Channel:
        """Takes ownership of a connected Unix socket. `incoming` is EVENTS in the control plane, COMMANDS in a
        worker."""
        return cls(await UNIXSocketStream.from_socket(sock), incoming)

    async def send(self, message: Command | Event, *, more: bool = False) -> None:
        """`more`: another one follows at once, with which this one may be written, as every write wakes the other end.

        One task at a time. Raises anyio.BrokenResourceError or ClosedResourceError when the other end is gone.
        """
        cls = type(message)
        body = {name: getattr(message, name) for name in _NAMES[cls]}
        self._unsent += f"{_to_json([cls.__name__, body])}\n".encode()
        if not more or len(self._unsent) >= WRITE_BYTES:
            unsent = bytes(self._unsent)
            self._unsent.clear()
            await self._stream.send(unsent)

    async def receive(self) -> AsyncIterator[Any]:
        """Messages until the other end closes."""
        while True:
            try:
                line = await self._lines.receive_until(b"\n", LINE_BYTES)
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return
            what, body = json.loads(line.decode())
            cls = self._incoming[what]
            yield cls(*[body[name] for name in _NAMES[cls]])

    async def aclose(self) -> None:
        await self._stream.aclose()
