"""The channel between the control plane (trio) and a media worker (asyncio), and its message types.

One Unix socket pair a worker, one JSON object a line, one-way messages: commands down, events up. anyio runs on both
loops, so both ends share this file and nothing else. A peer is named by its id, a room by its key; the worker holds no
names of people and the control plane no SSRCs.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Generic, Literal, NamedTuple, TypeVar

import anyio
import msgspec
from anyio.abc import UNIXSocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

LINE_BYTES = 16 << 20
"""Longest message; an offer or answer of a room of 100 is well under it. A longer one means a broken peer process."""

WRITE_BYTES = 64 << 10
"""Messages that wait for each other to be written together are no more than this."""

Kind = Literal["audio", "video"]


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """On the wire, a JSON array of the class's name and its fields in order."""


# --- commands: control plane to worker -------------------------------------------------------------------------------


class Configure(Message, frozen=True):
    """First command: where to listen and what to advertise. The worker answers Ready or exits.

    `hosts` and `advertise` are those of a first Listen. `last_n` is how many videos a peer gets at most, 0 for all.
    `limits`: what a peer may send is bounded. Where workers share the port, `handovers` are the files of the Unix
    datagram sockets between worker 0 and the others: worker 0's to each, or another's to worker 0. `joins`: others of
    them may have the port already. `connections` is the file of a Unix datagram socket that brings media connections,
    -1 for none; `tcp_port` is in the candidates for these, 0 for none.
    """

    port: int
    hosts: tuple[str, ...]
    advertise: tuple[str, ...]
    max_tracks: int
    last_n: int
    answer_s: float
    ice_s: float
    dtls_s: float
    limits: bool
    index: int = 0
    handovers: tuple[int, ...] = ()
    joins: bool = False
    connections: int = -1
    tcp_port: int = 0


class Listen(Message, frozen=True):
    """Where to listen and what to advertise from now on; Ready follows if that is a change.

    `hosts` are the local addresses to bind one UDP socket each to. One that is not ready yet (IPv6 first looks for
    duplicates) is left for the next Listen. `advertise` are the addresses in candidates, the preferred ones first; a
    local one counts only once it is bound. Empty means what is bound.
    """

    hosts: tuple[str, ...]
    advertise: tuple[str, ...]


class AskMapping(Message, frozen=True):
    """Ask these STUN servers (address and port), by UDP, from which address the media of each of `hosts` comes. A
    Mapping follows for each host and server of the same family."""

    hosts: tuple[str, ...]
    servers: tuple[tuple[str, int], ...]


class Join(Message, frozen=True):
    """A peer enters a room; an Offer event follows. `full`: the client speaks sfu.v1."""

    peer: str
    room: str
    full: bool
    publish: bool
    subscribe: bool


class Permit(Message, frozen=True):
    """What the peer may do from now on. What it may not send any more ends at once, and what it may not receive."""

    peer: str
    publish: bool
    subscribe: bool


class Spotlight(Message, frozen=True):
    """The video of this peer comes first for everybody in its room from now on, or (`on` is false) that of nobody."""

    peer: str
    on: bool


class Answer(Message, frozen=True):
    peer: str
    sdp: str


class Publish(Message, frozen=True):
    peer: str
    source: str
    kind: Kind


class Unpublish(Message, frozen=True):
    peer: str
    source: str


class Mute(Message, frozen=True):
    peer: str
    source: str
    muted: bool


class RestartIce(Message, frozen=True):
    """An Offer with new ICE credentials is to follow (RFC 8445 section 9)."""

    peer: str


class Hold(Message, frozen=True):
    """The peer's WebSocket is away (`held`), so it can answer no offer; or it has another one, to which everything is
    told again that the last one may not have brought: the offer in flight, and what is paused."""

    peer: str
    held: bool


class Shown(NamedTuple):
    """A video as a page shows it: `height` and `width` of its tile are in device pixels; a width of 0 does not
    matter."""

    publisher: str
    source: str
    height: int
    width: int = 0


class View(Message, frozen=True):
    """The videos that the peer's page shows. The worker forwards no others to it."""

    peer: str
    videos: tuple[Shown, ...]


class LayerSize(NamedTuple):
    """A simulcast layer as a client sends it: its picture in pixels, and its maximum bitrate."""

    rid: str
    width: int
    height: int
    max_bps: int


class Sizes(Message, frozen=True):
    """The layers that the peer sends from this source, from now on; others stay silent. Empty: it does not tell."""

    peer: str
    source: str
    layers: tuple[LayerSize, ...]


class LogLevel(Message, frozen=True):
    """The level to log at from now on, such as `debug`."""

    level: str


class Leave(Message, frozen=True):
    """The peer is gone. The worker answers with Gone, also for an unknown peer; then the same id may join again."""

    peer: str


PeerCommand = Answer | Permit | Spotlight | Publish | Unpublish | Mute | View | Sizes | RestartIce | Hold | Leave
Command = Configure | LogLevel | Listen | AskMapping | Join | PeerCommand

# --- events: worker to control plane ---------------------------------------------------------------------------------


class Ready(Message, frozen=True):
    """The worker listens on UDP `port` at `addresses`, and advertises `advertised`. Sent again when that changes."""

    port: int
    addresses: tuple[str, ...]
    advertised: tuple[str, ...]


class Fatal(Message, frozen=True):
    """The worker cannot start and exits; `message` names what to change."""

    message: str


class Mapping(Message, frozen=True):
    """A STUN server saw the media of the local address `host` come from `address` and `port`; without an answer, they
    are empty and 0."""

    host: str
    server: str
    address: str
    port: int


