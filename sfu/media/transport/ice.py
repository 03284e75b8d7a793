"""An ICE-lite agent (RFC 8445 section 2.5): answers authenticated checks and follows the browser's nomination.

The server has one reachable port, so it searches for no paths: there are no timers per peer, and nothing is sent to an
address before a check with the right password came from there. But anyone who knows a password can put any source
address on a check. So DTLS and media go only to addresses that have answered a check of the server's own, and no
stranger's address gets more than three times the bytes that came in its name. That check is the triggered check of RFC
8445 section 7.3.1.4. A lite agent need not send it (section 7.3.2 has it take the nomination as it is), and no full
agent can mind, as it answers every valid check (section 7.3).

An Agent is also the ICE transport that aiortc's RTCDtlsTransport runs on (`role`, `_recv`, `_send`).
"""

from __future__ import annotations

import asyncio
import math
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from aioice import stun

from sfu.buckets import TokenBucket
from sfu.media.transport.sockets import CandidatePair
from sfu.stun import Signed, answers

MAX_PATHS = 32
"""Addresses remembered per peer, the oldest forgotten first: a phone that changes networks uses a handful."""
DTLS_QUEUE = 64
SILENT_S = 3.0
"""After this long without a packet on the selected path, a check from elsewhere moves the path even without
USE-CANDIDATE: Firefox nominates only once, so it cannot tell that its NAT gave it another port."""
PROVE_S = 0.1
"""Minimum time between two checks to prove a path: more than one per round trip tells nothing new."""
CHECKS_PER_S, CHECKS_BURST = 100.0, 200.0
"""Checks of a peer that are answered, wherever they come from. A browser that looks for a path sends 50 a second."""
PATIENCE_S = 0.5
"""How long one path may take to be proved before another one may replace it."""
HELLO_BYTES = 120
"""Any DTLS hello is longer, and the server's own check is shorter."""
ASKED = 8
"""Unanswered checks that measure a round trip, at most."""

_ALPHABET = string.ascii_letters + string.digits
_PRIORITY = 110 << 24 | 65535 << 8 | 255
"""Priority of a peer-reflexive candidate (RFC 8445 sections 5.1.2 and 7.1.1); no client acts on it."""


@dataclass(slots=True)
class _Wanted:
    """A path that the peer has to prove by answering a check from the server. `selects`: media moves to the path then.
    `claims`: its address is another peer's so far. `ufrag` is the server's ufrag that the peer used. The check is sent,
    and sent again from `due_s` on, when a packet comes by this path: there is no timer."""

    path: CandidatePair
    ufrag: str
    since_s: float
    selects: bool
    claims: bool
    transaction_id: bytes
    due_s: float = 0.0


