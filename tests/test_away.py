"""The database goes away under a server with a call: the call goes on, newcomers wait, nothing is lost."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import trio
from control import eventually, running
from rest_client import request
from test_store_away import Away, away  # noqa: F401 -- a fixture

from sfu.admission import utc_now

pytest_plugins = ["postgres"]


async def test_a_call_outlives_the_database(tmp_path: Path, away: Away, database_url: str) -> None:  # noqa: F811
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
                shown = (("/health", "*/*"), ("/metrics", "text/plain")) if "postgresql" in database_url else ()
                for path, accept in shown:  # SQLite still answers what only reads, so it comes and goes
                    plain = {"Host": "x", "Connection": "close", "Accept": accept}
                    text = (await request(server.port, "GET", path, plain)).body.decode()
                    assert '"database": "away"' in text or "\nsfu_database_up 0\n" in text

                await bob.send("chat", {"text": "still here"})
                assert (await alice.expect("chat"))["text"] == "still here"
                await bob.expect("chat")
                await bob.send("leave")
                await bob.expect_bye("left", 1000, rejoin=False)
                assert (await alice.expect("left"))["reason"] == "left"
                left = utc_now()
                assert server.store.sessions.unwritten == 1
        await eventually(lambda: not server.store.sessions.unwritten, 20)
        async with server.joined(name="dave"):
            names = {
                one.user_name: one
                for one in (await server.store.history.room_sessions(server.default.id, "team")).items
            }
        assert names.keys() == {"alice", "bob", "dave"}
        assert names["bob"].leave_reason == "left"
        assert names["bob"].disconnected_at is not None
        assert abs(names["bob"].disconnected_at - left) < timedelta(seconds=2)
