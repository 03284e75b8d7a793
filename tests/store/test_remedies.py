"""Whoever cannot get into PostgreSQL is told what its cause needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.doctors import doctor

from sfu.refusals import DatabaseUnavailable
from sfu.store.database import connect

if TYPE_CHECKING:
    from support.postgres import Postgres

pytest_plugins = ["support.postgres"]

RULES = """
host all strange 127.0.0.1/32 reject
host all secret 127.0.0.1/32 scram-sha-256
"""
ROLES = """
CREATE ROLE strange LOGIN; CREATE ROLE secret LOGIN PASSWORD 'north-by-northwest';
CREATE ROLE crowded LOGIN CONNECTION LIMIT 0
"""


@pytest.fixture(scope="module")
def strict(postgres: Postgres) -> Iterator[Postgres]:
    """Roles that get no further than one cause each."""
    rules = postgres._directory / "pg_hba.conf"
    before = rules.read_text()
    postgres.execute(ROLES)
    rules.write_text(RULES + before)
    postgres.execute("SELECT pg_reload_conf()")
    yield postgres
    rules.write_text(before)
    postgres.execute("SELECT pg_reload_conf(); DROP ROLE strange; DROP ROLE secret; DROP ROLE crowded")


@pytest.mark.parametrize(
    ("role", "rest", "advice"),
    [
        ("nobody", "/postgres", "CREATE ROLE"),
        ("sfu", "/nowhere", "CREATE DATABASE"),
        ("strange", "/postgres", "pg_hba.conf"),
        ("secret:wrong", "/postgres", "Correct the password"),
        ("crowded", "/postgres", "CONNECTION LIMIT"),
        ("sfu", "/postgres?ssl=true", "`ssl` in postgresql.conf"),
    ],
    ids=["role", "database", "pg_hba", "password", "connections", "tls"],
)
async def test_the_cause_and_what_it_needs(strict: Postgres, role: str, rest: str, advice: str) -> None:
    url = strict.url.replace("//sfu@", f"//{role}@").replace("/postgres", rest)
    with pytest.raises(DatabaseUnavailable, match=r"^The database cannot be opened: ") as refused:
        async with connect(url):
            pass
    assert advice in str(refused.value)
    assert str(refused.value).endswith(" SFU_DATABASE_URL names it.")


async def test_a_server_that_is_not_there() -> None:
    for place, advice in (("127.0.0.1:9", "host and port"), ("database.invalid", "it has no address")):
        with pytest.raises(DatabaseUnavailable, match=advice):
            async with connect(f"postgresql://sfu@{place}/postgres"):
                pass


async def test_the_doctor_says_it_too(strict: Postgres) -> None:
    strict.ready()
    status, _, fix = await doctor(
        "database", database_url=f"{strict.url.rpartition('/')[0]}/nowhere", server_key="A" * 43
    )
    assert status == "failed"
    assert "CREATE DATABASE" in fix
