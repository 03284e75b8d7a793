"""Joining with and without a token, on both engines: who gets in, as whom, to do what, for how long."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import jwt
import pytest
import trio
from support.control import HANDSHAKE, Client, Server, running, settings
from support.rest_client import request
from support.waiting import until

from sfu.calls.admission import utc_now
from sfu.calls.entrance import WATCH_S
from sfu.calls.registry import JOINS
from sfu.store.records import Company, RoomSettings, Session
from sfu.tenancy import tokens
from sfu.tenancy.tokens import Permissions

if TYPE_CHECKING:
    from support.rest_client import Reply

pytest_plugins = ["support.postgres"]

Issue = Callable[..., Awaitable[str]]


@pytest.fixture
async def server(tmp_path: Path, database_url: str) -> AsyncIterator[Server]:
    async with running(tmp_path, database_url=database_url) as started:
        yield started


@pytest.fixture
async def acme(server: Server) -> tuple[Company, str]:
    company, key = await server.store.companies.create("Acme")
    return company, key.reveal()


@pytest.fixture
def issue(server: Server, acme: tuple[Company, str]) -> Issue:
    """A token of Acme's for alice in the room `team`, or as told."""

    async def make(*, company: Company | None = None, **changes: Any) -> str:
        return await issued(server, company or acme[0], **changes)

    return make


async def issued(server: Server, owner: Company, *, single_use: bool = False, **changes: Any) -> str:
    usual = {"company_id": owner.id, "room_id": "team", "user_name": "alice", "duration_s": 600, "now": utc_now()}
    grant = tokens.grant(**(usual | changes))
    token = tokens.encode(grant, server.store.companies.secret(owner).reveal())
    await server.store.tokens.add(grant, token, single_use=single_use)
    return token


def url(token: str, **more: str) -> str:
    return "/ws?" + urlencode({"token": token, **more})


async def welcomed(client: Client) -> dict[str, Any]:
    welcome: dict[str, Any] = await client.expect("welcome")
    client.peer = welcome["peer"]
    await client.expect("offer")
    return welcome


async def sessions(server: Server, company: Company, room_id: str = "team") -> tuple[Session, ...]:
    await server.store.sessions.flush()
    return (await server.store.history.room_sessions(company.id, room_id)).items


async def rest(server: Server, method: str, path: str, key: str) -> Reply:
    headers = {"Host": "x", "Connection": "close", "Authorization": f"Bearer {key}"}
    return await request(server.port, method, "/api/v1" + path, headers)


# --- who gets in -----------------------------------------------------------------------------------------------------


async def test_a_token_binds_room_and_name(server: Server, issue: Issue, acme: tuple[Company, str]) -> None:
    may = {"publish": True, "subscribe": True, "chat": True, "moderate": False}
    for target in (url(await issue()), url(await issue(), room="team", username="mallory")):
        async with server.connect(target) as client:
            welcome = await welcomed(client)
            assert (welcome["room"], welcome["name"], welcome["permissions"]) == ("team", "alice", may)
            assert list(server.rooms.rooms) == [f"{acme[0].id}/team"]
        await until(lambda: not server.rooms.rooms)


@pytest.mark.parametrize(
    ("default", "anonymous", "room", "rules", "public"),
    [
        (True, True, "team", RoomSettings(), True),
        (True, True, "team", RoomSettings(locked=True, lobby=True), True),  # it leads to the door
        (True, True, "team", RoomSettings(access="token"), False),
        (True, True, "two  blanks", RoomSettings(), True),
        (True, True, "x" * 255, RoomSettings(), True),
        (True, False, "team", RoomSettings(), False),
        (False, True, "team", RoomSettings(), False),  # another room of the same name
    ],
)
async def test_a_room_tells_whether_its_name_leads_there(
    tmp_path: Path, default: bool, anonymous: bool, room: str, rules: RoomSettings, public: bool
) -> None:
    async with running(tmp_path, settings(allow_anonymous=anonymous)) as server:
        company = server.default if default else (await server.store.companies.create("Acme"))[0]
        await server.store.rooms.create(company.id, room, rules)
        token = await issued(server, company, room_id=room, permissions=Permissions(moderate=True))
        async with server.connect(url(token)) as client:
            assert (await welcomed(client))["state"]["public"] is public


