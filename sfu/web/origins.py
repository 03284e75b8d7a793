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
    own = origin_of(f"{'https' if connection.secure else 'http'}://{connection.host}")
    for header, value in connection.headers:
        if header.lower() == b"origin":
            text = value.decode("latin-1")
            found = origin_of(text)
            if found is None or (found != own and found not in allowed):
                raise errors.OriginNotAllowed(
                    f"Pages of {text[:100]!r} may not use this server. SFU_ALLOWED_ORIGINS lists those that may."
                )
