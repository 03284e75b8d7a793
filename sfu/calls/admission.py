"""Admission: the room and permissions of a WebSocket request.

A presented token is always verified and determines room, name and permissions, even in rooms that anybody may enter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sfu.calls.rooms import EVERYTHING, is_secret
from sfu.errors import BadRequest, RoomLocked
from sfu.limits.rates import place
from sfu.protocol.server_messages import RoomState
from sfu.refusals import CompanyDisabled, TokenError, TokenRequired, TokenRoom, TokenSignature
from sfu.settings.config import Config
from sfu.store import Store
from sfu.store.records import Company, Room, RoomRules, Session
from sfu.tenancy import tokens
from sfu.tenancy.names import canonical, sought
from sfu.tenancy.tokens import Permissions

TOKEN_SUBPROTOCOL = "token."
"""Prefix of a subprotocol value that carries a token, `token.<jwt>`, to keep it out of the URL."""
RESUME_SUBPROTOCOL = "resume."
"""Prefix of a subprotocol value that carries the secret of a session to resume. It must not be in the URL."""
RETURN_SUBPROTOCOL = "return."
"""Prefix of a subprotocol value that carries the ticket of a session to continue. It must not be in the URL."""
ROOM, NAME = "default", "guest"
"""The room and the name of a request that has none."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks for. `room` and `name` are as sent, None if absent or empty.

    With a `secret`, the request asks to resume that session, and the rest is ignored. With a `ticket`, it asks to
    continue a session if possible, and otherwise to join.
    """

    token: str | None
    room: str | None
    name: str | None
    secret: str | None = field(default=None, repr=False)
    ticket: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """An identified person, their room and permissions. `grant` and `token` are None for an anonymous person.

    `continues` is the ended session that the person continues, if any; then `token` is None too.
    """

    company_id: str
    room_id: str
    user_name: str
    permissions: Permissions
    address: str = ""
    grant: tokens.Grant | None = None
    token: str | None = None
    continues: Session | None = None

    @property
    def key(self) -> str:
        """Identifies the call. It includes the company, since two companies may use the same room id."""
        return f"{self.company_id}/{self.room_id}"

    @property
    def person(self) -> tuple[str, ...]:
        """What identifies the person for a ban: the token id, or without a token the name and address together."""
        return (self.grant.id,) if self.grant is not None else (self.user_name.casefold(), place(self.address))


def asked(target: str, subprotocols: Sequence[str]) -> Ask:
    """Parses the request's target and subprotocols. Raises BadRequest."""
    try:
        query = parse_qs(urlsplit(target).query, keep_blank_values=True, max_num_fields=16, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest("The query string is not UTF-8.") from None
    except ValueError:
        raise BadRequest("The query string cannot be parsed.") from None
    token = _one("tokens", {*query.get("token", []), *_values(subprotocols, TOKEN_SUBPROTOCOL)})
    secret = _one("sessions", _values(subprotocols, RESUME_SUBPROTOCOL))
    room, name = query.get("room", [""])[0], query.get("username", [""])[0]
    ticket = _one("tickets", _values(subprotocols, RETURN_SUBPROTOCOL))
    return Ask(token, room or None, name or None, secret, ticket)


def _values(subprotocols: Sequence[str], prefix: str) -> set[str]:
    return {value.removeprefix(prefix) for value in subprotocols if value.startswith(prefix)}


def _one(what: str, found: set[str]) -> str | None:
    if len(found) > 1:
        raise BadRequest(f"The request has two {what}.")
    return found.pop() if found else None


def changes_of(session: Session) -> dict[str, Any]:
    """What was changed of a participant during their stay, as in the record of their session: `name` is the one that
    is shown, `permissions` are all that they have. Empty if nothing was."""
    return {name: session.metadata[name] for name in ("name", "permissions") if name in session.metadata}


class LobbyFirst(Exception):
    """The room has a lobby, and a moderator must admit this person first."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Admission:
    """Identifies and admits people. `default` is the company whose rooms can be entered without a token."""

    def __init__(self, config: Config, store: Store, default: Company, clock: Callable[[], datetime] = utc_now) -> None:
        self.store, self.clock = store, clock
        self._config, self._default = config, default
        self.default_id = default.id

    def asker(self, target: str, subprotocols: Sequence[str]) -> dict[str, str]:
        """What a request says of its sender, for the log: the parts of an Entry's key and its name, unverified."""
        try:
            ask = asked(target, subprotocols)
        except BadRequest:
            return {}
        if ask.secret is not None:
            return {"peer": ask.secret.partition(".")[0]} if is_secret(ask.secret) else {}
        if ask.token is not None:
            return {"room": ask.room or "", "name": ask.name or ""} | tokens.claimed(ask.token)
        return {"room": f"{self._default.id}/{sought(ask.room or ROOM)}", "name": sought(ask.name or NAME)}

    async def identify(self, ask: Ask, address: str) -> Entry:
        """The person who asks. Raises TokenError, CompanyDisabled, BadName or DatabaseUnavailable."""
        if ask.token is None:
            if not self._config.allow_anonymous:
                raise TokenRequired("This server can only be entered with a token.")
            room, name = ask.room or ROOM, ask.name or NAME
            return Entry(
                self._default.id,
                canonical(room, "room name"),
                canonical(name, "name"),
                EVERYTHING,
                address,
            )
        _, grant = await verified(self.store, ask.token, self.clock())
        if ask.room is not None and sought(ask.room) != grant.room_id:
            raise TokenRoom
        return Entry(grant.company_id, grant.room_id, grant.user_name, grant.permissions, address, grant, ask.token)

    async def returner(self, ask: Ask, session_id: str, address: str) -> Entry | None:
        """The person who continues an ended session; None if it cannot be continued, or `ask` is for something else."""
        found = await self.store.returns.find(session_id)
        if found is None or not await self.fits(ask, found[0]):
            return None
        session, token = found
        who = (session.company_id, session.room_id, session.user_name)
        if token is None:
            return Entry(*who, EVERYTHING, address, continues=session) if self._config.allow_anonymous else None
        times = (token.created_at, token.not_before or token.created_at, token.expires_at)
        grant = tokens.Grant(token.id, *who, token.permissions, *times, token.user_id, token.max_duration_s)
        return Entry(*who, token.permissions, address, grant, continues=session)

    async def fits(self, ask: Ask, session: Session) -> bool:
        """Whether a request is for the session that its ticket names: the same room and name, and its own token.

        A link that is opened in the tab of an earlier call comes with that call's ticket, and may lead elsewhere.
        """
        room = ask.room is None or sought(ask.room) == session.room_id
        names = {session.user_name, changes_of(session).get("name", session.user_name)}
        if not room or (ask.name is not None and sought(ask.name) not in names):
            return False
        if ask.token is None:
            return session.token_id is None or ask.room is None
        if session.token_id is None:
            return False
        return await self.store.tokens.same(session.company_id, session.token_id, ask.token)

    async def admit(self, entry: Entry, *, invited: bool = False) -> tuple[Session, RoomRules]:
        """Opens the session in the database; returns it with the room's rules. `invited` people pass lock and lobby.

        Raises ReturnOver, LobbyFirst, RoomElsewhere, RoomLocked, Removed, RoomFull, TokenRequired, TokenRevoked,
        TokenUsed, TokenUnknown, CompanyDisabled or DatabaseUnavailable; then no session exists and the token is not
        used up.
        """
        if entry.continues is not None:
            return await self.store.returns.reopen(entry.continues, peer_address=entry.address)
        found: list[RoomRules] = []

        def judge(rules: RoomRules) -> None:
            found.append(rules)
            if invited or entry.permissions.moderate:
                return
            if rules.locked:
                raise RoomLocked
            if rules.lobby:
                raise LobbyFirst

        sessions = self.store.sessions
        if entry.grant is None or entry.token is None:
            who = (entry.company_id, entry.room_id, entry.user_name)
            session = await sessions.admit_anonymous(*who, peer_address=entry.address, judge=judge)
        else:
            session = await sessions.admit(entry.grant, entry.token, peer_address=entry.address, judge=judge)
        return session, found[-1]

    def state(self, company_id: str, room_id: str, rules: RoomRules | Room) -> RoomState:
        """The room's state as the participants see it."""
        kept_s = self._config.chat_kept_s if rules.chat_kept_s is None else rules.chat_kept_s
        anonymous = self._config.allow_anonymous and company_id == self._default.id and rules.access == "open"
        cleared = anonymous and kept_s > 0 and rules.chat_kept_s is None and not self._config.keep_open_chat
        return RoomState(rules.locked, rules.lobby, rules.files, kept_s, anonymous, cleared)

    def banned_until(self, entry: Entry) -> datetime:
        """When the ban of a removed person ends: when their token can no longer be used, or after SFU_BAN_S."""
        if entry.grant is not None:
            return entry.grant.expires_at + timedelta(seconds=tokens.LEEWAY_S)
        return self.clock() + timedelta(seconds=self._config.ban_s)

    def seconds_left(self, entry: Entry) -> float | None:
        """Time left to enter: until the token's leeway ends, whenever the person came. None: no limit."""
        if entry.grant is None:
            return None
        return (entry.grant.expires_at - self.clock()).total_seconds() + tokens.LEEWAY_S


async def verified(store: Store, token: str, now: datetime) -> tuple[Company, tokens.Grant]:
    """The company and grant of a token, after its signature, claims and times were verified.

    Does not check whether it was revoked or used. Raises TokenError or CompanyDisabled.
    """
    company = await store.companies.by_id(tokens.peek(token))
    try:
        found = tokens.decode(token, None if company is None else store.companies.secret(company).reveal(), now)
    except TokenSignature:
        own = None if company is None else store.companies.own_secret(company)
        if own is None:
            raise
        found = tokens.decode(token, own.reveal(), now, own=True)
    if company is None:
        raise TokenError  # unreachable: without a company, `decode` verifies with a random secret and raises
    if not company.is_active:
        raise CompanyDisabled
    return company, found
