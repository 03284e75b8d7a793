"""Files shared in a running call: who may, what everybody sees, and what a hostile client gets out of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.control import Server, running, settings
from support.rest_client import request
from support.waiting import until
from test_moderation import ticket

from sfu.calls import sharing, transfers
from sfu.store.records import RoomSettings

if TYPE_CHECKING:
    from support.away import Away
    from support.rest_client import Reply

pytest_plugins = ["support.away", "support.postgres"]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as started:
        yield started


async def send(server: Server, secret: str, body: bytes, **headers: Any) -> Reply:
    fields = {"Host": "x", "Connection": "close", "Authorization": f"Bearer {secret}"}
    fields |= {"Content-Length": str(len(body)), "Content-Type": "image/png", "X-File-Name": "caf%C3%A9.png"}
    return await request(server.port, "POST", "/files", fields | headers, body)


WRONG = f"{'x' * 12}.{'x' * 32}"
"""A text of the form of a session's secret."""


async def fetch(server: Server, url: str) -> Reply:
    return await request(server.port, "GET", url, {"Host": "x", "Connection": "close"})


def stored(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "files").iterdir())


async def test_a_file_is_shared_fetched_and_told_to_who_comes_later(server: Server, tmp_path: Path) -> None:
    body = bytes(range(256)) * 16_384  # 4 MiB
    async with server.joined(name="alice") as alice, server.joined(name="bob") as bob:
        assert alice.welcome["limits"]["file_bytes"] == 10 << 20
        reply = await send(server, alice.welcome["session"], body)
        assert reply.status == 201
        file = reply.json
        assert file == {"name": "café.png", "size": len(body), "type": "image/png", "url": file["url"]}
        assert "/" + reply.headers["location"] == file["url"]
        line = await bob.until("chat")
        assert (line["peer"], line["text"], line["file"]) == (alice.peer, "", file)
        assert await alice.until("chat") == line
        got = await fetch(server, file["url"])
        assert (got.status, got.body) == (200, body)
        assert got.headers["content-type"] == "image/png"
        assert got.headers["content-disposition"] == "attachment; filename*=UTF-8''caf%C3%A9.png"
        assert got.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert got.headers["x-content-type-options"] == "nosniff"
        async with server.client(name="carol") as carol:
            await carol.expect("welcome")
            assert (await carol.expect("history"))["lines"] == [line]
        key = (await server.store.companies.rotate_key(server.default.id))[1].reveal()
        bearer = {"Host": "x", "Connection": "close", "Authorization": f"Bearer {key}"}
        path = f"/api/v1/rooms/team/chat/{line['id']}"
        assert (await request(server.port, "DELETE", path, bearer)).status == 204
        assert (await fetch(server, file["url"])).code == "file_not_found"
        assert len(stored(tmp_path)) == 1, "until the next sweep"


async def test_what_a_browser_could_run_comes_as_octets(server: Server) -> None:
    async with server.joined() as alice:
        for kind in ("text/html", "image/svg+xml", "application/javascript", "x"):
            reply = await send(server, alice.welcome["session"], b"<script>", **{"Content-Type": kind})
            assert (await fetch(server, reply.json["url"])).headers["content-type"] == "application/octet-stream"


async def test_who_may_not_share(server: Server, tmp_path: Path) -> None:
    await server.store.rooms.create(server.default.id, "quiet", RoomSettings(files=False))
    async with server.joined() as alice, server.joined("quiet") as bob:
        secret = alice.welcome["session"]
        assert bob.welcome["state"]["files"] is False
        assert (await send(server, bob.welcome["session"], b"x")).code == "files_off"
        for wrong in ("x", secret[:-1], secret + "x", alice.peer, alice.peer + "."):
            reply = await send(server, wrong, b"x")
            assert (reply.status, reply.code) == (401, "session_unknown"), wrong
        for name in (b"caf%E9.png", "café.png".encode(), b"caf\xe9.png", b"50%.png", b"%zz.png", b"%C3%A9\xc3\xa9"):
            assert (await send(server, secret, b"x", **{"X-File-Name": name})).code == "bad_request", name
        await alice.send("leave")
        await alice.expect_bye("left", 1000, rejoin=False)
        assert (await send(server, secret, b"x")).code == "session_unknown"
    assert stored(tmp_path) == []


