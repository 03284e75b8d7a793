"""Pages that return after a reload, a crash or a restart of the server: some continue, others must not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
from support.control import Client, Server, running, settings
from support.rest_client import request
from support.variants import variants
from support.waiting import until

from sfu.calls import websocket
from sfu.calls.admission import Entry, utc_now
from sfu.calls.registry import Joining
from sfu.calls.rooms import EVERYTHING
from sfu.errors import RoomLocked
from sfu.store import returns
from sfu.store.records import Company, RoomSettings, Session, SessionDrops
from sfu.tenancy import tokens
from sfu.tenancy.tokens import Permissions

pytest_plugins = ["support.postgres"]

TEAM = "/ws?room=team&username=alice"
LATE = settings(hold_s=0.0)
"""A seat is given up as soon as its page has gone."""

Going = Callable[[Client], Awaitable[None]]


async def reload(client: Client) -> None:
    """What a browser sends when its page is closed, reloaded or left (RFC 6455 section 7.4.1)."""
    await client.ws.aclose(1001)


async def crash(client: Client) -> None:
    await client.ws._stream.aclose()


async def give_up(client: Client) -> None:
    """The page found its connection or media dead, and joins anew."""
    await client.ws.aclose(4408)


async def leave(client: Client) -> None:
    await client.send("leave")
    await client.closed()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path, LATE) as started:
        yield started


async def issued(server: Server, owner: Company | None = None, *, single_use: bool = False, **changes: Any) -> str:
    """A token for alice in the room `team`, or as told, of the default company unless told."""
    owner = owner or server.default
    usual = {"company_id": owner.id, "room_id": "team", "user_name": "alice", "duration_s": 600, "now": utc_now()}
    grant = tokens.grant(**(usual | changes))
    token = tokens.encode(grant, server.store.companies.secret(owner).reveal())
    await server.store.tokens.add(grant, token, single_use=single_use)
    return token


@asynccontextmanager
async def entered(server: Server, target: str = TEAM, **how: Any) -> AsyncIterator[Client]:
    """A client that has read its welcome."""
    async with server.connect(target, **how) as client:
        client.welcome = await client.expect("welcome")
        client.peer = client.welcome["peer"]
        yield client


async def gone(server: Server, client: Client, going: Going = reload) -> str:
    """Lets the page go and waits until its seat is given up; returns the ticket."""
    await going(client)
    await until(lambda: client.peer not in server.rooms.peers)
    ticket: str = client.welcome["ticket"]
    return ticket


async def history(server: Server, owner: Company | None = None) -> list[Session]:
    await server.store.sessions.flush()
    return list((await server.store.history.room_sessions((owner or server.default).id, "team")).items)


async def refused(server: Server, ticket: str, code: str, target: str = TEAM, **how: Any) -> None:
    async with server.connect(target, ticket=ticket, **how) as client:
        assert (await client.expect("bye"))["code"] == code


async def close(server: Server, **changes: Any) -> None:
    """Changes the room, so that nobody else gets in."""
    await server.store.rooms.update(server.default.id, "team", changes)


# --- the same seat ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("going", [reload, crash, give_up])
async def test_a_reloaded_page_has_its_seat_again_and_others_see_nobody_leave(tmp_path: Path, going: Going) -> None:
    async with (
        running(tmp_path, settings(hold_s=60.0, max_peers=2)) as server,
        server.joined(name="bob") as bob,
        server.joined(name="alice") as alice,
    ):
        await close(server, locked=True)
        assert await bob.expect("joined") == {"peer": alice.peer, "name": "alice", "moderator": False, "publish": True}
        assert (await bob.expect("room"))["locked"]  # the database is looked at every second
        await alice.answer()
        seen = {"peer": alice.peer, "source": "microphone", "kind": "audio", "muted": False}
        assert await bob.expect("track") == seen
        await alice.send("hand", {"raised": True})
        raised = (await bob.expect("hand"))["raised"]
        await going(alice)
        async with entered(server, ticket=alice.welcome["ticket"]) as again:
            assert (again.peer, again.welcome["resumed"]) == (alice.peer, False)
            assert again.welcome["ticket"] == alice.welcome["ticket"]
            assert await again.expect("hand") == {"peer": alice.peer, "raised": raised}
            assert (await again.expect("offer"))["type"] == "offer"  # of media that begins anew
            assert await bob.expect("track_ended") == {"peer": alice.peer, "source": "microphone"}
            assert await bob.expect("connection") == {"peer": alice.peer, "lost": True}
            await again.do(("Connected", {"address": "127.0.0.1"}))
            assert await bob.expect("connection") == {"peer": alice.peer, "lost": False}
            await again.answer()
            assert (await bob.expect("track"))["peer"] == alice.peer
            await leave(again)
        assert await bob.expect("left") == {"peer": alice.peer, "reason": "left"}
        (record,) = [one for one in await history(server) if one.user_name == "alice"]
        why = "page_gone" if going is reload else "unresponsive"
        assert (record.leave_reason, record.drops) == ("left", SessionDrops(1, 1, why))


async def stays(server: Server, ticket: str) -> list[str]:
    """Four pages return at once with one ticket: the codes of those that end. The other one says so and leaves."""
    ends: list[str] = []
    readings = [trio.CancelScope() for _ in range(4)]

    async def come_back(reading: trio.CancelScope) -> None:
        async with server.connect(TEAM, ticket=ticket) as client:
            with reading:
                while (message := await client.receive())[0] != "bye":
                    pass
                readings.remove(reading)
                ends.append(message[1]["code"])
                if len(readings) == 1:
                    readings[0].cancel()
                return
            await client.send("chat", {"text": "here"})
            await leave(client)

    async with trio.open_nursery() as nursery:
        for reading in [*readings]:
            nursery.start_soon(come_back, reading)
    return ends


@pytest.mark.parametrize("hold_s", [60.0, 0.0], ids=["kept", "given up"])
async def test_of_several_returns_at_once_one_gets_the_seat(tmp_path: Path, database_url: str, hold_s: float) -> None:
    """A browser that restores the copies of a tab returns with each of them."""
    async with (
        running(tmp_path, settings(hold_s=hold_s), database_url=database_url) as server,
        server.joined(name="bob") as bob,
    ):
        async with entered(server) as alice:
            await alice.expect("offer")
            await bob.expect("joined")
            ticket = alice.welcome["ticket"]
            await reload(alice)
        assert (await bob.expect("connection"))["lost"]
        if not hold_s:
            await bob.expect("left")
        assert await stays(server, ticket) == ["replaced"] * 3
        if not hold_s:
            await bob.expect("joined")
        assert (await bob.expect("chat"))["text"] == "here"
        await bob.expect("left")
        (record,) = [one for one in await history(server) if one.user_name == "alice"]
        assert record.leave_reason == "left"


async def test_a_seat_is_not_kept_for_long_after_a_page_went(tmp_path: Path) -> None:
    async with (
        running(tmp_path, settings(hold_s=0.2)) as server,
        server.joined(name="bob") as bob,
        server.joined(name="alice") as alice,
    ):
        await bob.expect("joined")
        await reload(alice)
        assert await bob.expect("connection") == {"peer": alice.peer, "lost": True}
        assert await bob.expect("left") == {"peer": alice.peer, "reason": "page_gone"}


async def test_what_the_worker_still_says_of_the_old_page_is_not_told_the_new_one(tmp_path: Path) -> None:
    async with running(tmp_path, settings(hold_s=60.0)) as server, server.joined() as alice:
        late = [["Layers", {"source": "camera", "active": ["q"]}]] * 50
        await alice.send("answer", {"type": "answer", "sdp": "do:" + json.dumps(late)})
        await reload(alice)
        async with entered(server, ticket=alice.welcome["ticket"]) as again:
            await again.expect("offer")


async def test_a_duplicated_tab_neither_replaces_the_first_nor_gets_in_with_its_ticket(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.joined() as alice:
        async with entered(server, ticket=alice.welcome["ticket"]) as twin:  # anybody may enter
            assert twin.peer != alice.peer
            await alice.expect("joined")
        await alice.expect("left")
        await close(server, locked=True)
        await refused(server, alice.welcome["ticket"], "room_locked")
        await alice.send("chat", {"text": "undisturbed"})
        await alice.expect("chat")


async def test_who_does_not_answer_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network failed before the reload, so no close frame arrived."""
    monkeypatch.setattr(websocket, "PROBE_S", 0.2)
    async with running(tmp_path, settings(hold_s=60.0)) as server, server.raw():
        await until(lambda: server.rooms.peers)
        (before,) = server.rooms.peers.values()
        async with entered(server, "/ws?room=team", ticket=before.ticket) as again:
            assert again.peer == before.id


