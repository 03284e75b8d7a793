"""An ICE-lite agent (RFC 8445 section 2.5): answers authenticated checks and follows the browser's nomination.

The server has one reachable port, so it looks for no path: no timers a peer, and nothing is sent to an address before a
check that knew the password came from it. But whoever knows a password can put any source address on a check. So media
goes nowhere that has not answered: the first path is proved by the DTLS handshake over it, every later one, and one on
an address that is another peer's, by a check of ours. That is the triggered check of RFC 8445 section 7.3.1.4, which a
lite agent owes nobody (section 7.3.2 has it take the nomination as it is) and which no full agent can mind, as it
answers every valid check (section 7.3).

An Agent is also the ICE transport that aiortc's RTCDtlsTransport runs on (`role`, `_recv`, `_send`).
"""

from __future__ import annotations

import asyncio
import secrets
import string
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from aioice import stun

from sfu.media.transport.sockets import CandidatePair

MAX_PATHS = 32
"""Addresses remembered of one peer, the oldest forgotten first: a phone changing networks uses a handful."""
DTLS_QUEUE = 64
SILENT_S = 3.0
"""After this long without anything on the selected path, a check from elsewhere moves it even without USE-CANDIDATE:
Firefox nominates once, so it cannot say that its NAT gave it another port."""
PROVE_S = 0.1
"""Between two checks of ours: more often than a round trip they say nothing new."""
PATIENCE_S = 0.5
"""How long one path may take to be proved before another's turn comes."""
ASKED = 8
"""Checks at most that measure a round trip and are not answered yet."""

LOOKED_AT = 8
"""Attributes at most before a check's USERNAME; browsers send it first."""

_ALPHABET = string.ascii_letters + string.digits
_BINDING_REQUEST, _BINDING_RESPONSE = b"\x00\x01", b"\x01\x01"
_PRIORITY = 110 << 24 | 65535 << 8 | 255
"""Of a peer-reflexive candidate (RFC 8445 sections 5.1.2 and 7.1.1); nobody acts on it."""
_COOKIE = b"\x21\x12\xa4\x42"
_USERNAME = 0x0006
_attribute = struct.Struct("!HH").unpack_from


class Check(NamedTuple):
    """A connectivity check that parsed; nothing in it is believed before `verify`."""

    ufrag: str
    message: stun.Message
    nominates: bool

    def verify(self, pwd: str) -> bool:
        return self.message.check_message_integrity(pwd.encode())


def named(data: bytes) -> str | None:
    """Our ufrag as a binding request names it; None for anything else. It looks no further than it must, as strangers'
    messages may be long."""
    if len(data) < 20 or data[:2] != _BINDING_REQUEST or data[4:8] != _COOKIE:
        return None
    at = 20
    for _ in range(LOOKED_AT):
        if at + 4 > len(data):
            return None
        kind, length = _attribute(data, at)
        if kind == _USERNAME:
            return data[at + 4 : at + 4 + length].partition(b":")[0].decode("latin-1")
        at += 4 + (length + 3 & ~3)
    return None


def is_response(data: bytes) -> bool:
    """Whether it may be the answer to a check."""
    return len(data) >= 20 and data[:2] == _BINDING_RESPONSE and data[4:8] == _COOKIE


def parse_check(data: bytes) -> Check | None:
    """A binding request with USERNAME and MESSAGE-INTEGRITY, or None for anything else.

    aioice raises struct.error, KeyError, IndexError and more on malformed messages (32 of 35 tried), so every exception
    means the same here.
    """
    if len(data) < 20 or data[:2] != _BINDING_REQUEST or data[4:8] != _COOKIE:
        return None
    try:
        message = stun.parse_message(data)
        username = message.attributes["USERNAME"]
        if "MESSAGE-INTEGRITY" not in message.attributes:
            return None
        return Check(str(username).partition(":")[0], message, "USE-CANDIDATE" in message.attributes)
    except Exception:  # noqa: BLE001 as said above; an exception's type tells nothing here
        return None


def answers(data: bytes, transaction_id: bytes, pwd: str) -> bool:
    """Whether this is the success response to our check, from one who knows the password."""
    if not is_response(data) or data[8:20] != transaction_id:
        return False
    try:
        message = stun.parse_message(data)
        return "MESSAGE-INTEGRITY" in message.attributes and message.check_message_integrity(pwd.encode())
    except Exception:  # noqa: BLE001 as in parse_check
        return False


@dataclass(slots=True)
class _Wanted:
    """A path to have proved by the peer's answer to a check of ours there: to move to it (`selects`), or because its
    address is another peer's (`claims`). `ufrag`: ours, under which the peer came. The check goes out, and again from
    `due_s` on, when something comes from there: there is no timer."""

    path: CandidatePair
    ufrag: str
    since_s: float
    selects: bool
    claims: bool
    transaction_id: bytes
    due_s: float = 0.0


