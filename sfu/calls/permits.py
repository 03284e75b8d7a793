"""Names and permissions that change during a call: enforced at once, announced, and kept for returns after a reload.

They hold for this stay. Somebody who leaves and joins again has the name and the permissions of their token again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

from sfu.calls import facts
from sfu.calls.registry import Calls, Seat
from sfu.store.audit import SERVER, Author


class Permits:
    def __init__(self, hub: Calls) -> None:
        self._hub = hub

    def change(
        self,
        seat: Seat,
        author: Author = SERVER,
        *,
        name: str | None = None,
        permissions: Mapping[str, bool] | None = None,
    ) -> bool:
        """Gives a participant another name and other permissions; what is omitted stays. Whether anything changed.

        The name is the one shown: bans, history and returns go on to identify the person by the one they came with.
        """
        peer, hub = seat.peer, self._hub
        may = replace(peer.permissions, **(permissions or {}))
        before, shown, was = peer.permissions, name or peer.name, peer.name
        if (may, shown) == (before, was):
            return False
        hub.deliver(hub.rooms.permit(peer, shown, may))
        seat.changes |= {"name": shown, "permissions": asdict(may)}
        seat.record = replace(seat.record, metadata=seat.record.metadata | seat.changes)
        hub.admission.store.sessions.note(seat.record, seat.path | seat.changes)
        old, new = ({"shown_as": was} | asdict(before)), ({"shown_as": shown} | asdict(may))
        differ = [key for key in old if old[key] != new[key]]
        gone, came = ({key: values[key] for key in differ} for values in (old, new))
        facts.changed(hub.admission.store, seat.record, gone, came, author)
        if (may.publish, may.subscribe) != (before.publish, before.subscribe):
            seat.permit()
        if may.moderate and not before.moderate:
            hub.tell_lobby(seat)
        if may.moderate != before.moderate:
            hub.lobby.look_again(peer.room.key)
        return True
