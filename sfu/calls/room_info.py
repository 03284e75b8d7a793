"""GET /room-info: what the page shows before joining. It reveals nothing that joining would not."""

from __future__ import annotations

import json
import logging

import trio
from quart import Blueprint, Response, request

from sfu.calls.admission import TOKEN_SUBPROTOCOL, Entry, asked
from sfu.calls.registry import Calls
from sfu.errors import Removed, RoomFull, RoomLocked, ServerDraining, SfuError
from sfu.limits.rates import Rate
from sfu.refusals import CompanyDisabled, QuotaExceeded, RoomElsewhere, TokenRequired, TooManyJoins
from sfu.store.records import Room
from sfu.store.tokens import held_against

ASKS, ASKS_S = 120, 60.0
"""Most requests from one address in ASKS_S. An office may share one address, and each page asks every few seconds."""
LOBBY = "lobby"

log = logging.getLogger("sfu.calls")


class RoomInfo:
    def __init__(self, hub: Calls) -> None:
        self._hub, self._store = hub, hub.admission.store
        self._rate = Rate(ASKS, ASKS_S, trio.current_time)

    def routes(self) -> Blueprint:
        info = Blueprint("room_info", __name__)
        info.add_url_rule("/room-info", "show", self._show, methods=["GET"], provide_automatic_options=False)
        return info

    async def _show(self) -> Response:
        address = request.remote_addr or ""
        if self._hub.config.limits:
            self._rate.take(address)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        bearer = [TOKEN_SUBPROTOCOL + token.strip()] if scheme.lower() == "bearer" else []
        target = "/?" + request.query_string.decode("latin1")
        who = self._hub.admission.asker(target, bearer)
        try:
            entry = await self._hub.identify(asked(target, bearer), address)
            refused = await self._refused(entry)
        except SfuError as error:
            self._hub.refused.tell(log, error, address, **who)
            raise
        if refused not in (None, LOBBY):  # the page waits until it would succeed, so no join is refused
            self._hub.refused.tell(log, refused, address, **who)
        room = self._hub.rooms.rooms.get(entry.key)
        names = [peer.name for peer in room.peers.values()] if room is not None and refused is None else []
        body = {"name": entry.room_id, "participants": names, "open": refused is None, "refused": refused}
        response = Response(json.dumps(body, ensure_ascii=False) + "\n", content_type="application/json")
        response.headers["Cache-Control"] = "no-store"
        return response

    async def _refused(self, entry: Entry) -> str | None:
        """The code that a join would be refused with now, `lobby` if it would wait, None if it would succeed.

        Raises CompanyDisabled or a TokenError.
        """
        company = await self._store.companies.by_id(entry.company_id)
        if company is None or not company.is_active:
            raise CompanyDisabled
        if entry.grant is not None:
            refused = held_against(await self._store.tokens.get(entry.company_id, entry.grant.id), own=entry.grant.own)
            if refused is not None:
                raise refused
        else:
            try:
                self._hub.joins.check(entry.address)
            except TooManyJoins as refusal:
                return refusal.code
        if self._hub.life.draining and entry.key not in self._hub.rooms.rooms:
            return ServerDraining.code
        token_id = None if entry.grant is None else entry.grant.id
        who = (entry.company_id, entry.room_id, entry.user_name)
        if await self._store.bans.holds(*who, token_id=token_id, address=entry.address):
            return Removed.code
        room = await self._store.rooms.get(entry.company_id, entry.room_id)
        if room is not None and (code := await self._kept_out(entry, room)) is not None:
            return code
        limited = await self._store.tiers.refuse(entry.company_id, entry.room_id, new_room=room is None)
        return QuotaExceeded.code if limited else None

    async def _kept_out(self, entry: Entry, room: Room) -> str | None:
        """Like `_refused`, by the state of the room."""
        elsewhere = room.participants and await self._store.sessions.elsewhere(
            entry.company_id, entry.room_id, fresh=True
        )
        reasons = {
            RoomElsewhere.code: bool(elsewhere),
            TokenRequired.code: entry.grant is None and room.access != "open",
            RoomLocked.code: room.locked and not entry.permissions.moderate,
            LOBBY: room.lobby and not entry.permissions.moderate,
            RoomFull.code: room.participants >= room.max_participants,
        }
        return next((code for code, holds in reasons.items() if holds), None)
