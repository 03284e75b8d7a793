"""TURN: the URLs of relay servers, and the short-lived credentials that a client needs to use them. Pure.

The server and the relay share a secret and nothing else (draft-uberti-behave-turn-rest-00): a username contains its
expiry, and its password is a MAC of the username.
"""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass
from ipaddress import IPv6Address

CREDENTIALS_S = 86_400
"""Lifetime of credentials. A client gets new ones whenever it joins or resumes. In between, it needs them for each ICE
restart, and a call may take a day."""
PORTS = {"turn": 3478, "turns": 5349}
"""Default ports by scheme (RFC 7065 section 3.2)."""
LOW_PORTS = (53, 80, 443)
"""Chromium sends to no other ports below 1024 (TurnPort::AllowedTurnPort)."""

_URL = re.compile(
    r"(?P<scheme>turns?):(?P<host>\[[\da-f:.]+\]|[\da-z](?:[\da-z.-]*[\da-z])?)(?::(?P<port>\d{1,5}))?"
    r"(?:\?transport=(?P<transport>udp|tcp))?",
    re.ASCII,
)
_SECRET = re.compile(r"[\w.~+/=-]{16,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TurnUrl:
    """A URL of a TURN server (RFC 7065)."""

    scheme: str
    host: str
    port: int


def parse_url(url: str) -> TurnUrl:
    """The parts of a URL in lower case. Raises ValueError with the reason why no browser could use it here."""
    if url.startswith(("stun:", "stuns:")):
        raise ValueError("is of no use: this server needs no candidates of clients")
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError("is not one")
    scheme, host, port = found["scheme"], found["host"], int(found["port"] or PORTS[found["scheme"]])
    if port not in LOW_PORTS and not 1024 <= port < 65536:
        raise ValueError("has a port that browsers refuse: use 443, 80, 53 or one from 1024 to 65535")
    if scheme == "turns" and found["transport"] == "udp":
        raise ValueError("is not for browsers, which use turns: over TCP only")
    if host.startswith("["):
        try:
            host = str(IPv6Address(host[1:-1]))
        except ValueError:
            raise ValueError("has no valid address") from None
    return TurnUrl(scheme, host, port)


def parse_urls(text: str) -> tuple[str, ...]:
    """The URLs of a comma-separated list, in lower case. Raises ValueError, which says what is accepted."""
    found = tuple(dict.fromkeys(url for url in (part.strip().lower() for part in text.split(",")) if url))
    for url in found:
        try:
            parse_url(url)
        except ValueError as error:
            accepted = "URLs such as turns:turn.example.org:443?transport=tcp, separated by commas"
            raise ValueError(f"{accepted}; {url!r} {error}") from None
    return found


def parse_secret(text: str) -> str:
    """A secret that a settings file and turnserver.conf can hold without quotes. Raises ValueError."""
    if not _SECRET.fullmatch(text):
        raise ValueError("16 to 255 letters, digits and . _ ~ + / = -, for example of `openssl rand -hex 32`")
    return text


def credentials(secret: str, peer: str, now_s: int, lifetime_s: int = CREDENTIALS_S) -> tuple[str, str]:
    """A username and its password, valid for `lifetime_s` from now on."""
    username = f"{now_s + lifetime_s}:{peer}"
    mac = hmac.digest(secret.encode(), username.encode(), "sha1")
    return username, base64.b64encode(mac).decode()
