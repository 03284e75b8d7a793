"""Moderation by moderators and through the REST API: enforced, announced, and recorded in the database."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial

from sfu import errors
from sfu.calls import facts
from sfu.calls.admission import Entry
from sfu.calls.chat import now_ms
from sfu.calls.conduct import Conduct
from sfu.calls.lobby import Waiter
from sfu.calls.registry import Calls, Seat, author_of
from sfu.errors import SfuError
from sfu.logs import AUDIT, line, quoted
from sfu.protocol.client_messages import ChangeRoom, EndCall, Moderate, Spotlight
from sfu.protocol.server_messages import Asked, Muted, Participant, RoomState
from sfu.protocol.shared import MICROPHONE, SCREEN, SCREEN_AUDIO
from sfu.refusals import RoomDeleted, TokenRevoked
from sfu.store import records
from sfu.store.audit import SERVER, Author

audit = logging.getLogger(AUDIT)

RECORDED = {
    "mute": "mute_participant",
    "remove": "remove_participant",
    "admit": "admit_participant",
    "refuse": "refuse_participant",
}
"""What moderators do that the log names, as the REST API calls it."""


class Moderation:
    """Carries out moderation. Everything takes effect at once, without waiting; the store writes it later."""

    def __init__(self, hub: Calls) -> None:
        self._hub = hub
        self.conduct = Conduct(hub)

    # --- by a peer ----------------------------------------------------------------------------------------------------

    def carry_out(self, by: Seat, message: Moderate | ChangeRoom | Spotlight | EndCall) -> None:
        """Acts on a message of the peer `by`. Raises NotAllowed, UnknownPeer or BadSource."""
        if not by.peer.moderator:
            raise errors.NotAllowed("You may not moderate this room.")
        entry = by.entry
        match message:
            case Moderate():
                whom = self._moderate(by, message)
                if message.action in RECORDED:
                    source = (message.source or MICROPHONE) if message.action == "mute" else None
                    self._record(RECORDED[message.action], by, peer=message.peer, **whom, source=source)
            case ChangeRoom(locked, lobby):
                now = by.peer.room.state
                changes = {"locked": locked, "lobby": lobby}
                state = replace(now, **{name: value for name, value in changes.items() if value is not None})
                if state != now:
                    where = (entry.company_id, entry.room_id)
                    self._hub.admission.store.rooms.set(*where, author_of(by), locked=locked, lobby=lobby)
                    self._set(entry.key, state)
                    self._record("change_room", by, locked=state.locked, lobby=state.lobby)
            case Spotlight(peer_id):
                lit = self.conduct.spotlights.turn(by.peer.room, peer_id, author_of(by))
                about = {} if lit is None else {"peer": lit.id, "name": quoted(lit.name)}
                self._record("turn_spotlight", by, **about)
            case EndCall():
                self.end_call(entry.company_id, entry.room_id, author_of(by))
                self._record("end_call", by)

    def _record(self, what: str, by: Seat, **more: object) -> None:
        who = {"by": quoted(by.peer.name), "by_peer": by.peer.id, "client": by.entry.address}
        audit.info("%s", line(what, room=quoted(by.entry.key), **more, **who))

    def _moderate(self, by: Seat, message: Moderate) -> dict[str, str]:
        """Returns the name and session of the person that the moderator acted on, for the log."""
        key, source = by.peer.room.key, message.source or MICROPHONE
        if message.action in ("admit", "refuse"):
            if message.action == "refuse":
                return {"name": quoted(self.refuse_waiting(key, message.peer, author_of(by)))}
            return {"name": quoted(self.admit_waiting(key, message.peer, author_of(by)))}
        session = self._hub.find(key, message.peer)
        if session is None:
            raise errors.UnknownPeer
        match message.action:
            case "mute":
                self._mute(session, source, author_of(by))
            case "ask_unmute":
                session.insist(Asked(by.peer.name, source))
            case "remove" if session is by:
                raise errors.NotAllowed("You cannot remove yourself. Leave instead.")
            case "remove":
                self.remove_person(session, author_of(by))
        return {"name": session.who["name"], "session": session.record.id}

    # --- by the REST API ----------------------------------------------------------------------------------------------

    def end_token(self, token_id: str) -> None:
        """Ends everybody who entered, or is entering, with this token."""
        self._end(lambda entry: entry.grant is not None and entry.grant.id == token_id, TokenRevoked())

    def end_room(self, company_id: str, room_id: str) -> None:
        """Ends the call in a room that was deleted."""
        self._end(lambda entry: (entry.company_id, entry.room_id) == (company_id, room_id), RoomDeleted())

    def end_call(self, company_id: str, room_id: str, author: Author = SERVER) -> bool:
        """Ends the call for everybody, including the lobby. The next person to join begins a new call.

        False if nobody is there.
        """
        lobby, here = self._hub.lobby.waiting(f"{company_id}/{room_id}").waiting, self._in(company_id, room_id)
        found = bool(lobby or here)
        if found:
            facts.ended(self._hub.admission.store, company_id, room_id, author, people=len(here), waiting=len(lobby))
        error = errors.CallEnded()
        error.by = facts.ender(author)
        self._end(lambda entry: (entry.company_id, entry.room_id) == (company_id, room_id), error)
        self._hub.admission.store.returns.expel(company_id, room_id, errors.CallEnded.code)
        return found

    def change_room(self, room: records.Room) -> None:
        """Applies changed room settings to the call."""
        self.follow(room.company_id, room.room_id, room)

    def follow(self, company_id: str, room_id: str, rules: records.RoomRules | records.Room) -> bool:
        """Applies room settings to the call, unless it has these or newer ones. Whether its own were older."""
        key, state = f"{company_id}/{room_id}", self._hub.admission.state(company_id, room_id, rules)
        room = self._hub.rooms.rooms.get(key)
        if room is None:
            self._set(key, state)  # people may wait in its lobby
        elif room.id == rules.id and room.version < rules.version:
            room.version = rules.version
            if room.state != state:
                self._set(key, state)
            return True
        return False

    def participants(self, company_id: str, room_id: str) -> list[tuple[records.Session, Participant]]:
        """The participants of the call, in order of arrival."""
        here = self._in(company_id, room_id)
        return [(replace(one.record, drops=one.drops.now), one.peer.described()) for one in here]

    def mute(self, company_id: str, room_id: str, session_id: str, source: str, author: Author = SERVER) -> bool:
        """Mutes a source of a participant. False if the session is not in the call. Raises BadSource."""
        found = [session for session in self._in(company_id, room_id) if session.record.id == session_id]
        for session in found:
            self._mute(session, source, author)
        return bool(found)

    def remove(self, company_id: str, room_id: str, session_id: str, author: Author = SERVER) -> bool:
        """Removes and bans a participant. False if the session is not in the call."""
        found = [session for session in self._in(company_id, room_id) if session.record.id == session_id]
        for session in found:
            self.remove_person(session, author)
        return bool(found)

    def chat_deleted(self, company_id: str, room_id: str, line_id: str) -> None:
        """A chat line was deleted: removes it from the history for later joiners and tells the participants."""
        self._hub.deliver(self._hub.rooms.chat_deleted(f"{company_id}/{room_id}", line_id))

    async def follow_chat(self, company_id: str, room_id: str) -> None:
        """Removes what other processes deleted from the call's chat. Raises DatabaseUnavailable."""
        room = self._hub.rooms.rooms.get(f"{company_id}/{room_id}")
        said = room.unexpired(now_ms()) if room else []
        if said:
            kept = await self._hub.admission.store.chat.since(company_id, room_id, said[0].time)
            for one in said:
                if one.id not in kept:
                    self.chat_deleted(company_id, room_id, one.id)

    def _in(self, company_id: str, room_id: str) -> list[Seat]:
        here = (company_id, room_id)
        return [one for one in self._hub.sessions() if (one.entry.company_id, one.entry.room_id) == here]

    # --- how it is done ---------------------------------------------------------------------------------------------

    def _mute(self, session: Seat, source: str, author: Author) -> None:
        """Mutes a source; a screen is muted with its sound. Raises BadSource.

        The media worker enforces it: it forwards nothing of what the client still sends.
        """
        if source not in session.peer.muted:
            session.mute(source, True)
            session.insist(Muted(session.peer.id, source, muted=True, by=facts.moderator(author)))
            facts.muted(self._hub.admission.store, session.record, source, author)
        if source == SCREEN and SCREEN_AUDIO in session.peer.tracks:
            self._mute(session, SCREEN_AUDIO, author)

    def remove_person(self, session: Seat, author: Author = SERVER, *, ban: bool = True) -> datetime | None:
        """Ends all sessions of this person in the room, and bans them until the time that it returns."""
        entry, admission = session.entry, self._hub.admission
        until = admission.banned_until(entry) if ban else None
        admission.store.bans.add(session.record, until=until, by=facts.moderator(author), author=author)
        for other in self._hub.sessions():
            if other is not session and _same_person(entry, other.entry):
                facts.removed_too(admission.store, other.record, until, author)
        error = errors.Removed()
        error.by = facts.ender(author)
        self._end(partial(_same_person, entry), error)
        return until

    def admit_waiting(self, key: str, waiter_id: str, author: Author = SERVER) -> str:
        """Lets in somebody from the lobby of the room `key`; returns their name. Raises UnknownPeer."""
        waiter = self._waiting(key, waiter_id)
        waiter.invite(author)
        return waiter.entry.user_name

    def refuse_waiting(self, key: str, waiter_id: str, author: Author = SERVER) -> str:
        """Refuses somebody in the lobby of the room `key`; returns their name. Raises UnknownPeer."""
        waiter = self._waiting(key, waiter_id)
        waiter.refuse(errors.LobbyRefused(), author)
        return waiter.entry.user_name

    def _waiting(self, key: str, waiter_id: str) -> Waiter:
        waiter = self._hub.lobby.find(key, waiter_id)
        if waiter is None:
            raise errors.UnknownPeer("This person no longer waits.")
        return waiter

    def _set(self, key: str, state: RoomState) -> None:
        """Applies a room state, also to people who are joining right now."""
        self._hub.deliver(self._hub.rooms.change(key, state))
        if state.locked:
            self._hub.stop_joining(
                lambda entry: entry.key == key and not entry.permissions.moderate, errors.RoomLocked(), invited=False
            )
        if not state.lobby:
            self._hub.lobby.open(key)

    def _end(self, who: Callable[[Entry], bool], error: SfuError) -> None:
        for session in self._hub.sessions():
            if who(session.entry):
                session.end(error)
        self._hub.stop_joining(who, error)
        self._hub.lobby.refuse(who, error)


def _same_person(entry: Entry, other: Entry) -> bool:
    """Whether both are the same person in the same call, as bans see it."""
    return other.key == entry.key and other.person == entry.person