# --- later ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("going", [reload, crash, give_up])
@pytest.mark.parametrize("barred", [{"locked": True, "lobby": True}, *variants({"locked": True}, {"lobby": True})])
async def test_who_did_not_leave_returns_past_lock_and_lobby(
    tmp_path: Path, database_url: str, going: Going, barred: dict[str, bool]
) -> None:
    async with running(tmp_path, LATE, database_url=database_url) as server:
        await returns_past(server, going, barred)


async def returns_past(server: Server, going: Going, barred: dict[str, bool]) -> None:
    async with entered(server) as alice:
        await alice.expect("offer")
        ticket = await gone(server, alice, going)
    await close(server, **barred)
    async with entered(server, ticket=ticket) as again:
        assert again.welcome["name"] == "alice"
        await leave(again)
    (record,) = await history(server)
    why = "page_gone" if going is reload else "unresponsive"
    assert (record.leave_reason, record.drops) == ("left", SessionDrops(1, 1, why))


async def test_a_lock_while_somebody_returns_keeps_out_strangers_only(server: Server) -> None:
    calls, who = server.signaling.calls, (server.default.id, "team")
    returns, comes = (
        Joining(Entry(*who, name, EVERYTHING, "127.0.0.1"), invited=name == "alice") for name in ("alice", "eve")
    )
    calls.joining |= {returns, comes}
    async with server.joined(name="bob") as bob:
        await close(server, locked=True)
        assert (await bob.expect("room"))["locked"]
        assert (returns.error, type(comes.error)) == (None, RoomLocked)


