"""One TCP listener for HTTP (hypercorn and the Quart app), the WebSocket at /ws (trio-websocket), and media.

A proxy in TCP mode may name its client first (proxy_protocol.py). The next byte tells media (media.py), TLS and HTTP
apart. Where the server speaks https, plain http is answered with redirects (redirect.py), here and on another port.
hypercorn reads every other connection until its parser meets an upgrade at /ws, in the first request or a later one
(proxies reuse connections). Then trio-websocket takes over, and the request head is replayed to it. A misbehaving
client affects only its own connection: each head is checked before hypercorn or Quart act on it, each read and write
has a deadline, and exceptions of a connection stay in its task.
"""

from __future__ import annotations

import errno
import logging
import resource
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from sfu.connections import MediaConnection
from sfu.errors import ConfigError, ServerFull, SfuError, TooManyConnections
from sfu.flood import FloodGate
from sfu.limits.rates import place
from sfu.web import media, proxy_protocol
from sfu.web.challenges import Challenges
from sfu.web.http1 import LINGER_S, Connection, Http, refusal
from sfu.web.proxies import Seen
from sfu.web.proxy_protocol import Client
from sfu.web.redirect import Redirect
from sfu.web.slots import Slot, Slots
from sfu.web.streams import GONE, READ_BYTES, PacedStream, TcpStream, Upgraded

if TYPE_CHECKING:
    from quart_trio import QuartTrio

    from sfu.process.metrics import Counters
    from sfu.settings.config import Config
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
TLS_HANDSHAKE = b"\x16"
"""The first byte of a TLS connection (RFC 8446 section 5.1)."""

T = TypeVar("T")
Signaling = Callable[[Upgraded], Awaitable[None]]


