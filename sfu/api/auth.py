"""Who asks: the company whose API key it is, or the holder of a token that may moderate its room.

A company that is not the caller's does not exist for it. Keys are compared in constant time, and one nobody has costs
as much as a wrong one (sfu.store.companies).
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Literal

import trio

from sfu.admission import verified
from sfu.api.refusals import ApiKeyInvalid, ApiKeyMissing, ModeratorRequired, TooManyFailures
from sfu.refusals import CompanyDisabled, Refusal, TokenRoom
from sfu.store import Store
from sfu.store.records import Company
from sfu.store.tokens import held_against

Access = Literal["public", "key", "moderator"]
"""`key`: an API key. `moderator`: that, or a token with `moderate` for the room in the path."""

FAILURES = 10
FAILURES_S = 60.0
ADDRESSES = 10_000
"""Addresses with failures that are remembered; beyond it the one that failed longest ago is forgotten."""


@dataclass(frozen=True, slots=True)
class Caller:
    company: Company


class Failures:
    """Failed requests by address, for IPv6 by /64, which one person may have whole. Bounded."""

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises TooManyFailures while the address has failed too often to be listened to."""
        times = self._times.get(_place(address))
        if times is not None and len(times) == FAILURES:
            left_s = times[0] + FAILURES_S - self._clock()
            if left_s > 0:
                raise TooManyFailures(math.ceil(left_s))

    def add(self, address: str) -> None:
        place = _place(address)
        self._times.setdefault(place, deque(maxlen=FAILURES)).append(self._clock())
        self._times.move_to_end(place)
        if len(self._times) > ADDRESSES:
            self._times.popitem(last=False)


def _place(address: str) -> str:
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((ip, 64), strict=False)) if isinstance(ip, IPv6Address) and not ip.ipv4_mapped else str(ip)


class Auth:
    """`failures` is None where limits are off."""

    def __init__(self, store: Store, clock: Callable[[], datetime], failures: Failures | None) -> None:
        self._store = store
        self._clock = clock
        self._failures = failures

    async def caller(self, access: Access, header: str | None, address: str, room_id: str | None) -> Caller:
        """Who sent a request with this Authorization header from this address.

        Raises ApiKeyMissing, ApiKeyInvalid, CompanyDisabled, a TokenError, ModeratorRequired or TooManyFailures.
        """
        if self._failures is not None:
            self._failures.check(address)
        try:
            return Caller(await self._company(access, header, room_id))
        except Refusal as refusal:
            if self._failures is not None and refusal.status in (401, 403):
                self._failures.add(address)
            raise

    async def _company(self, access: Access, header: str | None, room_id: str | None) -> Company:
        scheme, _, credential = (header or "").partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential:
            raise ApiKeyMissing
        if access == "moderator" and not credential.startswith("pk_"):
            return await self._moderated(credential, room_id)
        company = await self._store.companies.by_api_key(credential)
        if company is None:
            raise ApiKeyInvalid
        if not company.is_active:
            raise CompanyDisabled
        return company

    async def _moderated(self, token: str, room_id: str | None) -> Company:
        company, found = await verified(self._store, token, self._clock())
        refused = held_against(await self._store.tokens.get(company.id, found.id))
        if refused is not None:
            raise refused
        if found.room_id != room_id:
            raise TokenRoom
        if not found.permissions.moderate:
            raise ModeratorRequired
        return company
