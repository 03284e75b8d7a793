"""HTTP/1.1 on one connection: hypercorn's parser, with each head checked first, until an upgrade at /ws.

All code that depends on private parts of hypercorn is here; heads.py has that of h11. hypercorn cancels, shields and
closes from any task. Here, only the task that reads a connection ends it, and other tasks signal that task.
"""

from __future__ import annotations

import logging
import math
from copy import copy
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import h11
import hypercorn
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from sfu.errors import SfuError, TooManyConnections
from sfu.web.app import CODES, PROBLEM_TYPE, SECURITY_HEADERS, problem
from sfu.web.heads import Lines, below, faults, is_upgrade, readable
from sfu.web.proxies import Proxies, Seen
from sfu.web.proxy_protocol import Client
from sfu.web.slots import Slot
from sfu.web.streams import GONE, READ_BYTES, PacedStream, TcpStream, Upgraded

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework

    from sfu.process.metrics import Counters
    from sfu.settings.config import Config
    from sfu.web.tls import Tls

log = logging.getLogger("sfu.http")

LINGER_S = 1.0
"""How long to read on after a response to an incomplete request: closing with unread data resets the connection, and
the client may lose the response."""

DAY_S = 86_400


class Http:
    """State shared by all connections. Without `signaling`, requests for a WebSocket are the app's, like all others."""

    def __init__(
        self, config: Config, app: ASGIFramework, counters: Counters, seen: Seen, tls: Tls | None = None
    ) -> None:
        self.config = config
        self.counters = counters
        self.tls, self.signaling = tls, True
        self.proxies = Proxies(config.trusted_proxies, seen)
        self.context = WorkerContext(None)
        self.idle = set[trio.CancelScope]()  # of connections that wait for a request
        self.app = wrap_app(app, 0, "asgi")
        self.hypercorn = hypercorn.Config()
        self.hypercorn.keep_alive_timeout = config.keep_alive_s
        self.hypercorn.h11_max_incomplete_size = config.head_bytes
        self.hypercorn.include_server_header = False
        self.hypercorn.errorlog = log

    def outside(self, app: ASGIFramework) -> Http:
        """The same for an app that sees requests as they came in, below any path, and gets no WebSockets."""
        other = copy(self)
        other.app, other.signaling = wrap_app(app, 0, "asgi"), False
        other.config = replace(self.config, base_path="")
        return other

    def transport_security(self, host: str) -> list[tuple[bytes, bytes]]:
        """The header that makes browsers insist on https for a host (RFC 6797), where it has a certificate for good.

        An address or localhost is no name for good, and browsers ignore it there (section 8.1.1).
        """
        labels = host.partition(":")[0].rstrip(".").lower().split(".")
        domain = len(labels) > 1 and labels[-1][:1].isalpha() and labels[-1] != "localhost"
        if self.tls is None or not self.tls.of_authority or not domain:
            return []
        return [(b"strict-transport-security", b"max-age=%d" % (self.config.hsts_days * DAY_S))]

    def failed(self, kind: str) -> None:
        """Counts a failed connection."""
        self.counters.add("sfu_connection_failures_total", kind=kind)


class _RefusedError(Exception):
    """The request is answered with this status, and the connection ends."""

    def __init__(self, status: int, detail: str, *, code: str = "", with_body: bool = True) -> None:
        super().__init__(detail)
        self.status, self.detail, self.with_body = status, detail, with_body
        self.code = code or CODES.get(status, "bad_request")


class _UpgradeError(Exception):
    """The request is an upgrade at /ws."""

    def __init__(self, request: h11.Request) -> None:
        super().__init__()
        self.request = request