class Origin(NamedTuple):
    """What a section of an offer brings: a source of another peer."""

    publisher: str
    source: str


class Offer(Message, frozen=True):
    """`send` maps the mid of a section to the source that the peer may send there, `receive` to what it brings."""

    peer: str
    sdp: str
    send: dict[str, str]
    receive: dict[str, Origin]


class Candidate(Message, frozen=True):
    """An address the worker listens on since the last offer."""

    peer: str
    candidate: str
    mid: str


class Connected(Message, frozen=True):
    """DTLS is up; `address` is where the peer's media comes from, and `transport` what it comes over."""

    peer: str
    address: str
    transport: Literal["udp", "tcp"] = "udp"


class Lost(Message, frozen=True):
    """Nothing has come from the peer for a while, or (`lost` is false) something comes again."""

    peer: str
    lost: bool


class Unreached(Message, frozen=True):
    """No media path to the peer is up a while after its answer. `heard`: its connectivity checks arrive. `hosts` and
    UDP `port` are advertised."""

    peer: str
    heard: bool
    hosts: tuple[str, ...]
    port: int


class Track(Message, frozen=True):
    """The peer's answer says that it sends this source, and a packet of it came."""

    peer: str
    source: str
    kind: Kind


class TrackEnded(Message, frozen=True):
    peer: str
    source: str


class Paused(Message, frozen=True):
    """The peer is not forwarded somebody's video from now on, for a reason; an empty one: it is again."""

    peer: str
    publisher: str
    source: str
    reason: str


class Layers(Message, frozen=True):
    """The rids of a simulcast that anybody wants, of those the peer can send from this source."""

    peer: str
    source: str
    active: tuple[str, ...]


class Speakers(Message, frozen=True):
    """Who speaks in a room has changed; peers that left are dropped without it. `dominant` may be in a pause."""

    room: str
    dominant: str | None
    speaking: tuple[str, ...]


class Direction(msgspec.Struct, frozen=True):
    """Figures of one direction between a client and the server, of the last seconds. Clients get them as they are."""

    loss: float
    jitter_ms: float
    round_trip_ms: float | None
    bitrate_bps: int


class Cause(msgspec.Struct, frozen=True):
    """What makes a call bad: the peer whose upload or download it is, and by how much. Clients get it as it is."""

    kind: Literal["upload_loss", "download_loss", "download_limited", "delay"]
    peer: str
    value: float
    unit: Literal["%", "bps", "ms"]


class Quality(Message, frozen=True):
    """The quality of a peer's call, every few seconds; `up` is from the peer to the server. The byte counts are since
    the peer joined."""

    peer: str
    score: float | None
    up: Direction | None
    down: Direction | None
    cause: Cause | None
    bytes_up: int
    bytes_down: int


class Refused(Message, frozen=True):
    """The peer's last command was refused with an error code; the peer goes on."""

    peer: str
    code: str
    message: str


class Failed(Message, frozen=True):
    """The peer's media is over; the control plane is to end it (and send Leave)."""

    peer: str
    code: str
    message: str


class Gone(Message, frozen=True):
    """The answer to Leave: the worker has forgotten the peer, and all its earlier events were about that peer."""

    peer: str


class Stats(Message, frozen=True):
    """Once a second, for /metrics: counters since start and what is true now, by name. Its absence means the worker
    hangs."""

    counters: dict[str, float] = {}
    gauges: dict[str, float] = {}


Event = (
    Ready | Fatal | Mapping | Offer | Candidate | Connected | Lost | Unreached | Track | TrackEnded | Paused | Layers
    | Speakers | Quality | Refused | Failed | Gone | Stats
)  # fmt: skip

COMMANDS = msgspec.json.Decoder[Command](Command)
EVENTS = msgspec.json.Decoder[Event](Event)

_to_json = msgspec.json.Encoder().encode
Incoming = TypeVar("Incoming", Command, Event)


class Channel(Generic[Incoming]):
    """One end of a bridge. Both planes are ours, so a message that does not decode is a bug and raises
    msgspec.DecodeError."""

    def __init__(self, stream: UNIXSocketStream, incoming: msgspec.json.Decoder[Incoming]) -> None:
        self._stream = stream
        self._lines = BufferedByteReceiveStream(stream)
        self._incoming: msgspec.json.Decoder[Incoming] = incoming
        self._unsent = bytearray()

    @classmethod
    async def open(cls, sock: socket.socket, incoming: msgspec.json.Decoder[Incoming]) -> Channel[Incoming]:
        """Takes ownership of a connected Unix socket. `incoming` is EVENTS in the control plane, COMMANDS in a
        worker."""
        return cls(await UNIXSocketStream.from_socket(sock), incoming)

    async def send(self, message: Command | Event, *, more: bool = False) -> None:
        """`more`: another one follows at once, with which this one may be written, as every write wakes the other end.

        One task at a time. Raises anyio.BrokenResourceError or ClosedResourceError when the other end is gone.
        """
        self._unsent += _to_json(message)
        self._unsent += b"\n"
        if not more or len(self._unsent) >= WRITE_BYTES:
            unsent = bytes(self._unsent)
            self._unsent.clear()
            await self._stream.send(unsent)

    async def receive(self) -> AsyncIterator[Incoming]:
        """Messages until the other end closes."""
        while True:
            try:
                line = await self._lines.receive_until(b"\n", LINE_BYTES)
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return
            yield self._incoming.decode(line)

    async def aclose(self) -> None:
        await self._stream.aclose()
