"""The company's own id of a person, in the call and in its history."""

from __future__ import annotations

from pathlib import Path

from support.control import running
from test_joining import issued, rest, url, welcomed

pytest_plugins = ["support.postgres"]


async def test_participants_and_sessions_have_the_id_in_the_token(tmp_path: Path, database_url: str) -> None:
    async with running(tmp_path, database_url=database_url) as server:
        company, key = await server.store.companies.create("Acme")
        async with server.connect(url(await issued(server, company, user_id="u-7"))) as client:
            await welcomed(client)
            for path in ("/rooms/team/participants", "/sessions?user=u-7", "/rooms/team/sessions?state=open"):
                found = (await rest(server, "GET", path, key.reveal())).json["items"]
                assert [one["user_id"] for one in found] == ["u-7"], path