async def test_a_file_has_a_length_that_is_held_while_it_comes(tmp_path: Path) -> None:
    config = settings(file_bytes=200_000, room_files_bytes=300_000, files_bytes=450_000)
    async with running(tmp_path, config) as server, server.joined() as alice, server.joined("other") as bob:
        secret = alice.welcome["session"]
        assert (await send(server, secret, b"x" * 200_001)).code == "body_too_large"
        assert (await chunked(server, secret, b"x" * 50_000, 5)).code == "file_too_large"
        assert (await chunked(server, secret, b"x" * 50_000, 4)).status == 201
        assert (await send(server, secret, b"x" * 100_001)).code == "files_full"
        assert (await send(server, secret, b"x" * 100_000)).status == 201
        assert (await send(server, bob.welcome["session"], b"x" * 150_001)).code == "files_full"
        assert (await send(server, bob.welcome["session"], b"x" * 150_000)).status == 201
        assert sum(path.stat().st_size for path in stored(tmp_path)) == 450_000


async def chunked(server: Server, secret: str, piece: bytes, times: int) -> Reply:
    """A body whose length nobody was told."""
    import h11
    from support.rest_client import Reply

    client = h11.Connection(h11.CLIENT)
    fields = [("Host", "x"), ("Connection", "close"), ("Authorization", f"Bearer {secret}")]
    fields += [("Transfer-Encoding", "chunked")]
    data = client.send(h11.Request(method="POST", target="/files", headers=fields)) or b""
    for _ in range(times):
        data += client.send(h11.Data(data=piece)) or b""
    data += client.send(h11.EndOfMessage()) or b""
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        with trio.fail_after(10):
            await stream.send_all(data)
            answer = b"".join([part async for part in stream])
    client.receive_data(answer)
    client.receive_data(b"")
    response, content = client.next_event(), b""
    assert isinstance(response, h11.Response)
    while isinstance(event := client.next_event(), h11.Data):
        content += bytes(event.data)
    return Reply(response.status_code, {k.decode(): v.decode() for k, v in response.headers}, content)


async def test_half_a_file_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, settings(send_s=1.0)) as server, server.joined() as alice:
        head = f"POST /files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.welcome['session']}\r\n"
        head += "Content-Length: 100000\r\n\r\n"
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(head.encode() + b"x" * 1000)
            await until(lambda: stored(tmp_path))
        await until(lambda: not stored(tmp_path))
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(head.encode() + b"x" * 1000)
            with trio.fail_after(5):
                answer = b"".join([part async for part in stream])
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b'"file_late"' in answer
        assert stored(tmp_path) == []
        await alice.send("chat", {"text": "still here"})
        await alice.expect("chat")


async def test_one_persons_slow_uploads_stop_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "UPLOADS", 3)
    async with running(tmp_path) as server, server.joined() as alice, server.joined() as bob:
        head = f"POST /files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.welcome['session']}\r\n"
        head += "Content-Length: 100000\r\n\r\n"
        async with AsyncExitStack() as stack:
            for _ in range(5):
                stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", server.port))
                await stream.send_all(head.encode() + b"x")
            await until(lambda: len(stored(tmp_path)) == sharing.UPLOADS_OF_ONE)
            assert (await send(server, bob.welcome["session"], b"x")).status == 201


async def test_an_upload_of_a_byte_at_a_time_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "SLACK_S", 1.0)
    async with running(tmp_path) as server, server.joined() as alice:
        head = f"POST /files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.welcome['session']}\r\n"
        head += "Content-Length: 100000\r\n\r\n"
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream, trio.open_nursery() as nursery:
            await stream.send_all(head.encode())

            async def trickle() -> None:
                while True:
                    await stream.send_all(b"x")
                    await trio.sleep(0.05)

            nursery.start_soon(trickle)
            with trio.fail_after(10):
                assert b'"file_late"' in b"".join([await stream.receive_some() for _ in range(2)])
            nursery.cancel_scope.cancel()
        assert stored(tmp_path) == []


