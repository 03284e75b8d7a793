"""Heads of requests: what is refused although h11 accepts it, and what the libraries behind h11 need."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import h11
from h11._receivebuffer import ReceiveBuffer

from sfu.web.bodies import STREAMED
from sfu.web.proxies import members

if TYPE_CHECKING:
    from sfu.settings.config import Config

HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[\w-]{1,63}(\.[\w-]{1,63}){0,31}\.?)?(:\d{0,5})?\Z", re.ASCII)
ORIGIN = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
BARE_LF = re.compile(rb"(?<!\r)\n")
UPGRADE_PATH = b"/ws"
TO_ASCII = bytes(range(128)) + b"?" * 128
"""Headers may have other bytes (RFC 9110 section 5.5). hypercorn, Quart and wsproto raise exceptions on them."""


class Lines(ReceiveBuffer):
    """h11's buffer, which also takes lines that end in a bare LF, and folded ones (RFC 9112 sections 2.2 and 5.2). A
    proxy may read the same bytes as another request, so the head, or the trailers, of such a request are refused."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        before = bytes(self)
        lines = super().maybe_extract_lines()
        if lines is not None:
            bare = BARE_LF.search(before, 0, len(before) - len(self))
            if bare or any(line.startswith((b" ", b"\t")) for line in lines[1:]):
                raise h11.RemoteProtocolError("a bare LF or a folded line")
        return lines


def faults(request: h11.Request, config: Config) -> Iterable[tuple[bool, int, str]]:
    """Reasons to refuse a head that h11 has accepted: whether each applies, its status and its sentence.

    Host values that are no host name raise exceptions inside Quart. A request whose length is ambiguous could hide
    another request from a proxy (RFC 9112 section 6.3).
    """
    headers = list(request.headers)
    lengths = [int(value) for name, value in headers if name == b"content-length"]
    chunked = any(name == b"transfer-encoding" for name, _ in headers)
    has_body = chunked or any(lengths)
    size = len(request.target) + sum(len(name) + len(value) + 4 for name, value in headers)
    yield not request.http_version.startswith(b"1."), 505, "This server speaks HTTP/1.1."
    yield size > config.head_bytes, 431, f"The head of a request may have up to {config.head_bytes} bytes."
    yield chunked and bool(lengths), 400, "A request has either a Content-Length or a Transfer-Encoding."
    yield chunked and request.http_version == b"1.0", 400, "A request with a Transfer-Encoding must be HTTP/1.1."
    yield not request.target.startswith(b"/"), 400, "The request's target is not a path."
    hosts = [value.decode("latin1") for name, value in headers if name == b"host"]
    yield not all(HOST.match(host) for host in hosts), 400, "The Host header is not a host name."
    yield is_upgrade(request) and has_body, 400, "A request for a WebSocket must not have a body."
    streamed = request.target.partition(b"?")[0].decode("latin1") in STREAMED
    limit = max(config.body_bytes, config.file_bytes) if streamed else config.body_bytes
    yield max(lengths, default=0) > limit, 413, f"The body of this request may have up to {limit} bytes."


def below(base_path: bytes, target: bytes) -> bytes:
    """The target without the scheme and host of its absolute form, and without the base path."""
    if origin := ORIGIN.match(target):
        rest = target[origin.end() :]
        target = rest if rest.startswith(b"/") else b"/" + rest
    return target[len(base_path) :] if target.startswith(base_path + b"/") else target


def readable(request: h11.Request) -> h11.Request:
    """The request as the libraries behind h11 need it: in ASCII, and without Upgrade, which was acted upon here."""
    if all(name != b"upgrade" and value.isascii() for name, value in request.headers):
        return request
    headers = [(name, value.translate(TO_ASCII)) for name, value in request.headers if name != b"upgrade"]
    return h11.Request(method=request.method, target=request.target, headers=headers, http_version=request.http_version)


def is_upgrade(request: h11.Request) -> bool:
    """Whether this is a WebSocket handshake at /ws. trio-websocket checks the details."""
    return (
        request.method == b"GET"
        and request.http_version != b"1.0"
        and request.target.partition(b"?")[0] == UPGRADE_PATH
        and "websocket" in lower(members(request.headers, b"upgrade"))
        and "upgrade" in lower(members(request.headers, b"connection"))
    )


def lower(texts: Iterable[str]) -> set[str]:
    return {text.lower() for text in texts}