async def test_who_was_admitted_from_a_lobby_need_not_wait_again(server: Server) -> None:
    moderator = await issued(server, user_name="max", permissions=Permissions(moderate=True))
    await server.store.rooms.create(server.default.id, "team", RoomSettings(lobby=True))
    async with entered(server, "/ws", token=moderator) as max_:
        await max_.expect("offer")
        async with server.client() as alice:
            await alice.expect("waiting")
            ((waiter,),) = [(await max_.expect("lobby"))["waiting"]]
            await max_.send("moderate", {"action": "admit", "peer": waiter["peer"]})
            alice.welcome = await alice.expect("welcome")
            alice.peer = alice.welcome["peer"]
            ticket = await gone(server, alice)
        async with entered(server, ticket=ticket) as again:
            assert again.welcome["state"]["lobby"]


async def test_a_used_token_and_an_expired_one_do_not_keep_anybody_out(server: Server) -> None:
    company, _ = await server.store.companies.create("Acme")
    began = utc_now() - timedelta(seconds=600 + tokens.LEEWAY_S - 2)
    token = await issued(server, company, single_use=True, now=began, permissions=Permissions(chat=False))
    async with entered(server, "/ws", token=token) as alice:
        ticket = await gone(server, alice)
    assert (await server.refused(f"/ws?token={token}"))["code"] == "token_used"
    once = {"Host": "x", "Connection": "close"}
    while b"token_expired" not in (await request(server.port, "GET", f"/room-info?token={token}", once)).body:  # noqa: ASYNC110
        await trio.sleep(0.05)
    async with entered(server, "/ws", token=token, ticket=ticket) as again:
        assert again.welcome["permissions"] == {"publish": True, "subscribe": True, "chat": False, "moderate": False}
        await server.store.sessions.flush()
        (record,) = await history(server, company)
        assert (record.disconnected_at, record.leave_reason, record.duration_s) == (None, None, None)


