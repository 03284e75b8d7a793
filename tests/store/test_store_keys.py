"""Keys, on both engines: found while they work, shared by nobody, rotated with an overlap, revoked for good."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from support.older import take_back

from sfu.refusals import CompanyNotFound, KeyNotFound, TooManyKeys
from sfu.store import Store, open_store
from sfu.store.audit import Author
from sfu.store.keys import MOST, USED_S
from sfu.store.records import Company
from sfu.tenancy.keys import ServerKey

pytest_plugins = ["support.storing"]

NO_ID = "00000000-0000-4000-8000-000000000000"


async def owner(store: Store, text: str) -> Company | None:
    found = await store.keys.find(text)
    return None if found is None else found[1]


async def audited(store: Store) -> list[tuple[str, str, str]]:
    rows = await store.database.read(
        "SELECT action, target, by_kind FROM audit_entries WHERE action <> 'company.created' ORDER BY at, action"
    )
    return [(row["action"], row["target"], row["by_kind"]) for row in rows]


async def test_a_key_is_found_by_its_whole_text_only(store: Store, company: Company, clock: Any) -> None:
    key, text = await store.keys.create(company.id, "ci", ["rooms:read", "tokens:create"])
    found = await store.keys.find(text.reveal())
    assert found == (key, company)
    assert key.scopes == ("rooms:read", "tokens:create")
    assert text.reveal().startswith(key.prefix)
    assert (key.created_at, key.expires_at, key.last_used_at, key.revoked_at) == (clock.now, None, None, None)
    last = "B" if text.reveal()[-1] == "A" else "A"
    for wrong in ("", "pk_", "é", "\0", "\ud800", "pk_" + "A" * 43, text.reveal()[:-1] + last, key.prefix):
        assert await store.keys.find(wrong) is None


async def test_a_key_is_of_one_company(store: Store, company: Company, other: Company) -> None:
    key, _ = await store.keys.create(company.id, "ci", ["admin"])
    assert await store.keys.get(company.id, key.id.upper()) == key
    for key_id in (key.id, NO_ID, "x", "\ud800"):
        with pytest.raises(KeyNotFound):
            await store.keys.get(other.id, key_id)
        with pytest.raises(KeyNotFound):
            await store.keys.change(other.id, key_id, {"name": "mine"})
        with pytest.raises(KeyNotFound):
            await store.keys.rotate(other.id, key_id, 0)
        with pytest.raises(KeyNotFound):
            await store.keys.revoke(other.id, key_id)
    assert [one.id for one in (await store.keys.list(company.id)).items].count(key.id) == 1
    assert key.id not in [one.id for one in (await store.keys.list(other.id)).items]


async def test_an_expired_or_revoked_key_is_as_an_unknown_one(store: Store, company: Company, clock: Any) -> None:
    soon = clock.now + timedelta(seconds=10)
    _, expiring = await store.keys.create(company.id, "a", ["admin"], expires_at=soon)
    revoked, text = await store.keys.create(company.id, "b", ["admin"])
    assert await owner(store, expiring.reveal()) == company
    clock.advance(10)
    assert await owner(store, expiring.reveal()) is None
    assert await store.keys.revoke(company.id, revoked.id)
    assert not await store.keys.revoke(company.id, revoked.id)
    assert await owner(store, text.reveal()) is None
    with pytest.raises(KeyNotFound):
        await store.keys.change(company.id, revoked.id, {"name": "back"})
    assert (await store.keys.get(company.id, revoked.id)).revoked_at == clock.now


async def test_both_keys_work_while_a_rotation_lasts(store: Store, company: Company, clock: Any) -> None:
    end = clock.now + timedelta(days=9)
    old, before = await store.keys.create(company.id, "ci", ["rooms:read"], expires_at=end)
    new, after = await store.keys.rotate(company.id, old.id, 60)
    assert (new.name, new.scopes, new.expires_at) == (old.name, old.scopes, end)
    assert await owner(store, before.reveal()) == await owner(store, after.reveal()) == company
    clock.advance(60)
    assert await owner(store, before.reveal()) is None
    assert await owner(store, after.reveal()) == company
    with pytest.raises(KeyNotFound):
        await store.keys.rotate(company.id, old.id, 60)
    _, third = await store.keys.rotate(company.id, new.id, 10**9)
    clock.advance(9 * 86_400)
    assert await owner(store, after.reveal()) is await owner(store, third.reveal()) is None  # not beyond its own expiry


async def test_a_change_keeps_what_it_does_not_name(store: Store, company: Company, clock: Any) -> None:
    key, text = await store.keys.create(company.id, "ci", ["rooms:read"])
    author = Author("key", key.id, "ci", "192.0.2.1", "request")
    later = clock.now + timedelta(hours=1)
    changed = await store.keys.change(company.id, key.id, {"scopes": ["admin"], "expires_at": later}, author=author)
    assert (changed.name, changed.scopes, changed.expires_at) == ("ci", ("admin",), later)
    assert (await store.keys.change(company.id, key.id, {"expires_at": None})).expires_at is None
    (row,) = await store.database.read("SELECT * FROM audit_entries WHERE by_kind = 'key'")
    assert (row["action"], row["by_name"], row["request_id"]) == ("key.changed", "ci", "request")
    assert json.loads(row["before"]) == {"scopes": ["rooms:read"], "expires_at": None}
    assert json.loads(row["after"])["scopes"] == ["admin"]
    assert await owner(store, text.reveal()) == company


async def test_every_write_is_in_the_audit_log_without_the_key(store: Store, company: Company) -> None:
    key, text = await store.keys.create(company.id, "ci", ["admin"])
    new, _ = await store.keys.rotate(company.id, key.id, 60)
    await store.keys.change(company.id, new.id, {"name": "x"})
    await store.keys.revoke(company.id, new.id)
    admin, _ = await store.keys.create_admin("op")
    await store.keys.revoke(None, admin.id)
    said = await audited(store)
    assert sorted(action for action, _, _ in said) == sorted(
        ["key.created"] * 3 + ["key.rotated", "key.changed", "key.revoked", "key.revoked"]
    )
    rows = await store.database.read("SELECT before, after FROM audit_entries")
    assert not any(text.reveal() in f"{row['before']} {row['after']}" for row in rows)


async def test_an_admin_key_has_no_company(store: Store, company: Company) -> None:
    key, text = await store.keys.create_admin("op")
    assert text.reveal().startswith("ak_")
    assert await store.keys.find(text.reveal()) == (key, None)
    with pytest.raises(KeyNotFound):
        await store.keys.revoke(company.id, key.id)
    assert await store.keys.revoke(None, key.id)
    assert await store.keys.find(text.reveal()) is None
    ours, _ = await store.keys.create(company.id, "a", ["admin"])
    with pytest.raises(KeyNotFound):
        await store.keys.revoke(None, ours.id)


async def test_the_last_use_is_written_once_a_minute(store: Store, company: Company, clock: Any) -> None:
    key, text = await store.keys.create(company.id, "ci", ["admin"])
    began = clock.now
    for _ in range(3):
        found = await store.keys.find(text.reveal())
        assert found is not None
        store.keys.used(found[0])
        clock.advance(1)
    assert len(store.uses) == 1
    await store.uses.flush()
    assert (await store.keys.get(company.id, key.id)).last_used_at == began
    clock.advance(USED_S)
    store.keys.used(await store.keys.get(company.id, key.id))
    await store.uses.flush()
    assert (await store.keys.get(company.id, key.id)).last_used_at == clock.now


async def test_a_company_has_so_many_keys(store: Store, company: Company) -> None:
    made = [await store.keys.create(company.id, str(n), ["admin"]) for n in range(MOST - 1)]
    with pytest.raises(TooManyKeys):
        await store.keys.create(company.id, "more", ["admin"])
    await store.keys.revoke(company.id, made[0][0].id)
    await store.keys.create(company.id, "more", ["admin"])
    first = await store.keys.list(company.id, limit=60)
    second = await store.keys.list(company.id, limit=60, cursor=first.next)
    assert len({key.id for key in first.items + second.items}) == MOST + 1
    assert second.next is None


async def test_a_rotation_of_the_companys_key_ends_those_that_may_do_everything(store: Store) -> None:
    company, old = await store.companies.create("Acme")
    _, narrow = await store.keys.create(company.id, "ci", ["rooms:read"])
    rotated, new = await store.companies.rotate_key(company.id)
    assert await owner(store, old.reveal()) is None
    assert await owner(store, new.reveal()) == await owner(store, narrow.reveal()) == rotated == company
    with pytest.raises(CompanyNotFound):
        await store.companies.rotate_key(NO_ID)


async def test_the_key_of_an_older_release_still_works(database_url: str, server_key: ServerKey) -> None:
    async with open_store(database_url, server_key) as store:
        company, text = await store.companies.create("Acme")
        (row,) = await store.database.read("SELECT prefix, hash FROM keys")
        await take_back(store.database, 18)
        await store.database.run(
            "UPDATE companies SET key_prefix = :prefix, key_hash = :hash WHERE id = :id", id=company.id, **row
        )
    async with open_store(database_url, server_key) as store:
        found = await store.keys.find(text.reveal())
        assert found is not None
        assert (found[0].name, found[0].scopes, found[1]) == ("first", ("admin",), company)
