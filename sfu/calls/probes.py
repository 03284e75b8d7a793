"""Connection tests: throw-away rooms, in which `sfu doctor` and devices that it invites test the way of media.

Whoever has the secret of an invitation opens a WebSocket at /ws and names it in a subprotocol, as resumes do. A test
sends real media through a real worker and back: on each leg (UDP, TCP, a TURN server) one peer publishes and another
one subscribes. Nothing of it reaches the database, the history or the list of rooms. Everything is bounded and ends
with the invitation.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
import trio

from sfu import bridge, errors
from sfu.buckets import TokenBucket
from sfu.calls.reach import scope_of
from sfu.calls.rooms import new_id
from sfu.calls.websocket import Door, Link
from sfu.errors import SfuError
from sfu.network import turn
from sfu.settings.config import Config
from sfu.web.streams import Upgraded
from sfu.workers.workers import Workers

log = logging.getLogger("sfu.calls")

SUBPROTOCOL = "probe."
"""Prefix of a subprotocol value that carries the secret of an invitation. It must not be in a URL that is logged."""
LIFE_S = 600.0
"""How long an invitation can be used."""
INVITATIONS = 4
"""Most invitations at a time; each further one ends the oldest."""
DEVICES, TESTS = 8, 64
"""Most devices of one invitation that test at the same time, and most in all."""
JOINS = 64
"""Most peers that one device may bring into its rooms, one after the other."""

Leg = Literal["udp", "tcp", "relay"]
Heard = Literal["", "silent", "partial", "connected"]
"""What arrived from a device: unknown yet; nothing; connectivity checks and no more; enough for a media path."""
Cause = Literal["ok", "address", "closed", "one_way", "no_media", "relay_unreachable", "relay_blocked"]


class Join(msgspec.Struct, frozen=True):
    """The device wants to test a leg: as the publisher of its room, or as the subscriber."""

    leg: Leg
    publish: bool


class Answer(msgspec.Struct, frozen=True):
    leg: Leg
    publish: bool
    sdp: str


class Result(msgspec.Struct, frozen=True):
    """How a leg went for the device. `stage` is how far it came, `ms` the time until media arrived or it gave up."""

    leg: Leg
    ok: bool
    stage: Literal["gather", "ice", "media"]
    ms: Annotated[int, msgspec.Meta(ge=0, le=600_000)]


class Done(msgspec.Struct, frozen=True):
    """The device has tested every leg."""


class _Frame(msgspec.Struct, frozen=True):
    event: Literal["join", "answer", "result", "done"]
    data: msgspec.Raw = msgspec.Raw(b"{}")


_MESSAGES: dict[str, type[Join | Answer | Result | Done]] = {
    "join": Join,
    "answer": Answer,
    "result": Result,
    "done": Done,
}


@dataclass(slots=True)
class LegView:
    """What the server knows of a leg. `cause` is its verdict, once the device has told how it went."""

    heard: Heard = ""
    address: str = ""
    transport: str = ""
    media: bool = False
    ms: int = 0
    cause: Cause | None = None


@dataclass(slots=True, eq=False)
class Invitation:
    secret: str = field(repr=False)
    expires_s: float
    devices: list[Device] = field(default_factory=list)

    def state(self) -> list[dict[str, Any]]:
        """Every device that came, in order, as JSON."""
        return [device.state() for device in self.devices]


class Probes:
    """The invitations of this server and the devices that use them."""

    def __init__(self, config: Config, workers: Workers, clock: Callable[[], float] = trio.current_time) -> None:
        self.config, self.workers, self.clock = config, workers, clock
        self.peers: dict[str, tuple[Device, Leg]] = {}  # by the worker's id of a peer
        self._invitations: list[Invitation] = []

    def invite(self) -> Invitation:
        """A new invitation, valid for LIFE_S."""
        self._expire()
        while len(self._invitations) >= INVITATIONS:
            self.end(self._invitations[0])
        made = Invitation(secrets.token_urlsafe(24), self.clock() + LIFE_S)
        self._invitations.append(made)
        return made

    def find(self, secret: str) -> Invitation | None:
        """The valid invitation with this secret, compared in constant time."""
        self._expire()
        given = secret.encode()
        return next((one for one in self._invitations if hmac.compare_digest(one.secret.encode(), given)), None)

    def end(self, invitation: Invitation) -> None:
        """Ends the invitation and every test that uses it. Idempotent."""
        if invitation in self._invitations:
            self._invitations.remove(invitation)
        for device in invitation.devices:
            device.end(errors.ProbeGone())

    def connect(self, secret: str, connection: Upgraded) -> Link:
        """The link of a device that names this secret. Raises ProbeGone, or ServerFull for too many devices."""
        invitation = self.find(secret)
        if invitation is None:
            raise errors.ProbeGone
        if sum(device.open for device in invitation.devices) >= DEVICES or len(invitation.devices) >= TESTS:
            raise errors.ServerFull
        device = Device(self, connection, invitation.expires_s)
        invitation.devices.append(device)
        log.info("probe client=%s", connection.client)
        return device.link

    def post(self, event: bridge.Event) -> None:
        """Acts on an event of a media worker about a peer that may be one of a test."""
        found = self.peers.get(getattr(event, "peer", ""))
        if found is not None:
            found[0].on_event(found[1], event)

    def lost(self, worker: int) -> None:
        """A media worker died, and with it the tests that it carried."""
        for device in {device for device, _ in self.peers.values() if device.worker == worker}:
            device.end(errors.MediaRestarted())

    def stop(self) -> None:
        for invitation in list(self._invitations):
            self.end(invitation)

    def _expire(self) -> None:
        now_s = self.clock()
        for invitation in [one for one in self._invitations if one.expires_s <= now_s]:
            self.end(invitation)


def probe_secret(subprotocols: Sequence[str]) -> str | None:
    """The secret of an invitation among the subprotocols of a handshake."""
    return next((one.removeprefix(SUBPROTOCOL) for one in subprotocols if one.startswith(SUBPROTOCOL)), None)


class _TimedLink(Link):
    """A link that ends with its invitation."""

    deadline_s = 0.0

    async def run(self, door: Door) -> None:
        with trio.CancelScope(deadline=self.deadline_s):
            await super().run(door)


class Device:
    """One device that tests, and the owner of its link. `worker` is the media worker that carries its test."""

    def __init__(self, probes: Probes, connection: Upgraded, expires_s: float) -> None:
        self.link = _TimedLink(probes.config, connection.stream, self)
        self.link.deadline_s = expires_s
        self.open, self.worker = True, -1
        self._probes, self._client, self._secure = probes, connection.client, connection.secure
        self._id = new_id()
        self._peers: dict[tuple[Leg, bool], str] = {}
        self._legs: dict[Leg, LegView] = {}
        self._joins, self._done = 0, False
        self._bucket = TokenBucket(probes.config.messages_per_s, probes.config.messages_burst)

    def state(self) -> dict[str, Any]:
        legs = {leg: {name: getattr(view, name) for name in LegView.__slots__} for leg, view in self._legs.items()}
        return {"client": self._client, "secure": self._secure, "open": self.open, "done": self._done, "legs": legs}

    # --- the owner of a link ------------------------------------------------------------------------------------------

    def opened(self) -> None:
        config, hosts = self._probes.config, self._probes.workers.advertised
        servers: list[dict[str, Any]] = []
        if config.turn_urls:
            login = turn.credentials(config.turn_secret, f"probe-{self._id}", int(time.time()), int(LIFE_S))
            servers.append({"urls": config.turn_urls, "username": login[0], "credential": login[1]})
        ports: dict[Leg, int] = {"udp": config.udp_ports[0], "tcp": config.public_tcp_port}
        addresses = {leg: [_shown(host, port) for host in hosts] if port else [] for leg, port in ports.items()}
        self._tell("probe", client=self._client, iceServers=servers, **addresses)

    def receive(self, frame: str | bytes) -> None:
        if not self.open:
            return
        if not self._bucket.take(self._probes.clock()):
            self.end(errors.RateLimited())
            return
        try:
            head = msgspec.json.decode(frame, type=_Frame)
            message = msgspec.json.decode(head.data, type=_MESSAGES[head.event])
        except (msgspec.DecodeError, UnicodeError):
            self.end(errors.BadMessage())
            return
        try:
            self._carry_out(message)
        except SfuError as error:
            self.end(error)
        except Exception:
            log.exception("probe_failed client=%s", self._client)
            self.end(SfuError())

    def broken(self) -> None:
        self.end(None)

    def away(self) -> None:
        self.end(None)

    def end(self, error: SfuError | None) -> None:
        if not self.open:
            return
        self.open = False
        for leg, publish in list(self._peers):
            self._leave(leg, publish)
        if error is not None:
            self._tell("bye", code=error.code, message=str(error))
        self.link.end(error)

    # --- the test -----------------------------------------------------------------------------------------------------

    def _carry_out(self, message: Join | Answer | Result | Done) -> None:
        match message:
            case Join(leg, publish):
                self._join(leg, publish)
            case Answer(leg, publish, sdp):
                if (peer := self._peers.get((leg, publish))) is not None:
                    self._probes.workers.send(self.worker, bridge.Answer(peer, sdp))
            case Result():
                self._judge(message)
            case Done():
                self._done = True

    def _join(self, leg: Leg, publish: bool) -> None:
        workers = self._probes.workers
        self._joins += 1
        if self._joins > JOINS:
            raise errors.RateLimited
        self._leave(leg, publish)
        if not self._peers:
            self.worker = workers.pick()
        if publish:
            self._legs[leg] = LegView()
        peer = self._peers[leg, publish] = new_id()
        self._probes.peers[peer] = self, leg
        workers.place(self.worker, peer)
        workers.send(self.worker, bridge.Join(peer, f"probe/{self._id}/{leg}", True, publish, not publish))

    def _leave(self, leg: Leg, publish: bool) -> None:
        if (peer := self._peers.pop((leg, publish), None)) is not None:
            del self._probes.peers[peer]
            self._probes.workers.send(self.worker, bridge.Leave(peer))
            self._probes.workers.release(self.worker, peer)

    def _judge(self, result: Result) -> None:
        view = self._legs.get(result.leg)
        if view is None:
            return
        for publish in (True, False):
            self._leave(result.leg, publish)
        hosts = self._probes.workers.advertised
        view.ms, view.cause = result.ms, cause(result, view, self._client, hosts)
        self._tell("verdict", leg=result.leg, cause=view.cause, address=view.address, ms=view.ms)

    def on_event(self, leg: Leg, event: bridge.Event) -> None:
        view = self._legs.get(leg, LegView())
        match event:
            case bridge.Offer(peer, sdp):
                publish = self._peers.get((leg, True)) == peer
                self._tell("offer", leg=leg, publish=publish, sdp=sdp)
            case bridge.Connected(_, address, transport):
                view.heard, view.address, view.transport = "connected", address, transport
            case bridge.Unreached(_, heard):
                view.heard = view.heard or ("partial" if heard else "silent")
            case bridge.Track():
                view.media = True

    def _tell(self, event: str, **data: object) -> None:
        self.link.send(json.dumps({"event": event, "data": data}))


def cause(result: Result, view: LegView, client: str, hosts: Sequence[str]) -> Cause:
    """Why a leg does or does not work, from what both ends saw. `hosts` are advertised."""
    if result.ok:
        return "ok"
    if view.heard == "connected":
        return "no_media"
    if result.leg == "relay":
        return "relay_unreachable" if result.stage == "gather" else "relay_blocked"
    if scope_of(client) > max(map(scope_of, hosts), default=0):
        return "address"
    return "one_way" if view.heard == "partial" else "closed"


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
