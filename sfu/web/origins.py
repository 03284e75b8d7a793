"""Origin check for WebSockets: accepts the server's own origin (RFC 6454) and those that the settings allow."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from sfu import errors
from sfu.web.edge import Upgraded

Origin = tuple[str, str, int]
"""Scheme, host and port (RFC 6454, section 4)."""


def origin_of(text: str) -> Origin | None:
    """The origin that `text` names; None for text that names none, such as `null`."""
    try:
        url = urlsplit(text)
        port = url.port or {"http": 80, "https": 443}[url.scheme]
    except (ValueError, KeyError):
        return None
    return (url.scheme, url.hostname, port) if url.hostname else None


def check_origin(connection: Upgraded, allowed: Collection[Origin]) -> None:
    """Raises OriginNotAllowed for a page of another site. Only browsers send an Origin (RFC 6455, 10.2)."""
    address = f"{'https' if connection.secure else 'http'}://{connection.host}"
    own = origin_of(address)
    for header, value in connection.headers:
        if header.lower() == b"origin":
            text = value.decode("latin-1")
            found = origin_of(text)
            if found is None or (found != own and found not in allowed):
                raise errors.OriginNotAllowed(
                    f"A page of {text[:100]!r} may not use the server at {address[:100]!r}. {_advice(found, own)}"
                )


def _advice(found: Origin | None, own: Origin | None) -> str:
    """What to do about a refused origin. The server's own page is refused if a proxy hides how it was asked for."""
    if found is None or own is None or found[1] != own[1]:
        return "SFU_ALLOWED_ORIGINS lists other sites that may. A proxy before this server must pass on Host."
    if found[0] != own[0]:
        return "If a proxy is in between, name it in SFU_TRUSTED_PROXIES, and let it send X-Forwarded-Proto."
    return "If a proxy is in between, it must pass on Host with its port."
