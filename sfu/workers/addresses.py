"""The addresses of this server: where it listens, what it advertises to browsers, and why.

What SFU_PUBLIC_IP says is advertised as it is. Otherwise the addresses of the interfaces are, and before them the
public ones that a STUN server (SFU_STUN) sees the media port at, for machines behind a NAT. Both may change at any
time.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import trio

from sfu.bridge import AskMapping, Listen, Mapping
from sfu.logs import line
from sfu.network.interfaces import Local, changes, local_addresses, useful
from sfu.settings.config import Config
from sfu.settings.values import ANY_HOST

log = logging.getLogger("sfu.addresses")

ASK_S = 300.0
"""How often STUN servers are asked while nothing changes: a provider may give the router another address."""
LEAST_S = 10.0
"""Minimum time between two questions."""
FIRST_ANSWER_S = 1.5
"""How long the start waits for the first answer, so that the first candidates are complete."""
RESOLVE_S = 10.0
POLL_S, AGAIN_S = 10.0, 60.0
"""How often interfaces are read where the system does not tell of changes, and where it does."""
SETTLE_S = 0.3
"""Changes come in groups: an address goes, another one comes."""

Tell = Callable[[Listen | AskMapping], None]


@dataclass(frozen=True, slots=True)
class Advertised:
    """An address that browsers are told, and where it is from."""

    address: str
    source: str


class Addresses:
    """The state; `run` keeps it up to date. `tell` passes commands to the media workers, and `on_mapping` takes what
    they answer."""

    def __init__(self, config: Config) -> None:
        self.tell: Tell = lambda command: None
        self._config = config
        self._locals: list[Local] = []
        self._mapped: dict[str, str] = {}  # by local address, where that differs
        self._warned: set[tuple[str, str]] = set()
        self.contradiction = ""
        """The address that a STUN server sees this server at, if SFU_PUBLIC_IP has others only."""
        self._answered, self._ask_now = trio.Event(), trio.Event()

    @property
    def advertised(self) -> list[Advertised]:
        """What browsers are told, the preferred address first."""
        if self._config.public_ip:
            return [Advertised(address, "SFU_PUBLIC_IP") for address in self._config.public_ip]
        own = {local.address: local.interface for local in useful(self._locals)}
        mapped = dict.fromkeys(self._mapped[address] for address in own if address in self._mapped)
        return [
            *(Advertised(address, "SFU_STUN") for address in mapped),
            *(Advertised(address, interface) for address, interface in own.items() if address not in mapped),
        ]

    @property
    def withheld(self) -> list[Local]:
        """Addresses that the server listens on and no browser is told."""
        told = {one.address for one in self.advertised}
        return [local for local in self._locals if local.address not in told and not self._config.public_ip]

    @property
    def listen(self) -> Listen:
        """What media workers need to know."""
        hosts = tuple(local.address for local in self._locals)
        return Listen(hosts, tuple(one.address for one in self.advertised))

    def read(self) -> None:
        """Reads the interfaces. What was seen of an address that is gone is forgotten."""
        host = self._config.host
        self._locals = local_addresses(() if host == ANY_HOST else (host,))
        here = {local.address for local in self._locals}
        self._mapped = {local: address for local, address in self._mapped.items() if local in here}

    def explain(self) -> list[str]:
        """What browsers are told, and why, in one or two lines for people."""
        told = ", ".join(f"{one.address} ({one.source or 'SFU_HOST'})" for one in self.advertised)
        kept = ", ".join(f"{local.address} ({local.interface})" for local in self.withheld)
        return [f"at {told}", *([f"not told to browsers: {kept}"] if kept else [])]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follows changes until cancelled. Counts as started once a STUN server has answered, or might have."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow)
            if self._config.stun is not None:
                nursery.start_soon(self._ask_often, *self._config.stun)
                with trio.move_on_after(FIRST_ANSWER_S):
                    await self._answered.wait()
            task_status.started()

    async def _follow(self) -> None:
        """Tells the workers whenever an address came or went, and has the STUN server asked again. Addresses that they
        could not take yet get another chance each time, the first one as soon as no change is missed."""
        with changes() or contextlib.nullcontext() as news:
            while True:
                before = self.advertised, self._locals
                try:
                    self.read()
                except OSError as error:
                    log.warning("addresses_unknown error=%s", error)
                self.tell(self.listen)
                if (self.advertised, self._locals) != before:
                    self._log_change(before[0])
                    self._ask_now.set()
                await _next(news)

    def _log_change(self, before: Sequence[Advertised]) -> None:
        if self.advertised != before:
            was = ",".join(one.address for one in before)
            told = ",".join(f"{one.address}({one.source})" for one in self.advertised)
            log.info("%s", line("addresses_changed", advertised=told, was=was))

    def doubt(self) -> None:
        """Somebody's media finds no way any more: the public address may have changed."""
        self._ask_now.set()

    async def _ask_often(self, host: str, port: int) -> None:
        while True:
            self._ask_now = trio.Event()
            hosts = tuple(local.address for local in useful(self._locals) if not ip_address(local.address).is_loopback)
            servers = await _resolve(host, port)
            if servers and hosts:
                self.tell(AskMapping(hosts, servers))
            else:
                self._answered.set()  # nothing to wait for
            if not servers:
                self._warn("unresolved", f"The name {host} has no address now: check SFU_STUN and the DNS.")
            await trio.sleep(LEAST_S)
            with trio.move_on_after(ASK_S):
                await self._ask_now.wait()

    def on_mapping(self, mapping: Mapping) -> None:
        """Takes the answer of a STUN server. Without an answer, its last one stays valid."""
        asked = f"{mapping.server} (SFU_STUN)"
        if not mapping.address:
            self._warn(
                "unanswered",
                f"The STUN server {asked} does not answer {mapping.host}: let UDP out, or choose another.",
                mapping.host,
            )
            return
        self._answered.set()
        seen = ip_address(mapping.address)
        if seen.is_unspecified or seen.is_multicast or seen.is_loopback or seen.is_link_local:
            return
        before = self.advertised
        if mapping.address == mapping.host:
            self._mapped.pop(mapping.host, None)
        else:
            self._mapped[mapping.host] = mapping.address
        self._check(mapping, asked)
        if self.advertised != before:
            self._log_change(before)
            self.tell(self.listen)

    def _check(self, mapping: Mapping, asked: str) -> None:
        """Warns of settings of the server or the router that contradict what was seen."""
        public, ours, port = self._config.public_ip, mapping.address, self._config.port
        rivals = [one for one in public if ip_address(one).version == ip_address(ours).version]
        self.contradiction = ours if rivals and ours not in rivals else ""
        if self.contradiction:
            self._warn(
                "public_ip", f"SFU_PUBLIC_IP is {','.join(public)}, but {asked} sees this server at {ours}: set "
                f"SFU_PUBLIC_IP={ours}, or remove it.", ours,
            )  # fmt: skip
        if port and mapping.port != port:
            self._warn(
                "port", f"The NAT in front of this server changes UDP port {port} to {mapping.port}: forward UDP port "
                f"{port} of {ours} to port {port} of {mapping.host} there.", ours,
            )  # fmt: skip

    def _warn(self, about: str, advice: str, of: str = "") -> None:
        """Warns once about each address."""
        if (about, of) not in self._warned:
            self._warned.add((about, of))
            log.warning("%s", line("addresses", about=about, advice=repr(advice)))


async def _next(news: socket.socket | None) -> None:
    """Waits for a change, or until it is time to look for one."""
    if news is None:
        await trio.sleep(POLL_S)
        return
    with trio.move_on_after(AGAIN_S):
        await trio.lowlevel.wait_readable(news)
        await trio.sleep(SETTLE_S)
    with contextlib.suppress(OSError):  # the queue is empty, or overflowed, which is a change as well
        while news.recv(65536):
            pass


async def _resolve(host: str, port: int) -> tuple[tuple[str, int], ...]:
    """One IPv4 and one IPv6 address of the server, those that it has. The resolver runs in a thread."""
    found: list[tuple[str, int]] = []
    with contextlib.suppress(OSError, UnicodeError), trio.move_on_after(RESOLVE_S):
        for *_, address in await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
            text = str(address[0])
            if not any((":" in text) == (":" in other) for other, _ in found):
                found.append((text, port))
    return tuple(found)
