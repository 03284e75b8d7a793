"""Who may send to a worker: datagrams are routed to their peers, strangers are kept out.

From an unknown address only one thing is accepted: a connectivity check that names a peer's ufrag and proves knowledge
of its password. Everything else, and everything malformed, is counted and dropped before any library sees it. Even
then, the source address of a check may be forged. So a check alone takes no address away from another peer that was
heard there recently; that takes the answer to a check of the server's own. An address belongs to the peer that was
heard there recently, whichever worker has that peer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, Protocol, TypeVar

from sfu.flood import FloodGate, Former
from sfu.media.transport.handover import Handed, Handover, Handovers
from sfu.media.transport.ice import Agent
from sfu.media.transport.mapping import Questions
from sfu.media.transport.rows import Rows
from sfu.media.transport.sockets import MAX_DATAGRAM, Address, CandidatePair, Wire
from sfu.stun import MARK_CHARS, is_response, named, parse_check

log = logging.getLogger("sfu.media")

HELD_S = 10.0
"""How long an address remains a peer's after the last packet from there: browsers check a path in use at most 6 s apart
(RFC 7675 section 5.1)."""

STRANGER_PER_S, STRANGERS_PER_S = 100, 4000
"""Datagrams a second that are read from one address that is no peer's yet, and from all of them: a browser that looks
for a path sends 50, and 4,000 cost a twentieth of a core."""

T = TypeVar("T")


class Route(Generic[T]):
    """A peer at an address that it proved to be its own; `demuxer` takes its media. `receives` is the socket that
    receives from that address only, if there is one."""

    __slots__ = ("agent", "demuxer", "path", "receives", "seen_s")

    def __init__(self, agent: Agent, path: CandidatePair, demuxer: T, receives: Wire | None = None) -> None:
        self.agent, self.path, self.demuxer, self.receives, self.seen_s = agent, path, demuxer, receives, 0.0

    def seen(self, now_s: float) -> None:
        """An authenticated packet came from here."""
        self.seen_s = now_s
        self.agent.seen(self.path, now_s)

    def close(self) -> None:
        """Closes the socket that only this route uses. The caller has removed the route from all tables."""
        if self.receives is not None:
            self.receives.close()


OnMedia = Callable[[Rows, list[Route[T] | None]], Iterable[int]]
"""Takes the first len(routes) rows and the route of each row's sender, None if unknown. Owns the rows until it returns
the indices of those that are not SRTP or SRTCP of these peers."""


class Arrivals(Protocol):
    """Datagrams in rows, with the key and the address of each one's sender."""

    rows: Rows

    def key(self, i: int) -> Hashable: ...

    def address(self, i: int) -> Address: ...


