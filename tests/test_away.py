"""The database goes away under a server with a call: the call goes on, newcomers wait, nothing is lost."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from support.control import running
from support.rest_client import request
from support.waiting import until

from sfu.calls.admission import utc_now

if TYPE_CHECKING:
    from support.away import Away

pytest_plugins = ["support.away", "support.postgres"]


async def test_a_call_outlives_the_database(tmp_path: Path, away: Away, database_url: str) -> None:
    async with running(tmp_path, database_url=database_url) as server, server.joined() as alice:
        key = (await server.store.companies.rotate_key(server.default.id))[1].reveal()
        headers = {"Host": "x", "Connection": "close", "Authorization": f"Bearer {key}"}
        headers |= {"Content-Type": "application/json"}

        async with server.joined(name="bob") as bob:
            await alice.expect("joined")
            with away(), trio.fail_after(40):
                problem = await server.refused("/ws?room=team&username=carol")
                assert (problem["status"], problem["code"]) == (503, "database_unavailable")
                async with server.client(name="carol") as carol:
                    await carol.expect_bye("database_unavailable", 1013, rejoin=True)
                body = json.dumps({"room_id": "new"}).encode()
                more = {"Content-Length": str(len(body))}
                reply = await request(server.port, "POST", "/api/v1/rooms", headers | more, body)
                assert (reply.status, reply.code) == (503, "database_unavailable")
                assert int(reply.headers["retry-after"]) > 0
                paths = (("/health", "*/*"), ("/readyz", "*/*"), ("/metrics", "text/plain"))
                shown = paths if "postgresql" in database_url else ()
                for path, accept in shown:  # SQLite still answers what only reads, so it comes and goes
                    plain = {"Host": "x", "Connection": "close", "Accept": accept}
                    text = (await request(server.port, "GET", path, plain)).body.decode()
                    words = ('"database": "away"', '"status": "database_away"', "\nsfu_database_up 0\n")
                    assert any(word in text for word in words)

                await bob.send("chat", {"text": "still here"})
                assert (await alice.expect("chat"))["text"] == "still here"
                await bob.expect("chat")
                await bob.send("leave")
                await bob.expect_bye("left", 1000, rejoin=False)
                assert (await alice.expect("left"))["reason"] == "left"
                left = utc_now()
                assert server.store.sessions.unwritten == 1
        await until(lambda: not server.store.sessions.unwritten)
        async with server.joined(name="dave"):
            names = {
                one.user_name: one
                for one in (await server.store.history.room_sessions(server.default.id, "team")).items
            }
        assert names.keys() == {"alice", "bob", "dave"}
        assert names["bob"].leave_reason == "left"
        assert names["bob"].disconnected_at is not None
        assert abs(names["bob"].disconnected_at - left) < timedelta(seconds=2)


REFUSED = "SELECT RAISE(ABORT, 'out of order')"
ODD = "UPDATE rooms SET max_participants = 0"  # which its column forbids: as a bug of ours would


@pytest.mark.parametrize(
    ("does", "status", "code"), [(REFUSED, 503, "database_unavailable"), (ODD, 500, "internal")], ids=["refused", "odd"]
)
async def test_what_the_database_refuses_is_answered_and_said_once(
    tmp_path: Path, does: str, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as server, server.joined():
        key = (await server.store.companies.rotate_key(server.default.id))[1].reveal()
        with closing(sqlite3.connect(tmp_path / "sfu.db", timeout=5)) as connection:
            connection.execute(f"CREATE TRIGGER a BEFORE INSERT ON sessions BEGIN {does}; END")
            connection.execute(f"CREATE TRIGGER b AFTER INSERT ON tokens BEGIN {does}; END")
        problem = await server.refused("/ws?room=team&username=carol")
        assert (problem["status"], problem["code"]) == (status, code)
        async with server.client(name="carol") as carol:
            assert (await carol.expect("bye"))["code"] == code
        body = json.dumps({"room_id": "team", "user_name": "alice"}).encode()
        headers = {"Host": "x", "Connection": "close", "Authorization": f"Bearer {key}"}
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        reply = await request(server.port, "POST", "/api/v1/tokens", headers, body)
        assert (reply.status, reply.code) == (status, code)
    said = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert len(said) == (2 if status == 503 else 3), "for each statement, or for each that failed"
