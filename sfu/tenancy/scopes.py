"""Scopes: what an API key may do. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

Scope = Literal["rooms:read", "rooms:write", "tokens:create", "history:read", "webhooks:write", "admin"]

SCOPES: dict[Scope, str] = {
    "rooms:read": "read rooms, and who is in them",
    "rooms:write": "create, change and delete rooms, and moderate their calls",
    "tokens:create": "create, list, inspect and revoke tokens",
    "history:read": "read sessions, usage, events and the audit log",
    "webhooks:write": "everything with webhooks",
    "admin": "everything, keys included",
}
"""Every scope with what it allows. None includes another one, but `admin` includes all."""


def allows(scopes: Collection[str], scope: Scope) -> bool:
    """Whether a key with these scopes may do what needs `scope`."""
    return scope in scopes or "admin" in scopes