async def serve(
    config: Config,
    app: QuartTrio,
    signaling: Signaling,
    counters: Counters,
    *,
    tls: Tls | None = None,
    stop: trio.Event,
    adopt: media.Adopt | None = None,
    metrics: bool = False,
    challenges: Challenges | None = None,
    plain: Sequence[trio.SocketListener] = (),
    seen: Seen | None = None,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves on `config.host` and `config.port`, or for `metrics` on `config.metrics`, until `stop`, then up to GRACE_S
    longer.

    Its start value are the TCP listeners. Raises ConfigError if it cannot listen. `signaling` must end its WebSockets
    on stop: connections that are still open after GRACE_S are cancelled and closed. `adopt` takes media connections;
    without it there are none. `plain` are listeners for http only, beside https, and `challenges` what it answers.
    `seen` notes the senders of forwarding headers.
    """
    listeners = await listen(config, metrics=metrics)
    http = Http(config, app, counters, seen or Seen(), tls)
    edge = _Edge(http, signaling, tls, adopt, challenges or Challenges())
    async with trio.open_nursery() as connections:
        try:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    accepting.start_soon(edge.accept, listener, connections, edge.converse)
                for listener in plain:
                    accepting.start_soon(edge.accept, listener, connections, edge.redirect)
                task_status.started(listeners)
                await stop.wait()
                accepting.cancel_scope.cancel()
            with trio.move_on_after(GRACE_S):
                await edge.drain()
        finally:
            edge.close()
            connections.cancel_scope.cancel()


async def listen(config: Config, *, metrics: bool = False) -> list[trio.SocketListener]:
    """Listeners for `config.host`, or for `config.metrics`. `*` means IPv4 and IPv6, whichever this machine has. Raises
    ConfigError."""
    if metrics and config.metrics:
        return await _listen(*config.metrics, "SFU_METRICS", "SFU_METRICS")
    return await _listen(config.host, config.port, "SFU_HOST", "SFU_PORT")


async def listen_plain(config: Config) -> list[trio.SocketListener]:
    """Listeners for plain http beside https, if the settings want any. Raises ConfigError.

    The default port is nice to have: if it cannot be used, the log says why.
    """
    try:
        return (
            await _listen(config.host, config.plain_port, "SFU_HOST", "SFU_REDIRECT_PORT") if config.plain_port else []
        )
    except ConfigError as error:
        if config.redirect_port is not None:
            raise
        log.warning("redirect_port_closed port=%d reason=%r", config.plain_port, str(error))
        return []


async def _listen(host: str, port: int, of_host: str, of_port: str) -> list[trio.SocketListener]:
    """`of_host` and `of_port` are the settings that errors name."""
    found, missing = list[trio.SocketListener](), OSError()
    for one in ("0.0.0.0", "::") if host == "*" else (host,):
        try:
            found += await trio.open_tcp_listeners(port, host=one)
        except socket.gaierror as error:
            raise ConfigError(f"{of_host}: {one} is not an address of this machine ({error.strerror}).") from None
        except OSError as error:
            if error.errno in _PORT_ERRORS:
                for listener in found:
                    await listener.aclose()
                raise ConfigError(_PORT_ERRORS[error.errno].format(of=of_port, port=port)) from None
            missing = error
        else:
            port = port or found[0].socket.getsockname()[1]  # port 0: both families use the port the first one got
    if not found:
        raise ConfigError(f"{of_host}: cannot listen on {host} port {port} ({missing.strerror}).")
    return found


_PORT_ERRORS = {
    errno.EADDRINUSE: "{of}: TCP port {port} is in use. Stop the program that uses it, or set another {of}.",
    errno.EACCES: "{of}: this user may not listen on TCP port {port}. Set {of} to 1024 or above, or let the user have "
    'it: see "Ports below 1024" in docs/operating.md.',
}

_NO_HEADER = "The proxy's header is not of the PROXY protocol, version 1 or 2."


class _Edge:
    """All open connections."""

    def __init__(
        self, http: Http, signaling: Signaling, tls: Tls | None, adopt: media.Adopt | None, challenges: Challenges
    ) -> None:
        self._http, self._signaling = http, signaling
        self._tls, self._adopt, self._challenges = tls, adopt, challenges
        self._plain = http.outside(Redirect(challenges, http.config.tls_domain, http.config.port))
        self._open: set[trio.socket.SocketType] = set()
        self._opening: set[trio.CancelScope] = set()  # of connections that have sent nothing yet, or a part of a check
        n = min(CONNECTIONS, max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES))
        config = http.config
        share = max(1, n // SHARE) if config.limits else n + 1
        self._slots = Slots(n, share, http.proxies.trusts)
        self._gate = FloodGate(ARRIVALS_PER_S, ALL_ARRIVALS_PER_S)
        self._refusing = 0
        self._ended = trio.Event()

    async def accept(
        self, listener: trio.SocketListener, connections: trio.Nursery, converse: Callable[..., Awaitable[None]]
    ) -> None:
        """Accepts connections until cancelled, and serves each by `converse`.

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
                    connections.start_soon(self._serve, trio.SocketStream(sock), converse)

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

    async def _serve(self, stream: trio.SocketStream, converse: Callable[..., Awaitable[None]]) -> None:
        try:
            await self.handle(stream, converse)
        finally:
            await trio.aclose_forcefully(stream)

    async def handle(self, stream: trio.SocketStream, converse: Callable[..., Awaitable[None]]) -> None:
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
                await converse(stream, client, slot)
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

    async def converse(self, transport: trio.SocketStream, peer: Client, slot: Slot) -> None:
        """Serves a connection from `peer` to the server's port: media, TLS or plain http."""
        deadline = trio.current_time() + self._http.config.head_s
        begun = await self._begin(transport, peer, slot, deadline)
        if begun is None:
            return
        client, first = begun
        stream: TcpStream | None = transport
        if self._adopt is not None or self._tls is not None:
            if self._adopt is not None and media.begins(first):
                self._pass_on(transport.socket, client, await self._begun(deadline, media.read_check(transport.socket)))
                return
            if self._tls is not None:
                if first not in (b"", TLS_HANDSHAKE):
                    await Connection(self._plain, transport, client, slot, deadline).run()
                    return
                stream = await self._secured(transport, self._tls, deadline)
                deadline = trio.current_time() + self._http.config.head_s
        if stream is None:
            return
        connection = Connection(self._http, stream, client, slot, deadline)
        await connection.run()
        if connection.upgraded is not None:
            await self._signaling(connection.upgraded)

    async def redirect(self, transport: trio.SocketStream, peer: Client, slot: Slot) -> None:
        """Serves a connection from `peer` to the port of plain http."""
        deadline = trio.current_time() + self._http.config.head_s
        if (begun := await self._begin(transport, peer, slot, deadline)) is not None:
            await Connection(self._plain, transport, begun[0], slot, deadline).run()

    async def _begin(
        self, transport: trio.SocketStream, peer: Client, slot: Slot, deadline: float
    ) -> tuple[Client, bytes] | None:
        """Who is at the other end, `peer` or whom it names if it is a proxy in TCP mode, and the first byte that comes
        from there, if any. None if it is refused."""
        sock = transport.socket
        first = await self._begun(deadline, self._first(sock)) or b""
        if first not in proxy_protocol.FIRST or not (start := await self._begun(deadline, proxy_protocol.begins(sock))):
            return peer, first
        try:
            client = await self._begun(deadline, self._named(transport.socket, start, peer, slot))
        except TooManyConnections as error:
            await self._refuse(transport, error)
            return None
        if client is not None:
            return client, await self._begun(deadline, self._first(sock)) or b""
        if trio.current_time() >= deadline:
            self._http.failed("proxy_header")
        return None

    async def _named(self, sock: trio.socket.SocketType, start: bytes, peer: Client, slot: Slot) -> Client | None:
        """The client in a header, which begins with `start`; None if it is refused. Raises TooManyConnections."""
        proxies = self._http.proxies
        if not proxies.trusts(peer.address):
            proxies.warn("proxy_header_refused", peer.address)
            proxies.seen.note(peer.address, trusted=False)
            self._http.failed("proxy_header")
            return None
        try:
            client = await proxy_protocol.read_client(sock, start)
        except proxy_protocol.HeaderError:
            proxies.warn("proxy_header_malformed", peer.address, _NO_HEADER)
            self._http.failed("proxy_header")
            return None
        proxies.seen.note(peer.address, trusted=True)
        if client is None:
            return peer
        if self._floods(client.address):
            return None
        slot.named(client.address)
        return client

    async def _begun(self, deadline: float, what: Coroutine[Any, Any, T]) -> T | None:
        """What a connection begins with. None if it is not there at the deadline or when the server stops."""
        with trio.CancelScope(deadline=deadline) as scope:
            if self._http.context.terminated.is_set():
                scope.cancel()
            self._opening.add(scope)
            try:
                return await what
            except OSError:
                raise trio.BrokenResourceError from None
            finally:
                self._opening.discard(scope)
        return None

    async def _first(self, sock: trio.socket.SocketType) -> bytes:
        """The first byte, or none at the end. Consumes nothing."""
        return await sock.recv(1, socket.MSG_PEEK)

    def _pass_on(self, sock: trio.socket.SocketType, client: Client, check: tuple[str, bytes] | None) -> None:
        """Passes a media connection to its worker. The caller closes this process's end of it."""
        if check is None or self._adopt is None:
            self._http.failed("media_head")
        elif not self._adopt(check[0], sock.fileno(), MediaConnection(check[1], client.address, client.port)):
            self._http.failed("media_unknown")

    async def _secured(self, transport: trio.SocketStream, tls: Tls, deadline: float) -> TcpStream | None:
        """The connection after its TLS handshake; None if that failed, or was all that the client wanted."""
        challenge = await self._begun(deadline, self._challenges.context(transport.socket))
        stream = trio.SSLStream(transport, challenge or tls.context, server_side=True, https_compatible=True)
        try:
            with trio.fail_at(deadline):
                await stream.do_handshake()
        except (*GONE, trio.TooSlowError):
            self._http.failed("tls")
            return None
        return stream if challenge is None else None

    async def drain(self) -> None:
        """Closes idle keep-alive connections at once and returns when the last connection has ended."""
        await self._http.context.terminated.set()
        for scope in (*self._opening, *self._http.idle):
            scope.cancel()
        while self._open:
            self._ended = trio.Event()
            await self._ended.wait()

    def close(self) -> None:
        """Closes every socket, even in use: hypercorn shields its writes from cancellation."""
        for sock in self._open:
            sock.close()