class Agent:
    """One peer's end of ICE. Owned by its peer; known to the UdpPort between `open` and `close`."""

    role = "controlled"

    def __init__(
        self,
        on_path: Callable[[CandidatePair], None],
        on_round_trip: Callable[[float, float, float], None] = lambda _seconds, _sent_s, _now_s: None,
        mark: str = "",
    ) -> None:
        """`on_path` gets each newly selected path, `on_round_trip` a measured round trip, when that began, and now. Our
        ufrags and the transactions of our checks begin with `mark`, by which other workers know whose they are."""
        self._mark = mark
        self.ufrag, self.pwd = self._new_ufrag(), _token(24)
        self.passwords = {self.ufrag: self.pwd}  # by ufrag: those of the last offer, and during a restart those in use
        self.remote: dict[str, tuple[str, str]] = {}  # the peer's ufrag and password, by the ufrag it answered to
        self.paths: list[CandidatePair] = []
        self.selected: CandidatePair | None = None
        self.connected = asyncio.Event()
        self.last_seen_s = 0.0
        self._wanted: _Wanted | None = None
        self._asked: dict[bytes, tuple[str, float]] = {}  # when by transaction, and the password to be answered with
        self._on_path, self._on_round_trip = on_path, on_round_trip
        self._path_seen_s = 0.0
        self._tie_breaker = secrets.randbits(64)
        self._closed = False
        self._dtls: asyncio.Queue[bytes | None] = asyncio.Queue(DTLS_QUEUE)

    def add_pair(self, path: CandidatePair) -> CandidatePair | None:
        """Remembers an address that proved to be the peer's; returns the one that is forgotten for it, if any."""
        if path in self.paths:  # another peer had it in between
            self.paths.remove(path)
        self.paths.append(path)
        if len(self.paths) <= MAX_PATHS:
            return None
        return self.paths.pop(0 if self.paths[0] != self.selected else 1)

    def restart(self) -> str | None:
        """New credentials (RFC 8445 section 9, RFC 8839 section 4.4.1.1.1). Those in use stay good until a pair is
        nominated with the new ones, and so does the path. Returns the ufrag of a restart that this one overtook."""
        overtaken = self.ufrag if len(self.passwords) > 1 else None
        self._forget(overtaken or "")
        self.ufrag, self.pwd = self._new_ufrag(), _token(24)
        self.passwords[self.ufrag] = self.pwd
        return overtaken

    def _new_ufrag(self) -> str:
        return self._mark + _token(8 - len(self._mark))

    def _new_transaction(self) -> bytes:
        """Nobody can answer who has not received it."""
        return self._mark.encode() + secrets.token_bytes(12 - len(self._mark))

    def answered(self, remote: tuple[str, str] | None) -> None:
        """The peer's own ufrag and password, as its answer to the last offer gives them. Without, it stays where it
        is."""
        if remote is not None:
            self.remote[self.ufrag] = remote
            if self._wanted is not None:
                self._check_wanted(self._wanted)

    def _forget(self, ufrag: str) -> None:
        self.passwords.pop(ufrag, None)
        self.remote.pop(ufrag, None)

    @property
    def claim(self) -> bytes | None:
        """The transaction of the check whose answer shows that an address is no longer another peer's."""
        return self._wanted.transaction_id if self._wanted is not None and self._wanted.claims else None

    def check(self, check: Check, path: CandidatePair, now_s: float, *, contested: bool = False) -> str | None:
        """Answers a verified check (RFC 8445 section 7.3) and follows a nomination. Returns the ufrag that is no longer
        good, where the nomination has completed a restart. `contested`: the address is another peer's until
        `handle_response` has the proof of the contrary."""
        response = stun.Message(
            message_method=stun.Method.BINDING,
            message_class=stun.Class.RESPONSE,
            transaction_id=check.message.transaction_id,
        )
        response.attributes["XOR-MAPPED-ADDRESS"] = path.address[:2]
        response.add_message_integrity(self.passwords[check.ufrag].encode())
        path.endpoint.send(bytes(response), path.address)
        silent = self.selected is not None and now_s - self._path_seen_s > SILENT_S
        selects = check.nominates or silent
        if contested:
            self._propose_pair(path, check.ufrag, now_s, selects=selects, claims=True)
            self._check_pair(path, now_s)
        elif check.nominates and path == self.selected:
            self._wanted = None
        elif check.nominates and self.selected is None:
            self._select(path)
        elif path != self.selected and selects:
            self._propose_pair(path, check.ufrag, now_s, selects=True, claims=False)
        if not contested:
            self.seen(path, now_s)
        if check.nominates and check.ufrag == self.ufrag and len(self.passwords) > 1:
            former = next(iter(self.passwords))
            self._forget(former)
            return former
        return None

    def _select(self, path: CandidatePair) -> None:
        self.selected, self._wanted = path, None
        self.connected.set()
        self._on_path(path)

    def _propose_pair(self, path: CandidatePair, ufrag: str, now_s: float, *, selects: bool, claims: bool) -> None:
        """One path at a time, or two that are nominated in turn would never be proved."""
        wanted = self._wanted
        same = wanted is not None and (wanted.path, wanted.ufrag, wanted.claims) == (path, ufrag, claims)
        if wanted is not None and same:
            wanted.selects = wanted.selects or selects
        elif wanted is None or now_s - wanted.since_s > PATIENCE_S:
            self._wanted = _Wanted(path, ufrag, now_s, selects, claims, self._new_transaction())

    def _check_pair(self, path: CandidatePair, now_s: float) -> None:
        """Sends a check of ours, if this is the path to prove, and time for one."""
        wanted = self._wanted
        if wanted is not None and path == wanted.path and now_s >= wanted.due_s:
            wanted.due_s = now_s + PROVE_S
            self._check_wanted(wanted)

    def _check_wanted(self, wanted: _Wanted) -> None:
        """Once the peer's answer has told how to sign it."""
        if wanted.ufrag in self.remote:
            self._send_check(wanted.path, wanted.ufrag, wanted.transaction_id)

    def _send_check(self, path: CandidatePair, local: str, transaction_id: bytes) -> None:
        ufrag, pwd = self.remote[local]
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, transaction_id)
        request.attributes["USERNAME"] = f"{ufrag}:{local}"
        request.attributes["PRIORITY"] = _PRIORITY
        request.attributes["ICE-CONTROLLED"] = self._tie_breaker
        request.add_message_integrity(pwd.encode())
        path.endpoint.send(bytes(request), path.address)

    def measure_rtt(self, now_s: float) -> None:
        """Sends a check of ours on the path in use, behind the media that was sent: what it takes there and back is
        what that takes."""
        local = next((ufrag for ufrag in reversed(self.passwords) if ufrag in self.remote), None)
        if self.selected is None or local is None:
            return
        if len(self._asked) >= ASKED:
            del self._asked[next(iter(self._asked))]
        transaction_id = self._new_transaction()
        self._asked[transaction_id] = self.remote[local][1], now_s
        self._send_check(self.selected, local, transaction_id)

    def handle_response(self, data: bytes, path: CandidatePair, now_s: float) -> bool:
        """Takes a response to a check of ours; False if it is none."""
        if path != self.selected or (asked := self._asked.get(data[8:20])) is None:
            return self._proved(data, path)
        pwd, sent_s = asked
        if not answers(data, data[8:20], pwd):
            return False
        del self._asked[data[8:20]]
        self._on_round_trip(now_s - sent_s, sent_s, now_s)
        return True

    def _proved(self, data: bytes, path: CandidatePair) -> bool:
        """The peer is there, and where it is to move its media goes there from now on."""
        wanted = self._wanted
        if wanted is None or path != wanted.path or wanted.ufrag not in self.remote:
            return False
        if not answers(data, wanted.transaction_id, self.remote[wanted.ufrag][1]):
            return False
        self._wanted = None
        if wanted.selects and path != self.selected:
            self._select(path)
        return True

    def seen(self, path: CandidatePair, now_s: float) -> None:
        """Something authenticated came from `path`: consent to send (RFC 7675) and liveness."""
        self.last_seen_s = now_s
        if path == self.selected:
            self._path_seen_s = now_s
        elif self._wanted is not None:
            self._check_pair(path, now_s)

    def dtls(self, data: bytes) -> None:
        """A DTLS record for the handshake; past the bound it is dropped and DTLS sends it again."""
        if not self._closed and not self._dtls.full():
            self._dtls.put_nowait(data)

    async def _recv(self) -> bytes:
        data = None if self._closed else await self._dtls.get()
        if data is None:
            raise ConnectionError("ICE agent closed")
        return data

    async def _send(self, data: bytes) -> None:
        if self._closed or self.selected is None:
            raise ConnectionError("no ICE path")
        self.selected.endpoint.send(data, self.selected.address)

    def close(self) -> None:
        """Idempotent; whoever waits in `_recv` gets ConnectionError."""
        if not self._closed:
            self._closed = True
            if self._dtls.full():
                self._dtls.get_nowait()
            self._dtls.put_nowait(None)


def _token(length: int) -> str:
    """ice-char text (RFC 8839 section 5.4); 24 characters are 142 bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