async def test_a_token_comes_as_a_subprotocol_and_is_not_sent_back(server: Server, issue: Issue) -> None:
    async with server.connect("/ws", token=await issue()) as client:
        assert (await welcomed(client))["name"] == "alice"
        assert client.ws.subprotocol == "sfu.v1"


async def test_two_different_tokens_are_refused(server: Server, issue: Issue) -> None:
    problem = await server.refused(f"/ws?token={await issue()}&token={await issue()}")
    assert (problem["status"], problem["code"]) == (400, "bad_request")


async def test_rooms_of_two_companies_are_two_calls(server: Server, issue: Issue) -> None:
    other, _ = await server.store.companies.create("Other")
    async with server.connect(url(await issue())) as alice, server.connect(url(await issue(company=other))) as eve:
        assert (await welcomed(alice))["participants"] == (await welcomed(eve))["participants"] == []
        async with server.joined("team", "guest") as guest:
            assert guest.welcome["participants"] == []
        await eve.send("chat", {"text": "hello"})
        await eve.expect("chat")
        await alice.send("chat", {"text": "alone"})
        assert (await alice.expect("chat"))["text"] == "alone"
        joins = [fields["room"] for name, fields in await alice.commands() if name == "Join"]
        assert len(set(joins)) == 3


async def test_a_bad_token_is_refused_where_anybody_may_enter(server: Server, issue: Issue) -> None:
    good = await issue()
    company = next(iter(await server.store.companies.list()))
    other, _ = await server.store.companies.create("Other")
    secret = server.store.companies.secret(other).reveal()
    claims = jwt.decode(good, options={"verify_signature": False})
    stolen = jwt.encode(claims | {"company_id": other.id}, secret, headers={"kid": company.id})
    for token, code, status in (
        ("", "token_malformed", 401),
        ("x", "token_malformed", 401),
        (good[:-4] + "AAAA", "token_signature", 401),
        (stolen, "token_signature", 401),
        (await issue(now=utc_now() - timedelta(hours=1)), "token_expired", 401),
    ):
        problem = await server.refused(f"/ws?room=open&token={token}")
        assert (problem["code"], problem["status"]) == (code, status)
        async with server.connect(url(token, room="open")) as client:
            await client.expect_bye(code, 4401, rejoin=False)
    problem = await server.refused(url(good, room="other"))
    assert (problem["code"], problem["status"]) == ("token_room", 403)


async def test_a_room_may_ask_for_a_token(server: Server, issue: Issue) -> None:
    await server.store.rooms.create(server.default.id, "closed", RoomSettings(access="token"))
    assert (await server.refused("/ws?room=closed"))["code"] == "token_required"
    async with server.connect(url(await issue(company=server.default, room_id="closed"))) as client:
        await welcomed(client)


async def test_a_server_may_ask_for_a_token(tmp_path: Path) -> None:
    async with running(tmp_path, settings(allow_anonymous=False)) as server:
        problem = await server.refused("/ws?room=team&username=alice")
        assert (problem["status"], problem["code"]) == (401, "token_required")


async def test_a_disabled_company_gets_nobody_in(server: Server, issue: Issue, acme: tuple[Company, str]) -> None:
    token = await issue()
    for company, target in ((acme[0], url(token)), (server.default, "/ws?room=team")):
        await server.store.companies.set_active(company.id, False)
        problem = await server.refused(target)
        assert (problem["status"], problem["code"]) == (403, "company_disabled")


async def test_a_single_use_token_lets_one_in(server: Server, issue: Issue) -> None:
    token, entered, codes = await issue(single_use=True), [], []

    async def enter() -> None:
        async with server.connect(url(token)) as client:
            event, data = await client.receive()
            if event == "welcome":
                entered.append(data)
            else:
                codes.append(data["code"])

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(enter)
    assert (len(entered), codes) == (1, ["token_used"] * 4)


