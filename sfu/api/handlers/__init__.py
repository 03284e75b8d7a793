"""REST handlers: each takes a validated request and returns a response. Each is named after its route.

One file per resource. Not here: authentication, validation and HTTP, which the package above does for all of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from sfu.api.handlers.audit import AuditHandlers
from sfu.api.handlers.calls import CallHandlers
from sfu.api.handlers.companies import CompanyHandlers
from sfu.api.handlers.conduct import ConductHandlers
from sfu.api.handlers.history import HistoryHandlers
from sfu.api.handlers.keys import KeyHandlers
from sfu.api.handlers.requests import ApiRequest, ApiResponse, Calls
from sfu.api.handlers.rooms import RoomHandlers
from sfu.api.handlers.tokens import TokenHandlers
from sfu.api.handlers.webhooks import WebhookHandlers
from sfu.store import Store

__all__ = ["ApiRequest", "ApiResponse", "Calls", "Handler", "handlers_of"]

Handler = Callable[[ApiRequest], Awaitable[ApiResponse]]


def handlers_of(
    store: Store, calls: Calls, clock: Callable[[], datetime], max_participants: int, *, allow_private: bool = False
) -> Mapping[str, Handler]:
    """The handlers by the names of their routes. `allow_private`: see WebhookHandlers."""
    parts = (
        TokenHandlers(store, calls, clock),
        RoomHandlers(store, calls, max_participants),
        CallHandlers(store, calls),
        ConductHandlers(store, calls),
        HistoryHandlers(store, clock),
        KeyHandlers(store, calls),
        CompanyHandlers(store, clock),
        AuditHandlers(store),
        WebhookHandlers(store, allow_private=allow_private),
    )
    return {name: getattr(part, name) for part in parts for name in dir(part) if not name.startswith("_")}
