"""`sfu forget` beside a server: the person leaves the call, and its chat, files and history forget them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import trio
from support.control import running
from support.filled import FILE_ID, fill, share
from support.process import Server, environment, sfu
from support.variants import variants

from sfu.errors import Removed
from sfu.settings.config import Config
from sfu.store.data import open_data
from sfu.store.trail import Entry, Wanted
from sfu.tenancy.keys import ServerKey

pytest_plugins = ["support.storing"]

KEY = bytes(range(32)).hex()

ALL = "2 chat lines, 1 file, 1 session, 1 token, 1 delivery, 3 events, 2 audit entries"


async def make(config: Config) -> None:
    async with open_data(config) as store:
        await fill(store)
        other, _ = await store.companies.create("Other")
        session = await store.sessions.admit_anonymous(other.id, "x", "alice")
        store.sessions.close(session, "left")
    share(config.data_dir / "files")


async def forgotten(config: Config) -> Sequence[Entry]:
    async with open_data(config) as store:
        return (await store.trail.list(Wanted(action="person.forgotten"))).items


def test_it_shows_what_it_found_asks_and_tells_the_audit(tmp_path: Path) -> None:
    trio.run(make, Config(data_dir=tmp_path))
    env = environment(data_dir=str(tmp_path))
    asked = sfu("forget", "--user", " alice ", env=env)
    assert asked.returncode == 2
    assert re.search(
        rf"^Company 'Acme & Söhne' named 'alice': {ALL}$",
        asked.stderr,
        re.M,
    )
    assert re.search(r"^Company 'Other' named 'alice': 1 session, 2 events$", asked.stderr, re.M)
    assert "There is no terminal to ask whether to do this. If it is right, add --yes." in asked.stderr
    several = sfu("forget", "--user", "alice", "--yes", env=env)
    assert several.returncode == 2
    assert "Several companies have this name, perhaps of different people. Add --company NAME." in several.stderr
    assert (tmp_path / "files" / FILE_ID).exists()
    done = sfu("forget", "--user", "alice", "--company", "Acme & Söhne", "--yes", env=env)
    assert (done.returncode, done.stdout) == (
        0, f"Erased from company 'Acme & Söhne': {ALL}.\n"
    )  # fmt: skip
    assert not (tmp_path / "files" / FILE_ID).exists()
    (audit,) = [line for line in done.stderr.splitlines() if "sfu.audit" in line]
    assert "forget company='Acme & Söhne' id=" in audit
    assert "sessions=1" in audit
    (entry,) = trio.run(forgotten, Config(data_dir=tmp_path))
    assert (entry.author.kind, entry.author.name != "") == ("command", True)
    assert (entry.change.before or {})["sessions"] == 1
    assert "alice" not in repr(entry)
    assert "alice" not in audit
    again = sfu("forget", "--user", "alice", "--company", "Acme & Söhne", "--yes", env=env)
    assert (again.returncode, again.stdout) == (0, "Nothing about 'alice' was found.\n")


def test_a_name_in_other_letters_is_not_taken_for_nobody(server: Server) -> None:
    link = sfu("token", "team", "--name", "Bob", "--bare", env=server.env)
    assert link.returncode == 0, link.stderr
    done = sfu("forget", "--user", "BOB", "--yes", env=server.env)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Nothing about 'BOB' was found, but there is 'Bob'." in done.stderr
    assert sfu("forget", "--user", "Bob", "--yes", env=server.env).returncode == 0
    done = sfu("forget", "--user", "BOB", "--yes", env=server.env)
    assert (done.returncode, done.stdout) == (0, "Nothing about 'BOB' was found.\n")


@pytest.mark.parametrize("by", ["name", *variants("id")])
async def test_a_person_in_a_call_is_removed_and_the_call_forgets_them(
    by: str, database_url: str, tmp_path: Path, server_key: ServerKey
) -> None:
    config = Config(host="127.0.0.1", port=0, workers=1, keep_open_chat=True)
    async with running(tmp_path, config, database_url=database_url) as server:
        async with server.joined(name="bob") as bob, server.joined(name="alice") as alice:
            await alice.send("chat", {"text": "who I am"})
            line = await bob.until("chat")
            await bob.send("chat", {"text": "mine stays"})
            await bob.until("chat")
            (session,) = [
                one for one in (await server.store.history.room_sessions(server.default.id, "team")).items
                if one.user_name == "alice"
            ]  # fmt: skip
            env = environment(data_dir=str(tmp_path), database_url=database_url, server_key=KEY)
            who = "alice" if by == "name" else session.id
            run = partial(sfu, "forget", "--user", who, "--yes", env=env)
            done = await trio.to_thread.run_sync(run)
            assert done.returncode == 0, done.stderr
            assert "in a call now, and removed from it: room 'team'" in done.stderr
            assert "1 chat line" in done.stdout
            assert (await alice.until("bye"))["code"] == Removed.code
            assert await bob.until("chat_deleted") == {"id": line["id"]}
        async with server.client(name="carol") as carol:
            lines = (await carol.until("history"))["lines"]
            assert [(one["name"], one["text"]) for one in lines] == [("bob", "mine stays")]
        rows = await server.store.database.read("SELECT user_name FROM sessions ORDER BY user_name")
        assert [row["user_name"] for row in rows] == ["bob", "carol"]