async def test_slow_downloads_are_answered_once_there_is_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes all places with downloads that are not read gets no more of them than one address may have."""
    monkeypatch.setattr(sharing, "DOWNLOADS_TO_ONE", 2)
    async with running(tmp_path) as server, server.joined() as alice:
        url = (await send(server, alice.welcome["session"], bytes(10 << 20))).json["url"]
        ask = f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        for method in ("HEAD", "GET") * 3:  # neither a response without a body nor one that is not read costs a place
            async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
                await stream.send_all(ask.replace(b"GET", method.encode()))
                assert await stream.receive_some(12) == b"HTTP/1.1 200"
        async with AsyncExitStack() as stack:
            slow = [
                await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", server.port)) for _ in range(3)
            ]
            for stream in slow[:2]:
                await stream.send_all(ask)
                assert await stream.receive_some(12) == b"HTTP/1.1 200"
            await slow[2].send_all(ask)
            with trio.move_on_after(0.5) as waiting:
                await slow[2].receive_some(12)
            assert waiting.cancelled_caught, "no headers without a place"
            await slow[0].aclose()
            with trio.fail_after(10):
                assert len(b"".join([part async for part in slow[2]])) > 10 << 20


async def test_a_flood_of_files_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "FILES", 2)
    async with running(tmp_path) as server, server.joined() as alice:
        for _ in range(2):
            assert (await send(server, alice.welcome["session"], b"x")).status == 201
        reply = await send(server, alice.welcome["session"], b"x")
        assert (reply.status, reply.code) == (429, "too_many_requests")
        assert int(reply.headers["retry-after"]) > 0


async def test_without_a_database_there_is_no_file(
    tmp_path: Path,
    away: Away,
    database_url: str,
) -> None:
    async with running(tmp_path, database_url=database_url) as server, server.joined() as alice:
        with away(), trio.fail_after(30):
            reply = await send(server, alice.welcome["session"], b"x")
            assert (reply.status, reply.code) == (503, "database_unavailable")
            assert int(reply.headers["retry-after"]) > 0
        assert stored(tmp_path) == []


async def test_a_token_without_chat_shares_nothing(server: Server) -> None:
    from sfu.tenancy.tokens import Permissions

    async with server.connect(await ticket(server, permissions=Permissions(chat=False))) as alice:
        welcome = await alice.expect("welcome")
        reply = await send(server, welcome["session"], b"x")
        assert (reply.status, reply.code) == (403, "not_allowed")


async def test_guessing_secrets_is_stopped(server: Server) -> None:
    token = (await ticket(server)).partition("token=")[2]
    for mistake in ("x", "x.y", "x" * 45, f"pk_{'x' * 43}", token):
        for _ in range(10):
            assert (await send(server, mistake, b"x")).status == 401
    for _ in range(10):
        assert (await send(server, WRONG, b"x")).status == 401
    reply = await send(server, WRONG, b"x")
    assert (reply.status, reply.code) == (429, "too_many_failures")
    forged = token[:-8] + "AAAAAAAA"
    async with server.connect(f"/ws?token={forged}") as client:
        await client.expect_bye("too_many_failures", 4429, rejoin=False)
    problem = await server.refused(f"/ws?token={forged}")
    assert problem["status"] == 429
    async with server.joined() as alice:  # who has no token guesses nothing
        assert (await send(server, alice.welcome["session"], b"x")).status == 201, "a valid secret always works"
    async with server.connect(await ticket(server)) as bob:
        assert (await bob.expect("welcome"))["name"], "a valid token always works"
    assert json.loads(reply.body)["code"] == "too_many_failures"


async def test_a_file_larger_than_the_tier_allows(server: Server, tmp_path: Path) -> None:
    await server.store.tiers.set("free", {"file_bytes": 10})
    async with server.joined() as alice:
        reply = await send(server, alice.welcome["session"], b"x" * 11)
        assert (reply.status, reply.code) == (403, "quota_exceeded")
        assert stored(tmp_path) == []
        assert (await send(server, alice.welcome["session"], b"x" * 10)).status == 201