async def test_a_restart_of_the_server_keeps_tickets(tmp_path: Path, database_url: str) -> None:
    async with running(tmp_path, database_url=database_url) as server:
        token = await issued(server, single_use=True)
        async with entered(server, "/ws", token=token) as alice:
            await alice.expect("offer")
            server.signaling.stop()
            await alice.expect_bye("server_stopping", 1001, rejoin=True)
            await close(server, locked=True, lobby=True)
    async with (
        running(tmp_path, database_url=database_url) as server,
        entered(server, "/ws", token=token, ticket=alice.welcome["ticket"]) as again,
    ):
        assert again.welcome["name"] == "alice"


async def test_a_ticket_admits_one(server: Server) -> None:
    async with entered(server) as alice:
        ticket = await gone(server, alice)
    await close(server, locked=True)
    async with entered(server, ticket=ticket):
        await refused(server, ticket, "replaced")


async def test_a_full_room_is_full_for_who_returns_after_their_seat_was_given_away(server: Server) -> None:
    async with entered(server) as alice:
        await close(server, max_participants=1)
        ticket = await gone(server, alice)
    async with server.client(name="bob") as bob:
        await bob.expect("welcome")
        await refused(server, ticket, "room_full")


# --- who must not -----------------------------------------------------------------------------------------------------


async def test_who_left_does_not_return(server: Server) -> None:
    async with entered(server) as alice:
        ticket = await gone(server, alice, leave)
    await close(server, locked=True)
    await refused(server, ticket, "room_locked")


async def test_who_was_removed_does_not_return(server: Server) -> None:
    token = await issued(server)
    async with entered(server, "/ws", token=token) as alice:
        (record,) = await server.store.history.participants(server.default.id, "team")
        assert server.signaling.moderation.remove(server.default.id, "team", record.id)
        await until(lambda: not server.rooms.peers)
    await refused(server, alice.welcome["ticket"], "removed", "/ws", token=token)


async def test_who_was_removed_in_another_tab_does_not_return(server: Server) -> None:
    token = await issued(server)
    async with entered(server, "/ws", token=token) as alice, entered(server, "/ws", token=token) as twin:
        ticket = await gone(server, alice)
        (record,) = [one for one in await history(server) if one.disconnected_at is None]
        assert server.signaling.moderation.remove(server.default.id, "team", record.id)
        await until(lambda: twin.peer not in server.rooms.peers)
    await refused(server, ticket, "removed", "/ws", token=token)


async def test_a_revoked_token_lets_nobody_return(server: Server) -> None:
    token = await issued(server)
    async with entered(server, "/ws", token=token) as alice:
        ticket = await gone(server, alice)
    (record,) = (await server.store.tokens.list(server.default.id)).items
    await server.store.tokens.revoke(server.default.id, record.id)
    await refused(server, ticket, "token_revoked", "/ws", token=token)


async def test_neither_a_new_secret_nor_a_disabled_company_lets_anybody_return(server: Server) -> None:
    company, _ = await server.store.companies.create("Acme")
    for change, code in (("rotate_secret", "token_signature"), ("set_active", "company_disabled")):
        token = await issued(server, company)
        async with entered(server, "/ws", token=token) as alice:
            ticket = await gone(server, alice)
        more = {"active": False} if change == "set_active" else {}
        await getattr(server.store.companies, change)(company.id, **more)
        await refused(server, ticket, code, "/ws", token=token)
        company = await server.store.companies.by_id(company.id) or company


