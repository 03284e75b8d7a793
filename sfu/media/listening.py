"""The addresses that a worker listens on and advertises, as the control plane wants them."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from functools import partial
from itertools import product

from sfu import bridge
from sfu.media.peer import sdp
from sfu.media.peer.peer import Peer
from sfu.media.peer.shared import Shared

log = logging.getLogger("sfu.media")


class Listening:
    """Of one worker. `peers` is the worker's own table."""

    def __init__(self, shared: Shared, peers: Mapping[str, Peer]) -> None:
        self._shared, self._peers = shared, peers

    @property
    def ready(self) -> bridge.Ready:
        """Where the worker listens now."""
        udp = self._shared.udp
        return bridge.Ready(udp.port, tuple(udp.endpoints), self._shared.advertised)

    def open(self) -> None:
        """Binds the addresses that are wanted. Raises OSError if the port is taken, or if there is no address at
        all."""
        shared, hosts = self._shared, self._shared.listen.hosts
        try:
            shared.udp.open(hosts, shared.config.port or shared.udp.port)
        finally:
            shared.candidates = sdp.candidate_lines(shared.advertised, shared.udp.port, shared.config.tcp_port)
        if not shared.udp.endpoints:
            raise OSError(errno.EADDRNOTAVAIL, f"this machine does not have {' or '.join(hosts) or 'an address'} yet")

    def change(self, listen: bridge.Listen) -> None:
        """Takes other addresses. New candidates are trickled to all peers (RFC 8838). Those whose path may have ended
        restart ICE: the path's own address is gone, or one of a NAT, through which any path may lead."""
        shared, before, known = self._shared, self.ready, self._shared.candidates
        local = {*before.addresses, *shared.listen.hosts}
        shared.listen = listen
        try:
            self.open()
        except OSError as error:
            log.warning("address_unusable error=%s", error)
        if self.ready == before:
            return
        new = [line for line in shared.candidates if line not in known]
        closed = {*before.addresses} - {*shared.udp.endpoints}
        moved = {*before.advertised} - {*shared.advertised} - local
        for peer in self._peers.values():
            for line in new:
                shared.emit(bridge.Candidate(peer.id, line, "0"))
            path = peer.agent.selected
            if path is not None and (moved or path.endpoint.address in closed):
                peer.negotiation.restart_ice()
        shared.emit(self.ready)

    def ask(self, command: bridge.AskMapping) -> None:
        """Asks STUN servers; a Mapping follows for each question."""
        udp = self._shared.udp
        for host, server in product(command.hosts, command.servers):
            endpoint = udp.endpoints.get(host)
            if endpoint is not None and (":" in host) == (":" in server[0]):
                udp.questions.ask(endpoint, server, partial(self._answered, host, server[0]))

    def _answered(self, host: str, server: str, address: str, port: int) -> None:
        self._shared.emit(bridge.Mapping(host, server, address, port))
