"""A database with rows in every table, with values that are hard to copy, and its contents to compare."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sfu.store import Store, audit, copies, events
from sfu.store.audit import Author, Change
from sfu.store.database import connect
from sfu.store.events import Event
from sfu.store.records import File, Line, RoomSettings, Session, SessionDrops, SessionQuality
from sfu.store.statements import Statements
from sfu.tenancy import tokens

STRANGE = 'Zoë 👩\u200d👧 "quoted" \\ \t 日本語'
FILE_ID = "0f4a8f1e-0000-4000-8000-00000000beef"
FILE = b"what the file contains\n" * 1000


async def fill(store: Store, folder: Path | None = None) -> None:
    """Alice, who has a token, shares a file in a room of Acme; Zoë, who has none, is banned from an open room."""
    default = await store.companies.ensure_default()
    company, _ = await store.companies.create("Acme & Söhne", "pro")
    await store.keys.create_admin(STRANGE.strip())
    settings = RoomSettings(name=STRANGE, metadata={"n": 1.5, "deep": [None, True, STRANGE]}, chat_kept_s=90_000)
    room = await store.rooms.create(company.id, "team", settings)
    grant = tokens.grant(company_id=company.id, room_id="team", user_name="alice", duration_s=600, now=store_now(store))
    token = tokens.encode(grant, store.companies.secret(company).reveal())
    await store.tokens.add(grant, token, single_use=True)
    alice = await store.sessions.admit(grant, token, peer_address="2001:db8::7", metadata={"agent": STRANGE})
    zoe = await store.sessions.admit_anonymous(default.id, "open", STRANGE.strip(), peer_address="192.0.2.1")
    quality = SessionQuality(score_mean=3.25, score_min=1 / 3, loss_up=0.0, bytes_up=2**40 + 1)
    store.sessions.close(alice, "left", None, quality, SessionDrops(2, 1, "page_gone"))
    store.bans.add(zoe, until=store_now(store) + timedelta(days=1), by="alice")
    await store.files.add(room.id, File(FILE_ID, f"{STRANGE}.txt", "text/plain", len(FILE)), limit_bytes=10**9)
    now_ms = int(store_now(store).timestamp() * 1000)
    store.chat.add(room.id, Line(str(uuid.uuid4()), "p1", "alice", STRANGE, now_ms))
    store.chat.add(room.id, Line(str(uuid.uuid4()), "p1", "alice", "", now_ms + 1, File(FILE_ID, "x", "y", 1)))
    for queue in (store.leaves, store.rulings, store.lines):
        await queue.flush()
    await store.database.transaction(partial(_told, alice))
    if folder is not None:
        share(folder)


async def _told(alice: Session, statements: Statements) -> None:
    """Rows about Alice, and of Acme, in the tables that nothing above has written to."""
    now, whom = alice.connected_at, {"user_name": alice.user_name, "session_id": alice.id}
    await events.record(statements, now, Event("test", alice.company_id, "team", {"deep": [STRANGE]}, **whom))
    change = Change("test", alice.company_id, "x", None, None, {"n": 1.5}, **whom)
    await audit.record(statements, now, Author("command", name=STRANGE), change)
    hook, company = str(uuid.uuid4()), {"company_id": alice.company_id}
    values = {"id": hook, **company, "url": "https://example.org/", "rooms": "[]", "secret": "x", "now": now}
    await statements.run(
        """INSERT INTO webhooks (id, company_id, url, rooms, sealed_secret, last_seq, created_at, updated_at)
        VALUES (:id, :company_id, :url, :rooms, :secret, 1, :now, :now)""",
        **values,
    )
    await statements.run(
        """INSERT INTO deliveries (id, webhook_id, company_id, seq, event_id, type, user_name, body, created_at)
        VALUES (:id, :hook, :company_id, 1, :id, 'test', 'alice', '{}', :now)""",
        **company, id=str(uuid.uuid4()), hook=hook, now=now,
    )  # fmt: skip
    await statements.run(
        """INSERT INTO answers (id, company_id, key, request, sealed, created_at)
        VALUES (:id, :company_id, 'key', 'request', 'x', :now)""",
        **company, id=str(uuid.uuid4()), now=now,
    )  # fmt: skip
    await statements.run(
        "INSERT INTO tiers (id, tier, people, recording) VALUES (:id, 'free', 5, TRUE)", id=str(uuid.uuid4())
    )


def share(folder: Path) -> None:
    """Puts the file into the folder of shared files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE_ID).write_bytes(FILE)


def store_now(store: Store) -> Any:
    return store.retention._clock()


async def contents(url: str) -> dict[str, list[list[Any]]]:
    """The rows of every table, in an order that does not depend on the engine; JSON is compared as such."""

    async def work(statements: Statements) -> dict[str, list[list[Any]]]:
        found = await copies.contents(statements, database.bulk)
        rows: dict[str, list[list[Any]]] = {table.name: [] for table in found.tables}
        kinds = {table.name: [column.kind for column in table.columns] for table in found.tables}
        async for table, page in copies.read(statements, database.bulk, found.tables):
            for row in page:
                pairs = zip(row, kinds[table], strict=True)
                rows[table].append([json.loads(value) if kind == "JSONB" and value else value for value, kind in pairs])
        return rows

    async with connect(url) as database:
        return await database.snapshot(work)