class Connection(TCPServer):
    """One HTTP connection, until it ends or is upgraded. After an upgrade, `upgraded` is set and the stream is open.

    hypercorn's base class provides the send lock. Its timer for idle connections is a task for each request; here it is
    a deadline.
    """

    protocol: _Protocol  # type: ignore[assignment]

    def __init__(self, http: Http, stream: TcpStream, client: Client, slot: Slot, deadline: float) -> None:
        """`client` is at the other end, of a proxy in TCP mode if there is one. The first head must be complete at
        `deadline`."""
        self.paced = PacedStream(stream, http.config, http.counters)
        super().__init__(http.app, http.hypercorn, http.context, {}, self.paced)  # type: ignore[arg-type]
        self.upgraded: Upgraded | None = None
        self._http = http
        self._transport, self._slot, self._deadline = stream, slot, deadline
        self._client = client
        self._reading = trio.CancelScope()
        self._over = False  # reading has ended: hypercorn must not wait for another request

    async def run(self) -> None:
        sock = socket_of(self._transport)
        try:
            local = sock.getsockname()[:2]
        except OSError:
            raise trio.BrokenResourceError("the client is gone") from None
        peer, secure = self._client[:2], self._client.secure or isinstance(self._transport, trio.SSLStream)
        async with TaskGroup() as group:
            self._task_group = group
            self.protocol = _Protocol(self._http, group, secure, peer, local, self.protocol_send, self._slot)
            await self._read_data()
        if self.upgraded is None:
            await self._finish()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            if event.idle:
                self._slot.answered()
            self._idles(event.idle)
            return
        with trio.CancelScope(shield=True):  # quart-trio cancels the request's task during its last send
            if isinstance(event, Closed):
                await self._end()
            elif isinstance(event, RawData):
                async with self.send_lock:
                    try:
                        await self.paced.send_all(event.data)
                    except GONE:
                        await self._end()

    def _idles(self, idle: bool) -> None:
        """Between two requests, reading ends after a while, and at once if the server stops."""
        if idle and not self._over:
            self._reading.deadline = trio.current_time() + self._http.hypercorn.keep_alive_timeout
            self._http.idle.add(self._reading)
            if self._http.context.terminated.is_set():
                self._reading.cancel()
        else:
            self._reading.deadline = math.inf
            self._http.idle.discard(self._reading)

    async def _end(self) -> None:
        self._over = True
        self._reading.cancel()
        await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        """Reads until the connection ends or is upgraded. A request that runs at the client's EOF is still answered."""
        finished = False
        self._idles(True)
        with self._reading:
            try:
                finished = await self._read_requests()
            except _UpgradeError as found:
                self.upgraded = self._hand_over(found.request)
            except _RefusedError as refused:
                await self.protocol.refuse(refused)
            except GONE:
                pass  # closed by the client or by the idle timer
        self._over = True
        self._idles(False)
        if not finished:
            await self.protocol.handle(Closed())

    async def _read_requests(self) -> bool:
        """True at the client's EOF, false if it sent nothing before the first deadline.

        Raises _UpgradeError or _RefusedError.
        """
        deadline = self._deadline
        while True:
            with trio.move_on_at(deadline) as head:
                data = await self.paced.receive_some(READ_BYTES)
            connection = self.protocol.connection
            if head.cancelled_caught:
                self._http.failed("head_timeout")
                if connection.trailing_data[0]:
                    raise _RefusedError(408, "The head of the request took too long.")
                return False
            requests = self.protocol.keep_alive_requests
            await self.protocol.handle(RawData(data))
            if not data:
                return True
            if connection.their_state is not h11.IDLE or not connection.trailing_data[0]:
                deadline = math.inf  # the idle timer and the request's own timeouts apply
            elif deadline == math.inf or self.protocol.keep_alive_requests > requests:
                deadline = trio.current_time() + self._http.config.head_s

    def _hand_over(self, request: h11.Request) -> Upgraded:
        config, headers = self._http.config, [(b"upgrade", b"websocket"), *request.headers]
        lines = [b"GET %s HTTP/1.1" % request.target, *(b"%s: %s" % header for header in headers)]
        head = b"\r\n".join(lines) + b"\r\n\r\n" + self.protocol.connection.trailing_data[0]
        return Upgraded(
            stream=PacedStream(self._transport, config, self._http.counters, head=head, paced=config.limits),
            headers=headers,
            target=request.target.decode(),
            client=self.protocol.client[0] if self.protocol.client else "",
            secure=self.protocol.ssl,
            host=next((value.decode() for name, value in headers if name == b"host"), ""),
        )

    async def _finish(self) -> None:
        if self.protocol.connection.their_state in (h11.SEND_BODY, h11.ERROR):
            with trio.move_on_after(LINGER_S):
                try:
                    await self.paced.send_eof()
                    while await self.paced.receive_some(READ_BYTES):
                        pass
                except GONE:
                    pass
        await self.paced.aclose()


