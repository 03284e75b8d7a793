"""One TCP listener for HTTP (hypercorn and the Quart app), the WebSocket at /ws (trio-websocket), and media.

A proxy in TCP mode may name its client first (proxy_protocol.py). The next byte tells media from HTTP and TLS
(media.py). hypercorn reads every other connection until its parser meets an upgrade at /ws, in the first request or a
later one (proxies reuse connections). Then trio-websocket takes over, and the request head is replayed to it. A
misbehaving client affects only its own connection: each head is checked before hypercorn or Quart act on it, each read
and write has a deadline, and exceptions of a connection stay in its task.
"""

from __future__ import annotations

import errno
import logging
import resource
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from sfu.bridge import MediaConnection
from sfu.errors import ConfigError, ServerFull, SfuError, TooManyConnections
from sfu.flood import FloodGate
from sfu.rates import place
from sfu.web import media, proxy_protocol
from sfu.web.http1 import LINGER_S, Connection, Http, refusal
from sfu.web.proxy_protocol import Client
from sfu.web.slots import Slot, Slots
from sfu.web.streams import GONE, READ_BYTES, PacedStream, TcpStream, Upgraded

if TYPE_CHECKING:
    from quart_trio import QuartTrio

    from sfu.config import Config
    from sfu.metrics import Counters
    from sfu.web.tls import Tls

__all__ = ["PacedStream", "Upgraded", "listen", "serve"]

log = logging.getLogger("sfu.edge")

CONNECTIONS = 4096
"""Most open TCP connections; fewer if the limit on open files is too low."""
SHARE = 4
"""One address gets at most a quarter of the connections, or it could lock everybody else out."""
REFUSING = 32
"""Connections that may be receiving a refusal at the same time. Beyond that they are closed without a response."""
ARRIVALS_PER_S, ALL_ARRIVALS_PER_S = 256, 1024
"""New connections per second from one address, and from all. Thirty people behind one may open a link at once."""
AGAIN_S = 0.1
"""Pause after accept() failed."""
SPARE_FILES = 128
"""Open files reserved for everything that is not a connection."""
GRACE_S = 5.0
"""How long running requests and WebSockets may take to end once the server stops. (Docker kills after 10.)"""

Signaling = Callable[[Upgraded], Awaitable[None]]


