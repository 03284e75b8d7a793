"""A stay of a limited length ends by itself, and whoever returns has the time that was left."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from support.control import running
from test_joining import issued, sessions, url, welcomed
from test_returning import gone

from sfu.calls.admission import utc_now

pytest_plugins = ["support.postgres"]


async def test_a_call_ends_when_the_time_of_its_token_is_over(tmp_path: Path, database_url: str) -> None:
    async with running(tmp_path, database_url=database_url) as server:
        company, _ = await server.store.companies.create("Acme")
        brief = await issued(server, company, user_name="brief", max_duration_s=1, user_id="u-7")
        long = await issued(server, company, user_name="long", max_duration_s=3600)
        async with server.connect(url(long)) as other:
            await welcomed(other)
            async with server.connect(url(brief)) as client:
                await welcomed(client)
                await client.expect_bye("time_over", 1000, rejoin=False)
            await other.expect("joined")
            assert (await other.expect("left"))["reason"] == "time_over"
        ended = {session.user_name: session for session in await sessions(server, company)}
    assert (ended["brief"].leave_reason, ended["brief"].user_id) == ("time_over", "u-7")
    assert ended["long"].leave_reason != "time_over"


async def test_who_returns_has_the_time_that_was_left(tmp_path: Path, database_url: str) -> None:
    """The time counts from the join, which the database remembers."""
    async with running(tmp_path, database_url=database_url) as server:
        company, _ = await server.store.companies.create("Acme")
        token = await issued(server, company, max_duration_s=600)
        async with server.connect(url(token)) as client:
            client.welcome = await welcomed(client)
            ticket = await gone(server, client)
        ago = utc_now() - timedelta(seconds=601)
        await server.store.database.run("UPDATE sessions SET connected_at = :ago", ago=ago)
        await server.store.database.run("UPDATE companies SET updated_at = :ago", ago=ago)
        async with server.connect(url(token), ticket=ticket) as client:
            assert (await client.until("bye"))["code"] == "time_over"
        (session,) = await sessions(server, company)
        assert session.leave_reason == "time_over"