async def test_a_join_that_finds_no_media_uses_up_no_token(server: Server, issue: Issue) -> None:
    token = await issue(single_use=True)
    for code in ("answer_timeout", "ice_timeout"):
        async with server.connect(url(token)) as client:
            await welcomed(client)
            await client.do(("Failed", {"code": code, "message": ""}))
            await client.closed()
        await server.store.sessions.flush()
    async with server.connect(url(token)) as client:
        await welcomed(client)
        await client.do(("Connected", {"address": "127.0.0.1"}), ("Failed", {"code": "ice_timeout", "message": ""}))
        await client.closed()
    await server.store.sessions.flush()
    assert (await server.refused(url(token)))["code"] == "token_used"


async def test_a_server_that_drains_begins_no_call_and_uses_up_no_token(
    server: Server, issue: Issue, acme: tuple[Company, str]
) -> None:
    token, life = await issue(single_use=True), server.signaling.calls.life
    await server.store.rooms.create(server.default.id, "closed", RoomSettings(lobby=True))
    async with server.joined("other") as alice, server.client("closed", "bob") as bob:
        await bob.expect("waiting")
        life.drain(600)
        server.signaling.drain()
        assert (await alice.expect("draining"))["in_s"] == 600
        await bob.expect_bye("server_draining", 1013, rejoin=True)
        async with server.connect(url(token)) as client:
            await client.expect_bye("server_draining", 1013, rejoin=True)
        async with server.connect("/ws", resume=alice.welcome["session"]) as again:
            assert (await again.expect("welcome"))["resumed"]
            assert (await again.expect("draining"))["in_s"] <= 600, "it may not have arrived before"
            server.signaling.stop()
            while (await again.receive())[0] != "bye":
                pass
    await server.store.sessions.flush()
    assert not (await server.store.history.room_sessions(acme[0].id, "team")).items, "the token was not used"