async def serve(
    config: Config,
    app: QuartTrio,
    signaling: Signaling,
    counters: Counters,
    *,
    tls: Tls | None,
    stop: trio.Event,
    adopt: media.Adopt | None = None,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves on `config.host` and `config.port` until `stop`, then up to GRACE_S longer.

    Its start value are the TCP listeners. Raises ConfigError if it cannot listen. `signaling` must end its WebSockets
    on stop: connections that are still open after GRACE_S are cancelled and closed. `adopt` takes media connections;
    without it there are none.
    """
    listeners = await listen(config)
    edge = _Edge(Http(config, app, counters), signaling, tls, adopt)
    async with trio.open_nursery() as connections:
        try:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(edge.accept, listener, connections)
                task_status.started(listeners)
                await stop.wait()
                accepting.cancel_scope.cancel()
            with trio.move_on_after(GRACE_S):
                await edge.drain()
        finally:
            edge.close()
            connections.cancel_scope.cancel()


async def listen(config: Config) -> list[trio.SocketListener]:
    """Listeners for `config.host`. `*` means IPv4 and IPv6, whichever this machine has. Raises ConfigError."""
    port, found, missing = config.port, list[trio.SocketListener](), OSError()
    for host in ("0.0.0.0", "::") if config.host == "*" else (config.host,):
        try:
            found += await trio.open_tcp_listeners(port, host=host)
        except socket.gaierror as error:
            raise ConfigError(f"SFU_HOST: {host} is not an address of this machine ({error.strerror}).") from None
        except OSError as error:
            if error.errno in _PORT_ERRORS:
                raise ConfigError(_PORT_ERRORS[error.errno].format(port=port)) from None
            missing = error
        else:
            port = port or found[0].socket.getsockname()[1]  # port 0: both families use the port the first one got
    if not found:
        raise ConfigError(f"SFU_HOST: cannot listen on {config.host} port {port} ({missing.strerror}).")
    return found


_PORT_ERRORS = {
    errno.EADDRINUSE: "SFU_PORT: TCP port {port} is in use. Stop the program that uses it, or set another SFU_PORT.",
    errno.EACCES: "SFU_PORT: this user may not listen on TCP port {port}. Set SFU_PORT to 1024 or above.",
}

_NO_HEADER = "The proxy's header is not of the PROXY protocol, version 1 or 2."


class _Edge:
    """All open connections."""

    def __init__(self, http: Http, signaling: Signaling, tls: Tls | None, adopt: media.Adopt | None) -> None:
        self._http = http
        self._signaling = signaling
        self._tls, self._adopt = tls, adopt
        self._open: set[trio.socket.SocketType] = set()
        self._opening: set[trio.CancelScope] = set()  # of connections that have sent nothing yet, or a part of a check
        n = min(CONNECTIONS, max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES))
        config = http.config
        share = max(1, n // SHARE) if config.limits else n + 1
        self._slots = Slots(n, share, http.proxies.trusts)
        self._gate = FloodGate(ARRIVALS_PER_S, ALL_ARRIVALS_PER_S)
        self._refusing = 0
        self._ended = trio.Event()

    async def accept(self, listener: trio.SocketListener, connections: trio.Nursery) -> None:
        """Accepts connections until cancelled.

        A connection beyond the arrival rate is closed here, at a hundredth of the cost of a task. The kernel queues up
        to 4,096 connections, and one that arrives after a flood waits for all of them.
        """
        async with listener:
            while True:
                try:
                    sock, address = await listener.socket.accept()
                except OSError as error:  # out of open files, or the client has already closed the connection
                    if self._gate.warns(trio.current_time()):
                        log.error("accept_failed error=%s", error.strerror)
                    await trio.sleep(AGAIN_S)
                    continue
                self._http.counters.add("sfu_connections_total")
                if self._floods(address[0]):
                    sock.close()
                else:
                    connections.start_soon(self._serve, trio.SocketStream(sock))

    def _floods(self, address: str) -> bool:
        now_s = trio.current_time()
        if (
            not self._http.config.limits
            or self._http.proxies.trusts(address)
            or self._gate.admits(place(address), now_s)
        ):
            return False
        self._http.failed("flood")
        self._http.counters.add("sfu_refused_total", code=TooManyConnections.code)
        if self._gate.warns(now_s):
            log.warning("connections_flood address=%s", address)
        return True

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            await self.handle(stream)
        finally:
            await trio.aclose_forcefully(stream)

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serves one connection until it ends; raises only Cancelled. The caller closes the stream."""
        scope, sock = trio.CancelScope(), stream.socket

        def give_way() -> None:
            self._http.failed("gave_way")
            scope.cancel()

        try:
            client = Client(*sock.getpeername()[:2])
            slot = self._slots.take(client.address, give_way)
        except OSError:
            self._http.failed("lost")
            return
        except (ServerFull, TooManyConnections) as error:
            await self._refuse(stream, error)
            return
        self._open.add(sock)
        try:
            with scope:
                await self._converse(stream, client, slot)
        except* GONE:
            self._http.failed("lost")
        except* Exception as group:
            self._http.failed("error")
            log.error("connection_failed error=%r", group, exc_info=group)
        finally:
            slot.give_back()
            self._open.discard(sock)
            self._ended.set()

    async def _refuse(self, stream: trio.SocketStream, error: SfuError) -> None:
        """Sends a refusal, unless a TLS handshake would have to come first or REFUSING others are being sent."""
        self._http.failed("full")
        self._http.counters.add("sfu_refused_total", code=error.code)
        if self._tls is not None or self._refusing >= REFUSING:
            return
        self._refusing += 1
        try:
            with trio.move_on_after(LINGER_S):
                await stream.send_all(refusal(error))
                await stream.send_eof()
                while await stream.receive_some(READ_BYTES):  # closing with unread data can lose the refusal
                    pass
        except GONE:
            pass
        finally:
            self._refusing -= 1

    async def _converse(self, transport: trio.SocketStream, peer: Client, slot: Slot) -> None:
        deadline = trio.current_time() + self._http.config.head_s
        try:
            client = await self._begin(transport.socket, peer, slot, deadline)
        except TooManyConnections as error:
            await self._refuse(transport, error)
            return
        if client is None:
            return
        stream: TcpStream = transport
        if self._tls is not None:
            stream = trio.SSLStream(transport, self._tls.context, server_side=True, https_compatible=True)
            try:
                with trio.fail_at(deadline):
                    await stream.do_handshake()
            except (*GONE, trio.TooSlowError):
                self._http.failed("tls")
                return
            deadline = trio.current_time() + self._http.config.head_s
        connection = Connection(self._http, stream, client, slot, deadline)
        await connection.run()
        if connection.upgraded is not None:
            await self._signaling(connection.upgraded)

    async def _begin(self, sock: trio.socket.SocketType, peer: Client, slot: Slot, deadline: float) -> Client | None:
        """Reads what may come before HTTP and TLS: the header of a proxy at `peer`, and the first frame of a media
        connection, which then is passed to its worker.

        Returns the client of a connection that goes on here; of others the caller closes this process's end. Raises
        TooManyConnections.
        """
        client, late = peer, "head_timeout" if self._tls is None else "tls"
        with trio.CancelScope(deadline=deadline) as scope:
            self._opening.add(scope)
            try:
                if start := await proxy_protocol.begins(sock):
                    late = "proxy_header"
                    named = await self._named(sock, start, peer, slot)
                    if named is None:
                        return None
                    client = named
                if self._adopt is not None and await media.begins(sock):
                    late = "media_head"
                    await self._pass_on(sock, client, self._adopt)
                    return None
                return client
            except OSError:
                raise trio.BrokenResourceError from None
            finally:
                self._opening.discard(scope)
        if trio.current_time() >= deadline:  # else the server stops
            self._http.failed(late)
        return None

    async def _named(self, sock: trio.socket.SocketType, start: bytes, peer: Client, slot: Slot) -> Client | None:
        """The client in a header, which begins with `start`; None if it is refused. Raises TooManyConnections."""
        proxies = self._http.proxies
        if not proxies.trusts(peer.address):
            proxies.warn("proxy_header_refused", peer.address)
            self._http.failed("proxy_header")
            return None
        try:
            client = await proxy_protocol.read_client(sock, start)
        except proxy_protocol.HeaderError:
            proxies.warn("proxy_header_malformed", peer.address, _NO_HEADER)
            self._http.failed("proxy_header")
            return None
        if client is None:
            return peer
        if self._floods(client.address):
            return None
        slot.named(client.address)
        return client

    async def _pass_on(self, sock: trio.socket.SocketType, client: Client, adopt: media.Adopt) -> None:
        """Passes a media connection to the worker that its first frame names."""
        check = await media.read_check(sock)
        if check is None:
            self._http.failed("media_head")
            return
        ufrag, message = check
        if not adopt(ufrag, sock.fileno(), MediaConnection(message, client.address, client.port)):
            self._http.failed("media_unknown")

    async def drain(self) -> None:
        """Closes idle keep-alive connections at once and returns when the last connection has ended."""
        await self._http.context.terminated.set()
        for scope in self._opening:
            scope.cancel()
        while self._open:
            self._ended = trio.Event()
            await self._ended.wait()

    def close(self) -> None:
        """Closes every socket, even in use: hypercorn shields its writes from cancellation."""
        for sock in self._open:
            sock.close()