class Agent:
    """One peer's end of ICE. Owned by its peer; known to the UdpPort between `register` and `unregister`."""

    role = "controlled"

    def __init__(
        self,
        on_path: Callable[[CandidatePair], None],
        on_round_trip: Callable[[float, float, float], None] = lambda _seconds, _sent_s, _now_s: None,
        mark: str = "",
    ) -> None:
        """`on_path` gets each newly selected path; `on_round_trip` gets a measured round trip, the time at which it
        began, and now. The agent's ufrags and transaction IDs begin with `mark`, by which other workers know whose they
        are."""
        self._mark = mark
        self.ufrag, self.pwd = self._new_ufrag(), _token(24)
        self.passwords = {self.ufrag: self.pwd}  # by ufrag: the last offer's, and during a restart those in use
        self.remote: dict[str, tuple[str, str]] = {}  # the peer's ufrag and password, by our ufrag it answered to
        self.paths: list[CandidatePair] = []
        self.selected: CandidatePair | None = None
        self.connected = asyncio.Event()
        self.last_seen_s = 0.0
        self.checks = TokenBucket(CHECKS_PER_S, CHECKS_BURST)
        self._wanted: _Wanted | None = None
        self._next: _Wanted | None = None  # nominated while another path was wanted, as some clients nominate only once
        self._asked: dict[bytes, tuple[str, float]] = {}  # by transaction ID: the peer's password, and when sent
        self._on_path, self._on_round_trip = on_path, on_round_trip
        self._path_seen_s = 0.0
        self._tie_breaker = secrets.randbits(64)
        self._closed = False
        self._dtls: asyncio.Queue[bytes | None] = asyncio.Queue(DTLS_QUEUE)

    def add_pair(self, path: CandidatePair) -> CandidatePair | None:
        """Remembers an address that the peer has proved; returns the path that is forgotten in its place, if any."""
        if path in self.paths:  # another peer had the address in between
            self.paths.remove(path)
        self.paths.append(path)
        if len(self.paths) <= MAX_PATHS:
            return None
        return self.paths.pop(0 if self.paths[0] != self.selected else 1)

    def lose(self, path: CandidatePair) -> None:
        """The connection that this path was has ended. The next check from elsewhere moves media there."""
        self.paths = [one for one in self.paths if one != path]
        if path == self.selected:
            self._path_seen_s = -math.inf

    def restart(self) -> str | None:
        """Makes new credentials (RFC 8445 section 9, RFC 8839 section 4.4.1.1.1). Those in use remain valid until a
        pair is nominated with the new ones, and so does the path. Returns the ufrag of an unfinished restart that this
        one replaces."""
        overtaken = self.ufrag if len(self.passwords) > 1 else None
        self._forget(overtaken or "")
        self.ufrag, self.pwd = self._new_ufrag(), _token(24)
        self.passwords[self.ufrag] = self.pwd
        return overtaken

    def _new_ufrag(self) -> str:
        return self._mark + _token(8 - len(self._mark))

    def _new_transaction(self) -> bytes:
        """A transaction ID that cannot be guessed, so only a client that received the check can answer it."""
        return self._mark.encode() + secrets.token_bytes(12 - len(self._mark))

    def answered(self, remote: tuple[str, str] | None) -> None:
        """Takes the peer's own ufrag and password from its answer to the last offer. Without them the peer stays on its
        path."""
        if remote is not None:
            self.remote[self.ufrag] = remote
            if self._wanted is not None:
                self._check_wanted(self._wanted)

    def _forget(self, ufrag: str) -> None:
        self.passwords.pop(ufrag, None)
        self.remote.pop(ufrag, None)

    @property
    def transport(self) -> Literal["udp", "tcp"]:
        """What media comes and goes over."""
        return "tcp" if self.selected is not None and self.selected.endpoint.own else "udp"

    @property
    def refused(self) -> int:
        """Packets that the selected path was too slow for, where the server knows that."""
        return self.selected.endpoint.refused if self.selected is not None else 0

    @property
    def claim(self) -> bytes | None:
        """The transaction ID of the check whose answer would show that an address is no longer another peer's; None if
        there is none."""
        return self._wanted.transaction_id if self._wanted is not None and self._wanted.claims else None

    def check(self, check: Signed, path: CandidatePair, now_s: float, *, contested: bool = False) -> str | None:
        """Answers a verified check (RFC 8445 section 7.3) and follows a nomination. Returns the ufrag that is no longer
        valid, if the nomination completed a restart. `contested`: the address is another peer's until `handle_response`
        has proof of the contrary."""
        response = stun.Message(
            message_method=stun.Method.BINDING,
            message_class=stun.Class.RESPONSE,
            transaction_id=check.transaction_id,
        )
        response.attributes["XOR-MAPPED-ADDRESS"] = path.address[:2]
        assert check.ufrag is not None
        response.add_message_integrity(self.passwords[check.ufrag].encode())
        path.endpoint.send(bytes(response), path.address)
        silent = self.selected is not None and now_s - self._path_seen_s > SILENT_S
        selects = check.nominates or silent
        if contested:
            self._propose_pair(path, check.ufrag, now_s, selects=selects, claims=True)
            self._check_pair(path, now_s)
        elif check.nominates and path == self.selected:
            self._wanted = self._next = None
        elif path != self.selected and selects:
            self._propose_pair(path, check.ufrag, now_s, selects=True, claims=False)
        if not contested:
            self.seen(path, now_s)
        if check.nominates and check.ufrag == self.ufrag and len(self.passwords) > 1:
            former = next(iter(self.passwords))
            self._forget(former)
            return former
        return None

    def _select(self, path: CandidatePair, now_s: float) -> None:
        self.selected, self._path_seen_s = path, now_s
        self.connected.set()
        self._on_path(path)

    def _propose_pair(self, path: CandidatePair, ufrag: str, now_s: float, *, selects: bool, claims: bool) -> None:
        """Wants a path proved. There is one such path at a time, or two that are nominated in turn would never be
        proved."""
        wanted = self._wanted
        if wanted is not None and (wanted.path, wanted.ufrag, wanted.claims) == (path, ufrag, claims):
            wanted.selects = wanted.selects or selects
            self._next = None
            return
        proposed = _Wanted(path, ufrag, now_s, selects, claims, self._new_transaction())
        if wanted is None or now_s - wanted.since_s > PATIENCE_S:
            self._wanted, self._next = proposed, None
        elif selects and not claims:
            self._next = proposed

    def _check_pair(self, path: CandidatePair, now_s: float) -> None:
        """Sends the check, if this is the path to prove and the check is due."""
        wanted = self._wanted
        if wanted is None:
            return
        if path == wanted.path and now_s >= wanted.due_s:
            wanted.due_s = now_s + PROVE_S
            self._check_wanted(wanted)
        elif self._next is not None and not wanted.claims and now_s - wanted.since_s > PATIENCE_S:
            self._want_next(now_s)

    def _want_next(self, now_s: float) -> None:
        self._wanted, self._next = self._next, None
        if self._wanted is not None:
            self._wanted.since_s = now_s
            self._check_pair(self._wanted.path, now_s)

    def _check_wanted(self, wanted: _Wanted) -> None:
        """Sends the check, if the peer's answer has already told the password to sign it with."""
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
        """Sends a check on the selected path, behind the media already sent, so its round trip includes the queue that
        the media is in."""
        local = next((ufrag for ufrag in reversed(self.passwords) if ufrag in self.remote), None)
        if self.selected is None or local is None:
            return
        if len(self._asked) >= ASKED:
            del self._asked[next(iter(self._asked))]
        transaction_id = self._new_transaction()
        self._asked[transaction_id] = self.remote[local][1], now_s
        self._send_check(self.selected, local, transaction_id)

    def handle_response(self, data: bytes, path: CandidatePair, now_s: float) -> bool:
        """Takes a response to a check of this agent; False if it is none."""
        if path != self.selected or (asked := self._asked.get(data[8:20])) is None:
            return self._proved(data, path, now_s)
        pwd, sent_s = asked
        if not answers(data, data[8:20], pwd):
            return False
        del self._asked[data[8:20]]
        self._on_round_trip(now_s - sent_s, sent_s, now_s)
        return True

    def _proved(self, data: bytes, path: CandidatePair, now_s: float) -> bool:
        """Takes the response that proves the wanted path, and moves media there if that was wanted; False if it is
        another one."""
        wanted = self._wanted
        if wanted is None or path != wanted.path or wanted.ufrag not in self.remote:
            return False
        if not answers(data, wanted.transaction_id, self.remote[wanted.ufrag][1]):
            return False
        self._want_next(now_s)
        if wanted.selects and path != self.selected:
            self._select(path, now_s)
        return True

    def seen(self, path: CandidatePair, now_s: float) -> None:
        """An authenticated packet came by `path`: it renews consent to send (RFC 7675) and shows that the peer is
        alive."""
        self.last_seen_s = now_s
        if path == self.selected:
            self._path_seen_s = now_s
        else:
            self._check_pair(path, now_s)

    def dtls(self, data: bytes, path: CandidatePair, now_s: float) -> None:
        """Queues a DTLS datagram for the handshake. If the queue is full it is dropped; DTLS sends it again."""
        if len(data) > HELLO_BYTES:
            self._check_pair(path, now_s)
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
        """Idempotent; a waiting `_recv` raises ConnectionError."""
        if not self._closed:
            self._closed = True
            if self._dtls.full():
                self._dtls.get_nowait()
            self._dtls.put_nowait(None)


def _token(length: int) -> str:
    """ice-char text (RFC 8839 section 5.4); 24 characters are 142 bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