async def test_a_join_that_the_drain_overtakes_uses_up_no_token(
    server: Server, issue: Issue, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, life, admission = await issue(single_use=True), server.signaling.calls.life, server.signaling.calls.admission
    admit = admission.admit

    async def slowly(entry: Any, *, invited: bool) -> Any:
        found = await admit(entry, invited=invited)
        life.drain(600)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(admission, "admit", slowly)
        async with server.connect(url(token)) as client:
            await client.expect_bye("server_draining", 1013, rejoin=True)
    await server.store.sessions.flush()
    life.phase = "ready"  # as after the restart
    async with server.connect(url(token)) as client:
        await welcomed(client)


async def test_nobody_more_than_the_room_takes(server: Server, issue: Issue, acme: tuple[Company, str]) -> None:
    await server.store.rooms.create(acme[0].id, "team", RoomSettings(max_participants=3))
    entered, codes, done = [], [], trio.Event()

    async def enter(name: str) -> None:
        async with server.connect(url(await issue(user_name=name))) as client:
            event, data = await client.receive()
            (entered if event == "welcome" else codes).append(data.get("code", name))
            if len(entered) + len(codes) == 8:
                done.set()
            await done.wait()

    async with trio.open_nursery() as nursery:
        for n in range(8):
            nursery.start_soon(enter, f"user-{n}")
    assert (len(entered), codes) == (3, ["room_full"] * 5)


# --- to do what ------------------------------------------------------------------------------------------------------


async def test_permissions_reach_the_media_plane(server: Server, issue: Issue) -> None:
    may = Permissions(publish=False, subscribe=True, chat=False)
    async with server.connect(url(await issue(permissions=may))) as client:
        assert (await welcomed(client))["permissions"] == may.to_json()
        for event, data in (
            ("publish", {"source": "screen", "kind": "video"}),
            ("publish", {"source": "camera", "kind": "video"}),
            ("chat", {"text": "hello"}),
        ):
            await client.send(event, data)
            assert (await client.expect("error"))["code"] == "not_allowed"
        await client.send("mute", {"source": "camera", "muted": True})
        assert (await client.expect("error"))["code"] == "bad_source"
        commands = await client.commands()
        assert [(fields["publish"], fields["subscribe"]) for name, fields in commands if name == "Join"] == [
            (False, True)
        ]
        assert not [name for name, _ in commands if name == "Publish"]


# --- for how long ----------------------------------------------------------------------------------------------------


async def test_a_token_that_expires_lets_nobody_in_and_ends_no_call(
    server: Server, issue: Issue, acme: tuple[Company, str]
) -> None:
    """Who is in stays in, comes back with the session's secret, and goes when the token is revoked."""
    company, key = acme
    age_s = 600 + tokens.LEEWAY_S - 4  # so it is good for some seconds more
    token = await issue(now=utc_now() - timedelta(seconds=age_s))
    claims = jwt.decode(token, options={"verify_signature": False, "verify_exp": False})
    async with server.connect(url(token)) as client:
        secret = (await welcomed(client))["session"]
        await until(lambda: utc_now().timestamp() > claims["exp"] + tokens.LEEWAY_S)
        assert (await server.refused(url(token)))["code"] == "token_expired"
        await client.send("chat", {"text": "still here"})
        assert (await client.expect("chat"))["text"] == "still here"
        async with server.connect("/ws", resume=secret) as again:
            assert (await again.expect("welcome"))["resumed"]
            await again.expect("history")
            assert (await rest(server, "DELETE", f"/tokens/{claims['jti']}", key)).status == 204
            while (last := await again.receive())[0] != "bye":
                pass
            assert last[1]["code"] == "token_revoked"
    (session,) = await sessions(server, company)
    assert session.leave_reason == "token_revoked"


async def test_revocation_ends_the_call(server: Server, issue: Issue, acme: tuple[Company, str]) -> None:
    company, key = acme
    token = await issue()
    async with server.connect(url(token)) as client, AsyncExitStack() as stack:
        await welcomed(client)
        bob = await stack.enter_async_context(server.connect(url(await issue(user_name="bob"))))
        await welcomed(bob)
        token_id = jwt.decode(token, options={"verify_signature": False})["jti"]
        assert (await rest(server, "DELETE", f"/tokens/{token_id}", key)).status == 204
        with suppress(AssertionError):
            await client.expect_bye("token_revoked", 4401, rejoin=False)
        await client.closed()
        assert (await server.refused(url(token)))["code"] == "token_revoked"
        await bob.send("chat", {"text": "still here"})
    assert "token_revoked" in {session.leave_reason for session in await sessions(server, company)}


async def test_what_another_process_revokes_or_disables_ends(
    server: Server, issue: Issue, acme: tuple[Company, str]
) -> None:
    assert WATCH_S <= 1  # docs/api.md promises two seconds
    tok = await issue()
    token_id = jwt.decode(tok, options={"verify_signature": False})["jti"]
    for change, code, close_code in (
        (partial(server.store.tokens.revoke, acme[0].id, token_id), "token_revoked", 4401),
        (partial(server.store.companies.set_active, acme[0].id, False), "company_disabled", 4403),
    ):
        async with server.connect(url(tok if code == "token_revoked" else await issue())) as client:
            await welcomed(client)
            await change()
            await client.expect_bye(code, close_code, rejoin=False)


async def test_deleting_a_room_ends_its_call_only(server: Server, issue: Issue, acme: tuple[Company, str]) -> None:
    company, key = acme
    other = url(await issue(room_id="other"))
    async with server.connect(url(await issue())) as alice, server.connect(other) as bob, server.joined() as guest:
        await welcomed(alice)
        await welcomed(bob)
        room = (await rest(server, "GET", "/rooms/team", key)).json
        assert [one["user_name"] for one in room["participants"]] == ["alice"]
        assert (await rest(server, "DELETE", "/rooms/team", key)).status == 204
        await alice.expect_bye("room_deleted", 4410, rejoin=False)
        for client in (bob, guest):
            await client.send("chat", {"text": "still here"})
            await client.expect("chat")
    (session,) = await sessions(server, company)
    assert session.leave_reason == "room_deleted"


# --- and what is written down ----------------------------------------------------------------------------------------


async def test_a_session_is_opened_and_closed(server: Server, issue: Issue, acme: tuple[Company, str]) -> None:
    token = await issue()
    async with server.connect(url(token)) as client:
        await welcomed(client)
        (session,) = await sessions(server, acme[0])
        assert (session.user_name, session.peer_address, session.disconnected_at) == ("alice", "127.0.0.1", None)
        assert session.token_id == jwt.decode(token, options={"verify_signature": False})["jti"]
        first = session.last_seen_at
        with trio.fail_after(5):
            while (await sessions(server, acme[0]))[0].last_seen_at == first:  # noqa: ASYNC110 -- the database has no event
                await trio.sleep(0.05)
        await client.send("leave")
        await client.expect_bye("left", 1000, rejoin=False)
    await until(lambda: not server.rooms.peers)
    (session,) = await sessions(server, acme[0])
    assert session.leave_reason == "left"
    assert session.disconnected_at is not None


async def test_the_log_says_whose_session_it_was(
    server: Server, issue: Issue, acme: tuple[Company, str], caplog: pytest.LogCaptureFixture
) -> None:
    """So that "Alice had trouble at two" can be answered: every later line about her has the same peer."""
    with caplog.at_level(logging.INFO, "sfu"):
        async with server.connect(url(await issue(user_name="Zoë"))) as client:
            peer = (await welcomed(client))["peer"]
        (session,) = await sessions(server, acme[0])
    joined = next(record.getMessage() for record in caplog.records if record.getMessage().startswith("joined "))
    assert f"peer={peer} name='Zoë' session={session.id} " in joined


async def ask(server: Server, method: str, target: str, bearer: str = "") -> None:
    headers = {"Host": "x", "Connection": "close", "Authorization": f"Bearer {bearer}", "Content-Length": "0"}
    if not bearer:
        del headers["Authorization"]
    assert (await request(server.port, method, target, headers)).status >= 200


async def test_every_way_in_says_who_was_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sfu")
    async with running(tmp_path, settings(max_peers=1)) as server, server.joined(name="Zoë"):
        company, mine = server.default, server.default.id
        await server.store.rooms.create(mine, "closed", RoomSettings(access="token"))
        past = utc_now() - timedelta(hours=1)
        late = await issued(server, company, user_name="Bob '\n left", now=past)
        eves = await issued(server, company, user_name="eve", now=past)
        silent = await issued(server, company, room_id="quiet", permissions=Permissions(chat=False))
        async with server.connect(url(silent)) as bob:
            secret = (await welcomed(bob))["session"]
            unknown = f"{bob.peer}.{'x' * 32}"
            told = [
                (partial(server.refused, "/ws?room=team&username=ann"), f"room_full room='{mine}/team' name='ann'"),
                (
                    partial(server.refused, f"/ws?username={'n' * 256}"),
                    f"bad_name room='{mine}/default' name='{'n' * 160}…'",
                ),
                (partial(server.refused, "/ws?room=closed"), f"token_required room='{mine}/closed' name='guest'"),
                (partial(server.refused, url(late)), f"token_expired room='{mine}/team' name=\"Bob ' left\""),
                (partial(server.refused, url(silent, room="other")), f"token_room room='{mine}/quiet' name='alice'"),
                (partial(server.refused, "/ws?token=x.y.z&room=team"), "token_malformed room='team' client="),
                (partial(server.refused, "/ws?" + "a=1&" * 50), "bad_request"),
                (
                    partial(server.refused, "/ws", origin="https://x.example"),
                    f"origin_not_allowed room='{mine}/default' ",
                ),
                (partial(server.refused, "/ws", resume=unknown), f"session_gone client=127.0.0.1 peer={bob.peer}"),
                (partial(ask, server, "GET", "/room-info?room=team"), f"room_full room='{mine}/team' name='guest'"),
                (
                    partial(ask, server, "GET", "/room-info", eves),
                    f"token_expired room='{mine}/team' name='eve'",
                ),
                (
                    partial(ask, server, "POST", "/files", secret),
                    f"not_allowed room='{mine}/quiet' name='alice' client=",
                ),
                (partial(ask, server, "POST", "/files", unknown), "session_unknown"),
                (partial(ask, server, "GET", "/files/x"), "file_not_found"),
            ]
            for asked, words in told:
                caplog.clear()
                await asked()
                (said,) = [line for line in caplog.messages if line.startswith("refused ")] or [""]
                assert said.startswith(f"refused reason={words}"), words
                assert " client=127.0.0.1" in said
                assert "=''" not in said


async def test_who_cannot_be_taken_leaves_no_open_session(server: Server, acme: tuple[Company, str]) -> None:
    async with server.joined():
        server.signaling.stop()
        assert (await server.refused("/ws"))["code"] == "server_stopping"
    await until(lambda: not server.rooms.peers)
    assert all(one.disconnected_at for one in await sessions(server, server.default))


# --- how many --------------------------------------------------------------------------------------------------------


async def test_one_address_that_joins_and_joins_is_told_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each join costs a transaction, and everybody in the room an offer. Coming back costs neither."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("sfu.calls.registry.JOINS", ((3, 10.0), (2, 600.0)))
    async with running(tmp_path) as server, server.client() as alice, server.client(name="bob"):
        welcome = await alice.expect("welcome")
        async with server.client(name="carol") as carol:
            await carol.expect_bye("too_many_joins", 1013, rejoin=True)
        problem = await server.refused("/ws?room=team&username=dave")
        assert (problem["status"], problem["code"]) == (429, "too_many_joins")
        assert re.search(r"Try again in (\d+) s", problem["detail"])
        async with server.connect("/ws", resume=welcome["session"]) as again:
            await again.expect("welcome")
        await server.refused("/ws?room=team&username=dave")
        assert caplog.text.count("reason=too_many_joins") == 2  # of carol and dave: it does not grow with each try
        sessions = (await server.store.history.room_sessions(server.default.id, "team")).items
        assert {session.user_name for session in sessions} == {"alice", "bob"}  # a refusal leaves nothing behind
        for number in range(3):  # whoever has a token was counted by whoever issued it
            token = await issued(server, server.default, user_name=f"user-{number}")
            async with server.connect("/ws", token=token) as guest:
                await guest.expect("welcome")


def proxied(address: str) -> list[str]:
    """The header lines of a request that a proxy passes on for a client."""
    return ["GET /ws?room=team HTTP/1.1", "Host: x", *HANDSHAKE, f"X-Forwarded-For: {address}"]


async def test_joins_are_counted_by_the_address_behind_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An office of 30 gets in at once, and its neighbours, too. An IPv6 network of one customer is one address."""
    trusted = settings(trusted_proxies=(ip_network("127.0.0.1"),))
    async with running(tmp_path, trusted) as server:

        async def answer(address: str) -> str:
            async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
                await stream.send_all("\r\n".join([*proxied(address), "", ""]).encode())
                return (await stream.receive_some(12)).decode().split()[-1]

        joins = JOINS[0][0]
        for number in range(joins + 1):
            assert await answer(f"2001:db8:0:1::{number:x}") == ("101" if number < joins else "429")
        for _ in range(30):
            assert await answer("198.51.100.7") == "101"
        assert await answer("2001:db8:0:2::1") == "101"


async def test_a_tier_that_allows_no_more_people_is_said_to_whoever_comes(server: Server, issue: Issue) -> None:
    await server.store.tiers.set("free", {"people": 1})
    bobs = await issue(user_name="bob", single_use=True)
    async with server.connect(url(await issue())) as alice:
        await alice.expect("welcome")
        problem = await server.refused(url(bobs))
        assert (problem["status"], problem["code"]) == (403, "quota_exceeded")
        assert "1 people in calls at once" in problem["detail"]
        async with server.connect("/ws", token=bobs) as bob:
            await bob.expect_bye("quota_exceeded", 4403, rejoin=False)
