"""`sfu key`, `sfu admin-key` and `sfu tier`: what they print where, and what they change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from support.process import environment, sfu

from sfu.settings.config import Config
from sfu.store.data import open_data
from sfu.store.tiers import Limits

KEY = re.compile(r"(?:pk|ak)_[A-Za-z0-9_-]{43}\n")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_dir=tmp_path)


@pytest.fixture
def run(config: Config) -> Callable[..., Any]:
    """Runs `sfu …` on a database of the test's own, where there is a company Acme."""

    async def make() -> None:
        async with open_data(config) as store:
            await store.companies.ensure_default()
            await store.companies.create("Acme")

    trio.run(make)
    return lambda *arguments: sfu(*arguments, env=environment(data_dir=str(config.data_dir)))


def asked(config: Config, question: Callable[..., Any]) -> Any:
    async def ask() -> Any:
        async with open_data(config) as store:
            return await question(store)

    return trio.run(ask)


def test_a_key_is_made_listed_and_revoked(run: Callable[..., Any], config: Config) -> None:
    made = run("key", "create", "Acme", "ci", "--scope", "rooms:read", "--scope", "tokens:create", "--expires", "90d")
    assert KEY.fullmatch(made.stdout), made.stderr
    assert "logger=sfu.audit create_key company='Acme' key_id=" in made.stderr
    key, company = asked(config, lambda store: store.keys.find(made.stdout.strip()))
    assert (key.name, key.scopes, company.name) == ("ci", ("rooms:read", "tokens:create"), "Acme")
    assert (key.expires_at - key.created_at).days in (89, 90)
    listed = run("key", "list", "Acme").stdout
    assert re.search(rf"^{key.prefix}… +ci +rooms:read,tokens:create +works until .* never +{key.id}$", listed, re.M)
    assert made.stdout.strip() not in listed
    assert re.search(r"^Acme +pk_\S+… and 1 more ", run("company", "list").stdout, re.M)
    assert run("key", "revoke", "Acme", key.prefix).returncode == 0
    assert asked(config, lambda store: store.keys.find(made.stdout.strip())) is None
    for wrong in (key.prefix, key.id, "pk_", "x"):
        refused = run("key", "revoke", "Acme", wrong)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "sfu: No key that works has this id" in refused.stderr
    assert run("key", "create", "Nobody", "x", "--scope", "admin").returncode == 2
    assert "key's name is empty" in run("key", "create", "Acme", " ", "--scope", "admin").stderr
    assert "required: --scope" in run("key", "create", "Acme", "x").stderr
    assert "works no more" in run("key", "create", "Acme", "x", "--scope", "admin", "--expires", "0d").stderr
    assert "or none for no limit" in run("tier", "set", "free", "--history-days", "0").stderr


def test_an_admin_key_is_made_listed_and_revoked(run: Callable[..., Any], config: Config) -> None:
    made = run("admin-key", "--name", "billing")
    assert KEY.fullmatch(made.stdout), made.stderr
    assert made.stdout.startswith("ak_")
    key, company = asked(config, lambda store: store.keys.find(made.stdout.strip()))
    assert (key.name, company) == ("billing", None)
    assert re.search(rf"^{key.prefix}… +billing ", run("admin-key", "--list").stdout, re.M)
    assert run("admin-key", "--revoke", made.stdout.strip()).returncode == 0
    assert asked(config, lambda store: store.keys.find(made.stdout.strip())) is None
    assert key.prefix not in run("admin-key", "--list").stdout
    rows = asked(config, lambda store: store.database.read("SELECT action, by_kind FROM audit_entries ORDER BY at"))
    assert [(row["action"], row["by_kind"]) for row in rows][-2:] == [
        ("key.created", "command"),
        ("key.revoked", "command"),
    ]


def test_limits_are_set_and_shown(run: Callable[..., Any], config: Config) -> None:
    done = run("tier", "set", "free", "--people", "50", "--minutes-month", "10000", "--recording", "off")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^people +50 +none +none$", done.stdout, re.M)
    assert re.search(r"^recording +off +on +on$", done.stdout, re.M)
    assert "set_tier tier=free " in done.stderr
    run("tier", "set", "free", "--people", "none")
    assert asked(config, lambda store: store.tiers.all()) == {"free": Limits(minutes_month=10000, recording=False)}
    assert json.loads(run("tier", "list", "--json").stdout)["free"]["minutes_month"] == 10000
    refused = run("tier", "set", "free", "--history-days", "7")
    assert refused.returncode == 2
    assert "sfu: Minutes of a month are counted from sessions" in refused.stderr
    assert run("tier", "set", "free", "--people", "-1").returncode == 2
