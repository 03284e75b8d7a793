"""REST authentication: an API key identifies its company, a moderator's token its room.

Callers cannot tell whether something of another company exists. Keys are compared in constant time, and an unknown key
takes as long as a wrong one (sfu.store.companies). A credential is verified before its address is judged, so a valid
one works whatever else comes from there, for example from other people behind the same proxy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import trio

from sfu.api.refusals import ApiKeyInvalid, ApiKeyMissing, ModeratorRequired
from sfu.calls.admission import verified
from sfu.rates import Rate, told
from sfu.refusals import CompanyDisabled, TokenError, TokenRoom, TokenSignature
from sfu.store import Store
from sfu.store.records import Company
from sfu.store.tokens import held_against
from sfu.tenancy.keys import is_api_key

log = logging.getLogger("sfu.api")

Access = Literal["public", "key", "moderator"]
"""`key`: an API key. `moderator`: an API key, or a token with `moderate` for the room in the path."""


@dataclass(frozen=True, slots=True)
class Caller:
    company: Company


class Auth:
    """Authenticates requests. `failures` limits guesses at keys and tokens; None if limits are off."""

    def __init__(self, store: Store, clock: Callable[[], datetime], failures: Rate | None) -> None:
        self._store = store
        self._clock = clock
        self._failures = failures
        self._tellings = told(trio.current_time)

    async def caller(self, access: Access, header: str | None, address: str, room_id: str | None) -> Caller:
        """The sender of a request with this Authorization header from this address.

        Raises ApiKeyMissing, ApiKeyInvalid, CompanyDisabled, a TokenError, ModeratorRequired or TooManyFailures.
        """
        scheme, _, credential = (header or "").partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential:
            raise ApiKeyMissing
        try:
            return Caller(await self._company(access, credential, room_id))
        except (ApiKeyInvalid, TokenError) as refusal:
            if self._tellings.allows(address):  # never with the key: it may be almost right
                log.info("refused client=%s code=%s", address, refusal.code)
            if self._failures is not None and _is_guess(credential, refusal):
                self._failures.take(address)
            raise

    async def _company(self, access: Access, credential: str, room_id: str | None) -> Company:
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


def _is_guess(credential: str, refusal: ApiKeyInvalid | TokenError) -> bool:
    """Whether the credential could have been valid. A token or half a key in place of a key is a mistake, no guess."""
    return is_api_key(credential) if isinstance(refusal, ApiKeyInvalid) else isinstance(refusal, TokenSignature)
