"""Rows of the database that tests need."""

from __future__ import annotations

from typing import Any

from sfu.store import Store
from sfu.store.records import Company, RoomSettings


async def room(store: Store, company: Company, room_id: str = "team", **settings: Any) -> str:
    """The id that the database has for a room, which is made if there is none."""
    found = await store.rooms.get(company.id, room_id)
    return (found or await store.rooms.create(company.id, room_id, RoomSettings(**settings))).id