async def test_an_ended_call_lets_nobody_return(server: Server) -> None:
    async with entered(server) as alice:
        ticket = await gone(server, alice)
    await close(server, locked=True)
    server.signaling.moderation.end_call(server.default.id, "team")
    await refused(server, ticket, "room_locked")


async def test_nobody_returns_to_a_room_that_was_deleted_and_made_again(server: Server) -> None:
    async with entered(server) as alice:
        ticket = await gone(server, alice)
    await server.store.sessions.flush()
    await server.store.rooms.delete(server.default.id, "team")
    await server.store.rooms.create(server.default.id, "team", RoomSettings(locked=True))
    await refused(server, ticket, "room_locked")


async def test_a_room_that_asks_for_a_token_now_asks_who_returns_as_well(server: Server) -> None:
    async with entered(server) as alice:
        ticket = await gone(server, alice)
    await close(server, access="token")
    await refused(server, ticket, "token_required")


async def test_a_ticket_is_for_a_while(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with entered(server) as alice:
        ticket = await gone(server, alice)
    await close(server, locked=True)
    monkeypatch.setattr(returns, "RETURN_S", 0)
    await refused(server, ticket, "room_locked")


async def test_a_ticket_is_for_its_room_and_person(server: Server) -> None:
    async with entered(server) as alice:
        ticket = await gone(server, alice)
    for room in ("team", "other"):
        await server.store.rooms.create(server.default.id, room, RoomSettings()) if room != "team" else None
        await server.store.rooms.update(server.default.id, room, {"locked": True})
    for room, name in (("other", "alice"), ("team", "eve"), ("\x00", "alice")):
        target = "/ws?" + urlencode({"room": room, "username": name})
        await refused(server, ticket, "bad_name" if room == "\x00" else "room_locked", target)


@pytest.mark.parametrize("going", [reload, crash])
async def test_a_ticket_counts_with_its_own_token_only(tmp_path: Path, going: Going) -> None:
    """A link that is opened in the tab of an earlier call comes with that call's ticket, and may lead elsewhere."""
    async with running(tmp_path, settings(hold_s=60.0)) as server:
        acme, _ = await server.store.companies.create("Acme")
        own = await issued(server, acme)
        others = [await issued(server), await issued(server, acme), await issued(server, acme, user_name="boss")]
        async with entered(server, f"/ws?token={own}") as alice:
            ticket = alice.welcome["ticket"]
            await going(alice)
        for target in (TEAM, *(f"/ws?token={token}" for token in others)):
            async with entered(server, target, ticket=ticket) as somebody:
                assert somebody.peer != alice.peer
                assert somebody.welcome["ticket"] != ticket
                await leave(somebody)
        async with server.connect("/ws?token=xx.yy.zz", ticket=ticket) as nobody:
            assert (await nobody.expect("bye"))["code"] == "token_malformed"
        async with entered(server, f"/ws?token={own}", ticket=ticket) as again:
            assert again.welcome["ticket"] == ticket


async def test_a_guests_ticket_does_not_outweigh_a_token(server: Server) -> None:
    async with entered(server) as alice:
        ticket = await gone(server, alice)
    async with entered(server, f"/ws?token={await issued(server)}", ticket=ticket) as other:
        assert other.welcome["ticket"] != ticket


async def test_only_the_servers_own_tickets_count(server: Server) -> None:
    async with entered(server) as alice:
        ticket = await gone(server, alice)
    await close(server, locked=True)
    session, _, signature = ticket.partition(".")
    other = session[:-1] + ("1" if session.endswith("0") else "0")
    for wrong in ("x", session, f"{session}.", ticket[:-1], ticket + "x", f"{other}.{signature}"):
        await refused(server, wrong, "room_locked")
    async with entered(server, ticket=ticket):
        pass