class Gate(Generic[T]):
    """The peers of a worker by ufrag and by address. `handovers` lead to the workers that share its port."""

    def __init__(self, counters: dict[str, int], handovers: Handovers) -> None:
        self.questions = Questions()
        self._handovers = handovers
        self._strangers = FloodGate(STRANGER_PER_S, STRANGERS_PER_S)
        self._former = Former()
        self._counters = counters
        self._agents: dict[str, tuple[Agent, T]] = {}
        self._claims: dict[bytes, tuple[Agent, T]] = {}  # by the transaction ID that is to prove them; one per agent
        self._routes: dict[Wire, dict[Hashable, Route[T]]] = {}  # by a sender's key

    @property
    def mark(self) -> str:
        """The prefix of this worker's ufrags."""
        return self._handovers.mark

    def enter(self, wire: Wire) -> dict[Hashable, Route[T]]:
        """The routes of a new wire, none so far."""
        return self._routes.setdefault(wire, {})

    def leave(self, wire: Wire) -> None:
        """Forgets a wire whose connection has ended."""
        for route in self._routes.pop(wire, {}).values():
            route.agent.lose(route.path)

    def register(self, agent: Agent, demuxer: T) -> None:
        self._agents[agent.ufrag] = agent, demuxer

    def forget(self, ufrag: str | None) -> None:
        """Checks with this ufrag count as strangers' from now on."""
        self._agents.pop(ufrag or "", None)

    def unregister(self, agent: Agent) -> None:
        for ufrag in agent.passwords:
            self.forget(ufrag)
        self._claims.pop(agent.claim or b"", None)
        for path in agent.paths:
            self._forget(agent, path)

    def _forget(self, agent: Agent, path: CandidatePair) -> None:
        routes = self._routes.get(path.endpoint, {})
        for key in [key for key, route in routes.items() if route.agent is agent and route.path == path]:
            routes.pop(key).close()
            self.was_here(key)
            if self._handovers.home is not None and not path.endpoint.own:  # what still comes, comes to worker 0
                self._handovers.home.send(path, contested=True)

    def was_here(self, key: Hashable) -> None:
        """A peer has left this address, from where its media may still come for a while."""
        self._former.add(key, time.monotonic())

    def received(self, endpoint: Wire, arrivals: Arrivals, i: int, route: Route[T] | None) -> None:
        """Handles a datagram that is not media of a known peer. Its first byte tells STUN, DTLS and SRTP apart (RFC
        7983)."""
        if route is None and (self._comes_late(arrivals, i) or self._floods(arrivals, i)):
            return
        data = bytes(arrivals.rows.row(i))
        if not 0 < len(data) <= MAX_DATAGRAM:
            self._counters["gate_length"] += 1
        elif data[0] < 4:
            self.stun(CandidatePair(endpoint, arrivals.address(i)), arrivals.key(i), data)
        elif route is None and self._handovers.home is not None:
            self._handovers.home.send(CandidatePair(endpoint, arrivals.address(i)), data)
        elif route is None:
            self._counters["gate_stranger"] += 1
        elif 20 <= data[0] < 64:
            route.agent.dtls(data, route.path, time.monotonic())
        else:
            self._counters["gate_protocol"] += 1

    def _comes_late(self, arrivals: Arrivals, i: int) -> bool:
        """Whether to drop this datagram of a peer that has left. Its checks count: it may be coming back."""
        if bytes(arrivals.rows.row(i)[:1]) < b"\x04" or not self._former.holds(arrivals.key(i), time.monotonic()):
            return False
        self._counters["gate_former"] += 1
        return True

    def _floods(self, arrivals: Arrivals, i: int) -> bool:
        """Whether to drop this datagram, since strangers send too many: reading them all would cost peers their
        media."""
        now_s = time.monotonic()
        if self._strangers.admits(arrivals.key(i), now_s):
            return False
        self._counters["gate_flood"] += 1
        if self._strangers.warns(now_s):
            log.warning("strangers_flood address=%s port=%d", *arrivals.address(i)[:2])
        return True

    def stun(self, path: CandidatePair, key: Hashable, data: bytes, handed: Handed | None = None) -> None:
        name, now_s = named(data), time.monotonic()
        if name is None:
            if not self._answered(path, key, data, now_s, handed=handed is not None):
                self._counters["gate_stun_malformed"] += 1
            return
        found = self._agents.get(name)
        route = self._routes[path.endpoint].get(key)
        contested = handed is not None and handed.contested
        if route is not None and (found is None or route.agent is not found[0]) and now_s - route.seen_s < HELD_S:
            contested = True
        if found is None and (way := self._way(path, name)) is not None:
            way.send(path, data, contested=contested)
            return
        check = None if found is None else parse_check(data)
        if found is None or check is None or check.ufrag != name or not check.verify(found[0].passwords[name]):
            self._counters["gate_stun_refused"] += 1
            return
        agent, demuxer = found
        if not agent.checks.take(now_s, 1):
            self._counters["gate_flood"] += 1
            return
        if contested or self._take(agent, demuxer, path, key, now_s, handed=handed is not None):
            claimed = agent.claim
            self.forget(agent.check(check, path, now_s, contested=contested))
            if agent.claim != claimed:
                self._claims.pop(claimed or b"", None)
                if agent.claim is not None:
                    self._claims[agent.claim] = found

    def _answered(self, path: CandidatePair, key: Hashable, data: bytes, now_s: float, *, handed: bool) -> bool:
        """Takes a response to a check or a question of this worker, or passes it on if the check was another worker's;
        False if it is neither."""
        if self.questions.on_response(data, path.address):
            return True
        claim = self._claims.get(data[8:20])
        if claim is not None:
            proved = claim[0].handle_response(data, path, now_s)
            if proved:
                del self._claims[data[8:20]]
                self._take(*claim, path, key, now_s, handed=handed)
            return proved
        route = self._routes[path.endpoint].get(key)
        if route is not None and route.agent.handle_response(data, path, now_s):
            return True
        way = self._way(path, data[8 : 8 + MARK_CHARS].decode("latin-1")) if is_response(data) else None
        if way is not None:
            way.send(path, data)
        return way is not None

    def _take(
        self, agent: Agent, demuxer: T, path: CandidatePair, key: Hashable, now_s: float, *, handed: bool
    ) -> bool:
        """Assigns the address to this peer; behind one NAT it may have been another's. If the datagram was handed over
        (`handed`), the former peer may be on another worker, which is told. False if no socket can be opened for the
        address."""
        routes = self._routes[path.endpoint]
        route = routes.get(key)
        if route is None or route.agent is not agent:
            receives = route.receives if route is not None else None
            try:
                receives = receives or self.receive_from(path)
            except OSError:
                self._counters["paths_refused"] += 1
                return False
            routes[key] = route = Route(agent, path, demuxer, receives)
            forgotten = agent.add_pair(path)
            if forgotten is not None:
                self._forget(agent, forgotten)
        route.seen_s = now_s
        if handed:
            for way in self._handovers.ways:
                way.send(path)
        return True

    def _way(self, path: CandidatePair, name: str) -> Handover | None:
        """The handover to the worker that this ufrag or transaction ID belongs to, for what others may receive, too."""
        return None if path.endpoint.own else self._handovers.to(name)

    def receive_from(self, path: CandidatePair) -> Wire | None:
        """The socket that receives from this path only, None if there need be none. Raises OSError if it cannot be
        opened."""
        return path.endpoint if path.endpoint.own else None

    def forget_one(self) -> bool:
        """Gives up the oldest path that its peer does not use; False if there is none."""
        for routes in self._routes.values():
            for route in routes.values():
                if route.path != route.agent.selected:
                    self._forget(route.agent, route.path)
                    return True
        return False
