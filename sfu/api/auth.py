"""REST authentication: an API key identifies its company, a moderator's token its room. An admin key has neither.

Callers cannot tell whether something of another company exists. Keys are compared in constant time, and an unknown key
takes as long as a wrong one (sfu.store.keys). A credential is verified before its address is judged, so a valid
one works whatever else comes from there, for example from other people behind the same proxy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from sfu.api.refusals import (
    ADVICE,
    AdminKeyRequired,
    ApiKeyInvalid,
    ApiKeyMissing,
    CompanyKeyRequired,
    ModeratorRequired,
    ScopeMissing,
)
from sfu.api.routes import Route
from sfu.calls.admission import verified
from sfu.limits.rates import Rate
from sfu.limits.refused import Refused
from sfu.logs import quoted, request_id
from sfu.refusals import CompanyDisabled, Refusal, TokenMalformed, TokenRoom, TokenSignature
from sfu.store import Store
from sfu.store.audit import Author
from sfu.store.records import Company
from sfu.store.tokens import held_against
from sfu.tenancy.keys import is_api_key, seen, visible_prefix
from sfu.tenancy.scopes import allows
from sfu.tenancy.tokens import claimed, is_jwt

log = logging.getLogger("sfu.api")


_NEVER = datetime.min.replace(tzinfo=UTC)
NO_COMPANY = Company("", "", "", "free", is_active=True, is_default=False, created_at=_NEVER, updated_at=_NEVER)
"""The company of whoever comes with an admin key. There is no row of it, so nothing belongs to it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: `by` in the log, `author` in the audit log. With an admin key, the company is NO_COMPANY."""

    company: Company
    by: dict[str, str]
    author: Author
    scopes: Collection[str] = ()


class Auth:
    """Authenticates requests. `failures` limits guesses at keys and tokens; None if limits are off."""

    def __init__(self, store: Store, clock: Callable[[], datetime], failures: Rate | None) -> None:
        self._store = store
        self._clock = clock
        self._failures = failures
        self._refused = Refused(trio.current_time)

    async def caller(self, route: Route, header: str | None, address: str, room_id: str | None) -> Caller:
        """The sender of a request with this Authorization header from this address.

        Raises ApiKeyMissing, ApiKeyInvalid, ScopeMissing, AdminKeyRequired, CompanyKeyRequired, CompanyDisabled, a
        TokenError, ModeratorRequired or TooManyFailures.
        """
        scheme, _, credential = (header or "").partition(" ")
        credential = credential.strip() if scheme.lower() == "bearer" else ""
        try:
            if not credential:
                raise ApiKeyMissing(f"The Authorization header is not `Bearer pk_…`. {ADVICE}" if header else "")
            return await self._caller(route, credential, room_id, address)
        except Refusal as refusal:
            who = {"room": room_id or ""} | claimed(credential)
            self._refused.tell(log, refusal, address, **who, key=_shown(credential), request=route.name)
            if self._failures is not None and _is_guess(credential, refusal):
                self._failures.take(address)
            raise

    async def _caller(self, route: Route, credential: str, room_id: str | None, address: str) -> Caller:
        if route.access == "moderator" and not credential.startswith(("pk_", "ak_")):
            return await self._moderated(credential, room_id, address)
        found = await self._store.keys.find(credential)
        if found is None:
            raise ApiKeyInvalid("" if is_api_key(credential) else _mistaken(credential))
        key, company = found
        if (route.access == "admin") != (company is None):
            raise CompanyKeyRequired if company is None else AdminKeyRequired
        if company is not None and not company.is_active:
            raise CompanyDisabled
        if company is not None and not allows(key.scopes, route.scope or "admin"):
            raise ScopeMissing(route.scope or "admin")
        self._store.keys.used(key)
        author = Author("admin" if company is None else "key", key.id, key.prefix, address, request_id())
        named = {} if company is None else {"company": quoted(company.name)}
        return Caller(company or NO_COMPANY, named | {"key": key.prefix}, author, key.scopes)

    async def _moderated(self, token: str, room_id: str | None, address: str) -> Caller:
        if not is_jwt(token):
            raise TokenMalformed(_mistaken(token))
        company, found = await verified(self._store, token, self._clock())
        refused = held_against(await self._store.tokens.get(company.id, found.id), own=found.own)
        if refused is not None:
            raise refused
        if found.room_id != room_id:
            raise TokenRoom
        if not found.permissions.moderate:
            raise ModeratorRequired
        by = {"company": quoted(company.name), "by": quoted(found.user_name), "token": found.id}
        return Caller(company, by, Author("token", found.id, found.user_name, address, request_id()))


def _mistaken(credential: str) -> str:
    """The form that a credential has instead of a key's or token's, so that its sender sees what was mixed up."""
    if is_jwt(credential):
        return f"This is a token, not an API key. Tokens are not accepted here. {ADVICE}"
    return f"The credential is {seen(credential)}. {ADVICE}"


def _shown(credential: str) -> str:
    """The part of an API key that may be shown, to find out whose it is. Empty for anything else."""
    return visible_prefix(credential) if is_api_key(credential) else ""


def _is_guess(credential: str, refusal: Refusal) -> bool:
    """Whether the credential could have been valid. A token or half a key in place of a key is a mistake, no guess."""
    return is_api_key(credential) if isinstance(refusal, ApiKeyInvalid) else isinstance(refusal, TokenSignature)
