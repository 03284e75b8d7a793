"""Values of settings: each function takes the text of a variable and returns its value.

It raises ValueError with a description of what is accepted. `whole`, `decimal` and `choice` make such functions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ANY_HOST = "*"
"""The `host` that means every IPv4 and IPv6 address of every interface."""

_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,255}", re.ASCII)
_DOMAIN = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]", re.ASCII)
_MAIL = re.compile(r"[!-~]{1,64}@[!-~]{1,255}", re.ASCII)
STUN_PORT = 3478
_STUN_SERVER = re.compile(
    r"(?:(?P<name>[a-zA-Z0-9](?:[\w.-]*\w)?)|(?P<address>\[[0-9a-fA-F:.]+\]))(?::(?P<port>\d{1,5}))?", re.ASCII
)
_BASE_PATH = re.compile(r"(/[\w.~-]+)+", re.ASCII)


def whole(low: int, high: int, *others: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not _DECIMAL.fullmatch(text) or "." in text or not (low <= int(text) <= high or int(text) in others):
            raise ValueError(" or ".join([*map(str, others), f"a whole number from {low} to {high}"]))
        return int(text)

    return parse


def decimal(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not _DECIMAL.fullmatch(text) or not low <= float(text) <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return float(text)

    return parse


def choice(accepted: Mapping[str, Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if text.lower() not in accepted:
            raise ValueError(" or ".join(accepted))
        return accepted[text.lower()]

    return parse


def items(text: str) -> Iterator[str]:
    return (item for item in (part.strip() for part in text.split(",")) if item)


def host(text: str) -> str:
    if text == ANY_HOST:
        return text
    try:
        return str(ip_address("127.0.0.1" if text == "localhost" else text.strip("[]")))
    except ValueError:
        raise ValueError("an IPv4 or IPv6 address of this machine, localhost, or * for every address") from None


def endpoint(text: str) -> tuple[str, int]:
    """An address and a port. The address is one that `host` accepts."""
    where, _, port = text.rpartition(":")
    try:
        return host(where), whole(1, 65535)(port)
    except ValueError:
        raise ValueError("an address and a port, such as 127.0.0.1:9090, [::1]:9090 or *:9090") from None


def token(text: str) -> str:
    """A bearer token (RFC 6750 section 2.1), too long to be guessed."""
    if not _TOKEN.fullmatch(text):
        raise ValueError("16 to 255 letters, digits or - . _ ~ + / =")
    return text


def public_ip(text: str) -> tuple[str, ...]:
    accepted = "IPv4 or IPv6 addresses without port, separated by commas"
    found = []
    for item in items(text):
        try:
            address = ip_address(item)
        except ValueError:
            raise ValueError(f"{accepted}; {item!r} is not one") from None
        if address.is_unspecified or address.is_multicast or getattr(address, "scope_id", None):
            raise ValueError(f"{accepted}; nobody can send to {item!r}")
        found.append(str(address))
    return tuple(dict.fromkeys(found))


def stun_server(text: str) -> tuple[str, int]:
    """Name or address, and port (RFC 7064 without its scheme)."""
    found = _STUN_SERVER.fullmatch(text)
    port = int(found["port"] or STUN_PORT) if found is not None else 0
    if found is None or not 0 < port < 65536:
        raise ValueError("a name or address, with or without a port, such as stun.example.org:3478")
    return found["name"] or host(found["address"]), port


def origins(text: str) -> tuple[str, ...]:
    """Origins as browsers send them (RFC 6454 section 6.2): scheme and host in lower case, no default port, no path."""
    found = []
    for item in items(text):
        parts = urlsplit(item.lower())
        default_port = {"http": 80, "https": 443}.get(parts.scheme)
        try:
            port, host = parts.port, parts.hostname
        except ValueError:
            port, host = None, None
        more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
        if default_port is None or not host or more or not item.isascii():
            raise ValueError(f"origins such as https://example.org, separated by commas; {item!r} is not one")
        host = f"[{host}]" if ":" in host else host
        found.append(f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, default_port) else ""))
    return tuple(dict.fromkeys(found))


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    found = []
    for item in items(text):
        try:
            found.append(ip_network(item))
        except ValueError:
            raise ValueError(
                f"addresses or networks such as 10.0.0.0/8, comma-separated; {item!r} is not one"
            ) from None
    return tuple(found)


def domains(text: str) -> tuple[str, ...]:
    """Host names in lower case (RFC 1123), of which an authority can check that they lead to this server."""
    found = [item.lower().rstrip(".") for item in items(text)]
    for item in found:
        if not _DOMAIN.fullmatch(item):
            more = " (in the xn-- form)" if not item.isascii() else ""
            raise ValueError(f"domains such as meet.example.org, separated by commas; {item!r} is not one{more}")
    return tuple(dict.fromkeys(found))


def https_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or not text.isascii() or not text.isprintable() or "@" in text:
        raise ValueError("a URL such as https://acme.example.org/directory")
    return text


def mail(text: str) -> str:
    if not _MAIL.fullmatch(text) or "," in text:
        raise ValueError("one mail address, such as admin@example.org")
    return text


def base_path(text: str) -> str:
    path = text.rstrip("/")
    if path and (not _BASE_PATH.fullmatch(path) or {".", ".."} & set(path.split("/"))):
        raise ValueError("a path such as /meet, of letters, digits and . _ ~ -")
    return path


def file(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        raise ValueError("the path of an existing file")
    if not os.access(path, os.R_OK):
        raise ValueError("the path of a file that this user may read")
    return path


def path(text: str) -> Path:
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        path = Path()
    if not path.is_absolute() or "\0" in text:
        raise ValueError("an absolute path (it need not exist)")
    return path


def data_dir() -> Path:
    """The default folder: systemd's state directory of a service, root's, or a user's (XDG Base Directory)."""
    if of_service := os.environ.get("STATE_DIRECTORY"):
        return Path(of_service.split(":")[0])  # a service may have several
    if os.geteuid() == 0:
        return Path("/var/lib/sfu")
    state = os.environ.get("XDG_STATE_HOME", "")
    return Path(state if os.path.isabs(state) else "~/.local/state").expanduser() / "sfu"


def text(text: str) -> str:
    if not text.isprintable() or len(text) > 255:
        raise ValueError("up to 255 printable characters")
    return text


def cores() -> int:
    """Cores this process may use. macOS has no CPU affinity, so there it is all cores."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