class _Protocol(H11Protocol):
    """hypercorn's HTTP/1.1 without its upgrades to HTTP/2 and WebSocket."""

    connection: h11.Connection

    def __init__(
        self,
        http: Http,
        group: TaskGroup,
        secure: bool,
        peer: tuple[str, int],
        local: tuple[str, int],
        send: Any,
        slot: Slot,
    ) -> None:
        super().__init__(http.app, http.hypercorn, http.context, group, ConnectionState({}), secure, peer, local, send)
        self._settings, self._counters, self._proxies, self._http = http.config, http.counters, http.proxies, http
        self._host = ""  # of the last request
        self._unsent = b""
        self._peer, self._secure, self._slot = peer, secure, slot
        self.connection._receive_buffer = Lines()

    async def _check_protocol(self, event: h11.Request) -> None:
        """Called by hypercorn for every head. Raises _RefusedError or _UpgradeError.

        Sets `client` and `ssl`, which the app sees, with regard to trusted proxies.
        """
        with_body = event.method != b"HEAD"
        event = self._located(event)
        for wrong, status, detail in faults(event, self._settings):
            if wrong:
                raise _RefusedError(status, detail, with_body=with_body)
        self._host = next((value.decode() for name, value in event.headers if name == b"host"), "")
        address, self.ssl = self._proxies.client(self._peer[0], self._secure, event.headers)
        self.client = (address, 0)
        try:
            self._slot.asked(address)
        except TooManyConnections as error:
            raise _RefusedError(error.status, str(error), code=error.code, with_body=with_body) from None
        if self._http.signaling and is_upgrade(event):
            raise _UpgradeError(readable(event))

    async def _create_stream(self, request: h11.Request) -> None:
        """Called by hypercorn after _check_protocol. Ignores offers of other protocols (RFC 9110 section 7.8)."""
        await super()._create_stream(readable(self._located(request)))

    def _located(self, request: h11.Request) -> h11.Request:
        """The request with its target as a path below this server's root (RFC 9112 section 3.2)."""
        target = below(self._settings.base_path.encode(), request.target)
        if target == request.target:
            return request
        headers, version = request.headers, request.http_version
        return h11.Request(method=request.method, target=target, headers=headers, http_version=version)

    async def _send_error_response(self, status_code: int) -> None:
        """Called by hypercorn if h11 cannot parse the request."""
        raise _RefusedError(status_code, "The request is not valid HTTP/1.1, or its head is too long.")

    async def _send_h11_event(self, event: Any) -> None:
        """A head waits for the first part of its body, which follows at once: so most responses are one segment."""
        if isinstance(event, h11.Response):
            self._counters.add("sfu_http_requests_total", status=str(event.status_code))
            if self._secure and (more := self._http.transport_security(self._host)):
                event = h11.Response(status_code=event.status_code, headers=[*event.headers, *more])
        try:
            self._unsent += self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        if not isinstance(event, h11.Response):
            await self._flush()

    async def _flush(self) -> None:
        if self._unsent:
            data, self._unsent = self._unsent, b""
            await self.send(RawData(data=data))

    async def refuse(self, refused: _RefusedError) -> None:
        """Sends the refusal. Checks and hypercorn refuse a request only before its response has begun."""
        self._counters.add("sfu_refused_total", code=refused.code)
        body = problem(refused.status, refused.detail, refused.code).encode()
        headers = [(name.encode(), value.encode()) for name, value in _fields(body).items()]
        headers += self.config.response_headers("h11")
        await self._send_h11_event(h11.Response(status_code=refused.status, headers=headers))
        if refused.with_body:
            await self._send_h11_event(h11.Data(data=body))
            await self._send_h11_event(h11.EndOfMessage())
        await self._flush()


def refusal(error: SfuError) -> bytes:
    """A complete HTTP response for a connection that is refused before any request was read."""
    body = problem(error.status, str(error), error.code).encode()
    again = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    fields = [f"{name}: {value}" for name, value in (_fields(body) | again).items()]
    line = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"
    return "\r\n".join([line, *fields, "", ""]).encode() + body


def _fields(body: bytes) -> dict[str, str]:
    return {"Content-Type": PROBLEM_TYPE, "Content-Length": str(len(body)), "Connection": "close"} | SECURITY_HEADERS


def socket_of(stream: TcpStream) -> trio.socket.SocketType:
    return (stream.transport_stream if isinstance(stream, trio.SSLStream) else stream).socket
