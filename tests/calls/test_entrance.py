"""One WebSocket after another against the running control plane: what peers may do, and that an end is always clean."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import time
from pathlib import Path

import pytest
import trio
from support.control import DEADLINE_S, HANDSHAKE, Server, open_files, running, settings, tasks
from support.waiting import until
from trio_websocket import ConnectionClosed
from wsproto.events import TextMessage

from sfu.calls import websocket
from sfu.errors import OriginNotAllowed
from sfu.web.edge import Upgraded
from sfu.web.origins import check_origin, origin_of
from sfu.workers.workers import COMMAND

# --- joining ----------------------------------------------------------------------------------------------------------


async def test_welcome_comes_first_and_then_the_offer(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client("team", "alice") as alice:
        assert alice.ws.subprotocol == "sfu.v1"
        welcome = await alice.expect("welcome")
        offer = await alice.expect("offer")
        peer = welcome["peer"]
        assert list(server.rooms.peers) == [peer]
        secret, ticket = server.rooms.peers[peer].secret, server.rooms.peers[peer].ticket
    limits = {
        "chat_bytes": 4096,
        "tracks": 8,
        "message_bytes": 65536,
        "messages_per_s": 20,
        "file_bytes": 10_485_760,
        "name_characters": 255,
    }
    may = {"publish": True, "subscribe": True, "chat": True, "moderate": False}
    assert welcome == {
        "peer": peer, "room": "team", "name": "alice", "participants": [], "limits": limits, "permissions": may,
        "state": {
            "locked": False, "lobby": False, "files": True, "chat_kept_s": 86400, "public": True, "chat_cleared": True,
        },
        "session": secret, "resumed": False, "ticket": ticket, "ice_servers": [],
    }  # fmt: skip
    assert offer["type"] == "offer"
    assert offer["sdp"].count("m=") == 2
    assert offer["send"] == {"0": "microphone", "1": "camera"}
    assert offer["receive"] == {}


async def test_others_are_told_who_comes_what_they_publish_and_that_they_go(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.joined(name="alice") as alice:
        await alice.answer()
        await until(lambda: server.rooms.peers[alice.peer].tracks)
        async with server.joined(name="bob") as bob:
            joined = {"peer": bob.peer, "name": "bob", "moderator": False, "publish": True}
            assert await alice.expect("joined") == joined
            tracks = [{"source": "microphone", "kind": "audio", "muted": False}]
            assert bob.welcome["participants"] == [
                {
                    "peer": alice.peer,
                    "name": "alice",
                    "tracks": tracks,
                    "hand": 0,
                    "moderator": False,
                    "publish": True,
                    "lost": False,
                }
            ]
            await bob.answer()
            track = {"peer": bob.peer, "source": "microphone", "kind": "audio", "muted": False}
            assert await alice.expect("track") == track
            await bob.do(("TrackEnded", {"source": "microphone"}))
            assert await alice.expect("track_ended") == {"peer": bob.peer, "source": "microphone"}
        assert await alice.expect("left") == {"peer": bob.peer, "reason": "left"}


async def test_an_offer_says_whose_track_it_brings(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.joined() as alice:
        await alice.do(
            ("Offer", {"sdp": "v=0", "send": {"0": "microphone"}, "receive": {"2": ["somebody", "camera"]}}),
            ("Candidate", {"candidate": "candidate:1", "mid": "0"}),
            ("Connected", {"address": "127.0.0.1"}),
        )
        offer = await alice.expect("offer")
        assert offer["send"] == {"0": "microphone"}
        assert offer["receive"] == {"2": {"peer": "somebody", "source": "camera"}}
        assert await alice.expect("candidate") == {"candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": None}


async def test_how_a_call_goes_is_told_counted_and_kept(tmp_path: Path) -> None:
    up = {"loss": 0.12, "jitter_ms": 3.0, "round_trip_ms": 40.0, "bitrate_bps": 900_000}
    async with running(tmp_path) as server:
        async with server.joined(name="alice") as alice:
            cause = {"kind": "upload_loss", "peer": alice.peer, "value": 12, "unit": "%"}
            report = {"score": 3.0, "up": up, "down": None, "cause": cause, "bytes_up": 12_000, "bytes_down": 0}
            await alice.do(("Quality", report), ("Quality", report), ("Quality", report | {"score": 3.4}))
            said = {"up": up, "down": None, "cause": cause, "peers": {alice.peer: 3.0}}
            assert await alice.expect("quality") == said
            assert await alice.expect("quality") == said | {"peers": {alice.peer: 3.4}}
        await until(lambda: not server.rooms.peers)
        await server.store.sessions.flush()
        (record,) = (await server.store.history.room_sessions(server.default.id, "team")).items
        assert record.quality.score_mean == pytest.approx(3.1333, abs=1e-3)
        assert (record.quality.score_min, record.quality.loss_up, record.quality.bytes_up) == (3.0, 0.12, 12_000)
        assert 'sfu_quality_loss_ratio_count{direction="up"} 3\n' in server.counters.render()


async def test_a_bare_client_gets_offers_and_candidates_and_nothing_else(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as server,
        server.client(name="bare", full=False) as bare,
        server.joined(name="alice") as alice,
    ):
        assert bare.ws.subprotocol is None
        assert set(await bare.expect("offer")) == {"type", "sdp"}
        assert [p["name"] for p in alice.welcome["participants"]] == ["bare"]
        await alice.send("chat", {"text": "hello"})
        await alice.expect("chat")
        await bare.ws.send_message("{}")  # an error event is kept from it, too
        await bare.do(("Candidate", {"candidate": "candidate:1", "mid": "0"}))
        assert (await bare.expect("candidate"))["candidate"] == "candidate:1"
        await bare.answer()
        assert (await alice.expect("track"))["peer"] == alice.welcome["participants"][0]["peer"]


async def test_without_a_query_there_is_a_default(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        for query in ("", "?", "?room=&username="):
            async with server.connect(f"/ws{query}") as client:
                welcome = await client.expect("welcome")
                assert (welcome["room"], welcome["name"]) == ("default", "guest")


async def test_names_are_cleaned(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.client(" team\t\u202e meeting ", "a\u0308\x00\ufeff") as client:
        welcome = await client.expect("welcome")
        assert (welcome["room"], welcome["name"]) == ("team meeting", "ä")
        assert list(server.rooms.rooms) == [server.key("team meeting")]


async def test_rooms_do_not_hear_each_other(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as server,
        server.joined("one", "alice") as alice,
        server.joined("one", "bob") as bob,
        server.joined("two", "carol") as carol,
    ):
        assert carol.welcome["participants"] == []
        await alice.answer()
        await bob.expect("track")
        await alice.send("mute", {"source": "microphone", "muted": True})
        await bob.expect("mute")
        await alice.send("chat", {"text": "for one"})
        await bob.expect("chat")
        await alice.send("leave")
        await bob.expect("left")
        await carol.send("chat", {"text": "for two"})
        assert (await carol.expect("chat"))["text"] == "for two"  # the first she hears


# --- being refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["room=%E2%80%AE", "room=" + "x" * 256, "username=%00", "username=" + "x" * 256])
async def test_a_bad_name(tmp_path: Path, query: str) -> None:
    async with running(tmp_path) as server:
        problem = await server.refused(f"/ws?{query}")
        assert (problem["status"], problem["code"]) == (400, "bad_name")
        async with server.connect(f"/ws?{query}") as client:
            await client.expect_bye("bad_name", 4400, rejoin=False)
        assert server.counters.get("sfu_refused_total", code="bad_name") == 2
        assert server.rooms.created == 0


async def test_a_query_that_cannot_be_read(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        for full in (False, True):
            for query in ("a=1&" * 50, "room=%ff", "room=team&username=%e9ve", "room=%ed%a0%80"):
                problem = await server.refused(f"/ws?{query}", full=full)
                assert (problem["status"], problem["code"]) == (400, "bad_request")


async def test_a_full_room(tmp_path: Path) -> None:
    async with running(tmp_path, settings(max_peers=1)) as server, server.joined("team"):
        problem = await server.refused("/ws?room=team")
        assert (problem["status"], problem["code"]) == (403, "room_full")
        async with server.client("team") as client:
            await client.expect_bye("room_full", 4403, rejoin=False)
        async with server.joined("other"):
            assert len(server.rooms.rooms) == 2


@pytest.mark.parametrize("value", ["https://evil.example", "http://127.0.0.1", "https://127.0.0.1:{port}", "null", "x"])
async def test_a_page_of_another_site(tmp_path: Path, value: str) -> None:
    async with running(tmp_path, settings(allowed_origins=("https://friend.example",))) as server:
        for full in (False, True):
            problem = await server.refused("/ws", full=full, origin=value.format(port=server.port))
            assert (problem["status"], problem["code"]) == (403, "origin_not_allowed")
        assert server.counters.get("sfu_refused_total", code="origin_not_allowed") == 2


@pytest.mark.parametrize("value", ["http://127.0.0.1:{port}", "HTTP://127.0.0.1:{port}", "https://friend.example:443"])
async def test_a_page_of_ours_or_of_a_friend(tmp_path: Path, value: str) -> None:
    config = settings(allowed_origins=("https://friend.example",))
    async with (
        running(tmp_path, config) as server,
        server.connect("/ws", origin=value.format(port=server.port)) as client,
    ):
        await client.expect("welcome")


@pytest.mark.parametrize(
    ("value", "secure", "host", "allowed"),
    [
        ("https://sfu.example", True, "sfu.example", True),
        ("https://sfu.example", True, "SFU.example:443", True),
        ("https://sfu.example:8443", True, "sfu.example:8443", True),
        ("http://[::1]:8080", False, "[::1]:8080", True),
        ("https://sfu.example", False, "sfu.example", False),
        ("http://sfu.example", True, "sfu.example", False),
        ("https://sfu.example:8443", True, "sfu.example", False),
        ("https://sfu.example.evil", True, "sfu.example", False),
        ("https://sfu.example", True, "", False),
        ("https://sfu.example:99999", True, "sfu.example:99999", False),
        ("file://", True, "", False),
        ("", True, "", False),
        ("https://[", True, "[", False),
    ],
)
def test_same_origin(value: str, secure: bool, host: str, allowed: bool) -> None:
    connection = Upgraded(None, [(b"origin", value.encode())], "/ws", "", secure, host)  # type: ignore[arg-type]
    if allowed:
        check_origin(connection, frozenset())
    else:
        with pytest.raises(OriginNotAllowed):
            check_origin(connection, frozenset())
        found = origin_of(value)
        if found is not None:
            check_origin(connection, frozenset({found}))


async def test_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfu.workers.workers.RETRY_S", 60.0)
    monkeypatch.setattr("sfu.workers.workers.RETRY_MAX_S", 60.0)
    async with running(tmp_path, plan="ready,crash") as server:
        os.kill(int(server.workers.advertised[0]), signal.SIGKILL)
        await until(lambda: not server.workers.ready)
        problem = await server.refused("/ws")
        assert (problem["status"], problem["code"]) == (503, "media_unavailable")
        async with server.client() as client:
            await client.expect_bye("media_unavailable", 1013, rejoin=True)


async def test_no_offer(tmp_path: Path) -> None:
    async with running(tmp_path, settings(join_s=0.3), plan="mute") as server, server.client() as client:
        await client.expect("welcome")
        await client.expect_bye("media_unavailable", 1013, rejoin=True)


async def test_a_handshake_that_is_none(tmp_path: Path) -> None:
    async with running(tmp_path, settings(join_s=0.3)) as server:
        before = tasks()
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            answer = await read_to_end(stream)
        assert answer.startswith(b"HTTP/1.1 400 ")
        await until(lambda: tasks() == before)


async def test_a_host_that_is_no_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It raises in trio-websocket's reader; the edge lets it through, as it looks like a name."""
    async with running(tmp_path) as server, server.joined() as alice:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all("\r\n".join(["GET /ws HTTP/1.1", "Host: xn--a", *HANDSHAKE, "", ""]).encode())
            assert b"101" not in await read_to_end(stream)
        await alice.send("chat", {"text": "still here"})
        await alice.expect("chat")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# --- talking ----------------------------------------------------------------------------------------------------------


async def test_chat_goes_to_everyone_in_one_order(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.joined(name="alice") as alice, server.joined(name="bob") as bob:
        await alice.expect("joined")
        before = time.time_ns() // 1_000_000
        await alice.send("chat", {"text": "<b>ä</b>"})
        line = await alice.expect("chat")
        assert await bob.expect("chat") == line
        assert (line["peer"], line["name"], line["text"]) == (alice.peer, "alice", "<b>ä</b>")
        assert before <= line["time"] <= time.time_ns() // 1_000_000


async def test_a_room_is_told_who_speaks_and_no_other(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as server,
        server.joined() as alice,
        server.joined(name="bob") as bob,
        server.joined("elsewhere", "carol") as carol,
    ):
        await alice.expect("joined")
        for room in ("no such room", "team", "elsewhere"):
            event = {"room": server.key(room), "dominant": alice.peer, "speaking": [alice.peer, "gone"]}
            await alice.do(("Speakers", event))
        for client in (alice, bob):
            assert await client.expect("speakers") == {"dominant": alice.peer, "speaking": [alice.peer]}
        assert await carol.expect("speakers") == {"dominant": None, "speaking": []}
        async with server.client(name="dave") as dave:
            await dave.expect("welcome")
            assert await dave.expect("speakers") == {"dominant": alice.peer, "speaking": [alice.peer]}


async def test_a_peer_alone_is_told_which_videos_do_not_come(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.joined() as alice, server.joined(name="bob") as bob:
        await alice.expect("joined")
        for reason in ("not_speaking", ""):
            await alice.do(("Paused", {"publisher": bob.peer, "source": "camera", "reason": reason}))
            told = {"peer": bob.peer, "source": "camera", "reason": reason or None}
            assert await alice.expect("paused") == told
        await bob.send("chat", {"text": "hello"})
        await bob.expect("chat")  # and nothing before it


async def test_mute_is_told_and_forwarded(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.joined(name="alice") as alice, server.joined(name="bob") as bob:
        await alice.expect("joined")
        await alice.send("mute", {"source": "microphone", "muted": True})  # before the answer that starts the track
        await alice.answer()
        assert (await bob.expect("track"))["muted"] is True
        await alice.send("mute", {"source": "microphone", "muted": False})
        assert await bob.expect("mute") == {"peer": alice.peer, "source": "microphone", "muted": False, "by": ""}
        commands = await alice.commands()
    assert [fields["muted"] for name, fields in commands if name == "Mute"] == [True, False]


async def test_publish_and_unpublish(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.joined() as alice:
        await alice.send("publish", {"source": "screen", "kind": "video"})
        assert (await alice.expect("offer"))["send"]["2"] == "screen"
        await alice.send("mute", {"source": "screen", "muted": True})
        await alice.send("unpublish", {"source": "screen"})
        await alice.send("unpublish", {"source": "screen"})
        assert (await alice.expect("error"))["code"] == "bad_source"
        await alice.send("unpublish", {"source": "microphone"})
        await alice.send("mute", {"source": "microphone", "muted": True})  # keeps its place
        commands = await alice.commands()
        assert server.rooms.peers[alice.peer].muted == {"microphone"}
    assert [name for name, _ in commands if name in ("Publish", "Unpublish")] == ["Publish", "Unpublish", "Unpublish"]


async def test_what_costs_an_error_event_and_nothing_else(tmp_path: Path) -> None:
    async with running(tmp_path, settings(max_tracks=3)) as server, server.joined() as alice:
        await alice.send("publish", {"source": "screen", "kind": "video"})
        await alice.expect("offer")
        for event, data, code in (
            ("mute", {"source": "nothing", "muted": True}, "bad_source"),
            ("unpublish", {"source": "nothing"}, "bad_source"),
            ("publish", {"source": "microphone", "kind": "video"}, "bad_source"),
            ("publish", {"source": "screen", "kind": "audio"}, "bad_source"),
            ("publish", {"source": "second", "kind": "video"}, "too_many_tracks"),
            ("publish", {"source": "Bad Source", "kind": "video"}, "bad_source"),
            ("candidate", {"candidate": "nonsense"}, "bad_candidate"),
            ("chat", {"text": "x" * 4097}, "chat_too_long"),
            ("chat", {"text": 1}, "bad_message"),
            ("dance", {}, "unknown_event"),
        ):
            await alice.send(event, data)
            error = await alice.expect("error")
            assert error["code"] == code, event
            assert error["message"]
        for frame in ("{", b'{"event":"leave"}'):
            await alice.ws.send_message(frame)
            assert (await alice.expect("error"))["code"] == "bad_message"
        await alice.send("chat", {"text": "still here"})
        await alice.expect("chat")
        assert server.counters.get("sfu_errors_total", code="bad_source") == 5
        assert server.counters.get("sfu_errors_total", code="bad_message") == 3


async def test_what_the_worker_refuses(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.joined() as alice:
        await alice.do(("Refused", {"code": "bad_answer", "message": "It does not fit."}))
        assert await alice.expect("error") == {"code": "bad_answer", "message": "It does not fit."}
        await alice.do(("Refused", {"code": "a code nobody knows", "message": "?"}))
        assert (await alice.expect("error"))["code"] == "internal"


async def test_candidates_are_counted_and_go_nowhere(tmp_path: Path) -> None:
    async with running(tmp_path, settings(max_candidates=2)) as server, server.joined() as alice:
        for _ in range(5):
            await alice.send("candidate", {"candidate": "candidate:1 1 udp 1 169.254.169.254 80 typ host"})
        assert (await alice.expect("error"))["code"] == "too_many_candidates"
        commands = await alice.commands()  # nor is there a second error
    assert [name for name, _ in commands] == ["Configure", "Join", "Answer"]


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_too_many_messages(tmp_path: Path) -> None:
    config = settings(messages_burst=10, messages_per_s=1)
    async with running(tmp_path, config) as server, server.joined() as alice:
        await alice.spam(30)
        await alice.expect_bye("rate_limited", 4429, rejoin=False)
        assert server.counters.get("sfu_ends_total", code="rate_limited") == 1


async def test_without_limits_no_message_is_too_many(tmp_path: Path) -> None:
    config = settings(messages_burst=10, messages_per_s=1, limits=False)
    async with running(tmp_path, config) as server, server.joined() as alice:
        await alice.spam(30)
        await alice.send("chat", {"text": "hello"})
        await alice.expect("chat")


async def test_messages_may_come_as_fast_as_the_bucket_fills(tmp_path: Path) -> None:
    config = settings(messages_burst=2, messages_per_s=100)
    async with running(tmp_path, config) as server, server.joined() as alice:
        for _ in range(10):
            await alice.send("chat", {"text": "x"})
            await alice.send("chat", {"text": "x"})
            await alice.expect("chat")
            await alice.expect("chat")
            heard = trio.current_time()
            await until(lambda heard=heard: trio.current_time() > heard + 0.03)  # type: ignore[misc]


async def test_too_many_frames_that_are_no_message(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.joined() as alice:
        for _ in range(21):
            await alice.ws.send_message("nonsense")
            assert (await alice.expect("error"))["code"] == "bad_message"
        await alice.expect_bye("bad_message", 1007, rejoin=False)


async def test_a_frame_that_is_too_long_is_cut_off(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.joined(name="bob") as bob, server.joined() as alice:
        await bob.expect("joined")
        await alice.ws.send_message(json.dumps({"event": "chat", "data": {"text": "x" * 200_000}}))
        assert await alice.closed() == 1009
        assert await bob.expect("left") == {"peer": alice.peer, "reason": "message_too_large"}


async def test_the_limit_is_in_bytes(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.joined() as alice:
        text = json.dumps({"event": "chat", "data": {"text": "\U0001f600" * 17_000}}, ensure_ascii=False)
        assert len(text) < 65536 < len(text.encode())
        await alice.ws.send_message(text)
        await alice.expect_bye("message_too_large", 1009, rejoin=False)


async def test_an_answer_may_be_as_long_as_its_offer_asks_for(tmp_path: Path) -> None:
    """And what trio-websocket has private is still there and still does what it did."""
    long_answer = "x" * 400_000
    async with running(tmp_path) as server, server.joined() as alice:
        sdp = "v=0\r\n" + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n" * 100
        await alice.do(("Offer", {"sdp": sdp, "send": {}, "receive": {}}))
        await alice.expect("offer")
        with trio.fail_after(10):  # paced at 16 KiB a second it would take 20
            await alice.answer(long_answer)
            commands = await alice.commands()
        assert ("Answer", {"peer": alice.peer, "sdp": long_answer}) in commands


async def test_nothing_but_an_answer_may_be_that_long(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.joined() as alice:
        sdp = "v=0\r\n" + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n" * 100
        await alice.do(("Offer", {"sdp": sdp, "send": {}, "receive": {}}))
        await alice.expect("offer")
        await alice.ws.send_message("x" * 100_000)
        await alice.expect_bye("message_too_large", 1009, rejoin=False)


async def test_a_message_in_too_many_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "MAX_PARTS", 10)
    async with running(tmp_path, settings(ping_s=0.1)) as server, server.joined() as alice:
        for _ in range(20):
            await alice.ws._send(TextMessage(data="", message_finished=False))
        await alice.expect_bye("message_too_large", 1009, rejoin=False)


# --- ends -------------------------------------------------------------------------------------------------------------


async def test_leave(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.joined() as alice:
        await alice.send("leave")
        await alice.expect_bye("left", 1000, rejoin=False)
        await until(lambda: not server.rooms.rooms)
        assert server.counters.get("sfu_ends_total", code="left") == 1


async def test_closing_is_leaving(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.joined(name="bob") as bob:
        for code in (1000, 3000):  # not 1001, see test_returning.py
            async with server.joined() as alice:
                await bob.expect("joined")
                await alice.ws.aclose(code)
            assert await bob.expect("left") == {"peer": alice.peer, "reason": "left"}
            assert ("Leave", {"peer": alice.peer}) in await bob.commands()


async def test_media_that_finds_no_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lost = ("Unreached", {"heard": False, "hosts": ["10.0.0.5"], "port": 8080})
    async with running(tmp_path) as server, server.joined(name="bob") as bob, server.joined() as alice:
        await bob.expect("joined")
        await alice.do(lost)
        assert await alice.expect("unreached") == {"cause": "server", "addresses": ["10.0.0.5:8080"], "tcp": False}
        await bob.do(("Connected", {"address": "127.0.0.1"}), lost)
        assert (await bob.expect("unreached"))["cause"] == "network"
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [alice.peer in text and "client=127.0.0.1" in text for text in warnings] == [True, False]


async def test_media_that_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path) as server, server.joined(name="bob") as bob, server.joined() as alice:
        await bob.expect("joined")
        await alice.do(("Failed", {"code": "ice_timeout", "message": "No path."}))
        await alice.expect_bye("ice_timeout", 4408, rejoin=True)
        assert await bob.expect("left") == {"peer": alice.peer, "reason": "ice_timeout"}
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert re.search(rf"peer={alice.peer} name='alice' session=\S+ request_id=\w+ reason=ice_timeout", warning), (
        "an end that nobody wanted"
    )


async def test_a_fault_of_ours_ends_one_peer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as server, server.joined(name="bob") as bob, server.joined() as alice:
        await bob.expect("joined")
        monkeypatch.setattr(server.rooms.peers[alice.peer], "muted", None)  # broken, which must not happen
        await alice.send("mute", {"source": "camera", "muted": True})
        await alice.expect_bye("internal", 1011, rejoin=True)
        assert await bob.expect("left") == {"peer": alice.peer, "reason": "internal"}
        await bob.send("chat", {"text": "still here"})
        await bob.expect("chat")
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    (said,) = [record.getMessage() for record in errors]
    assert said.startswith(f"peer_failed room={server.key('team')!r} peer={alice.peer} name='alice' session=")


async def test_a_fault_of_ours_as_one_leaves_costs_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as server, server.joined(name="bob") as bob, server.joined() as alice:
        await bob.expect("joined")
        monkeypatch.setattr(server.rooms.peers[alice.peer], "summary", None)  # broken, which must not happen
        await alice.send("leave")
        await alice.expect_bye("left", 1000, rejoin=False)
        await bob.expect("left")
        await bob.send("chat", {"text": "still here"})
        await bob.expect("chat")
        async with server.joined(name="carol"):
            await bob.expect("joined")
    (said,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert said.startswith(f"peer_failed room={server.key('team')!r} peer={alice.peer} name='alice' session=")


async def test_a_worker_that_dies_sends_its_peers_to_rejoin(tmp_path: Path) -> None:
    async with running(tmp_path, settings(workers=2)) as server, server.joined("one") as alice:
        async with server.joined("two") as carol:
            worker = server.rooms.rooms[server.key("one")].worker
            assert server.rooms.rooms[server.key("two")].worker == 1 - worker
            os.kill(int(server.workers.advertised[worker]), signal.SIGKILL)
            await alice.expect_bye("media_restarted", 1012, rejoin=True)
            await carol.send("chat", {"text": "not concerned"})
            await carol.expect("chat")
        await until(lambda: server.workers.is_ready(worker))
        async with server.joined("one") as again:
            assert again.welcome["participants"] == []


async def test_a_full_server_tells_when_to_try_again(tmp_path: Path) -> None:
    """Whoever just joined counts, since their media is not in the load yet."""
    async with running(tmp_path, settings(max_load=0.1)) as server, server.joined() as alice:
        for number in range(60):
            server.workers.place(0, str(number))
        for room in ("team", "another"):
            async with server.client(room, "bob") as bob:
                goodbye = await bob.expect("bye")
            assert (goodbye["code"], goodbye["rejoin"], goodbye["retry_after_s"]) == ("server_full", True, 10)
        problem = await server.refused("/ws?room=team")
        assert (problem["status"], problem["code"]) == (503, "server_full")
        await alice.send("chat", {"text": "not concerned"})
        await alice.expect("chat")


async def test_nobody_is_told_that_others_left_when_the_server_stops(tmp_path: Path) -> None:
    """They all come back: a page would say that everybody left, and keep saying so in its chat."""
    async with running(tmp_path) as server, server.joined(name="alice") as alice, server.joined(name="bob") as bob:
        await alice.expect("joined")
        server.signaling.stop()
        for one in (alice, bob):
            await one.expect_bye("server_stopping", 1001, rejoin=True)


async def test_a_server_that_stops(tmp_path: Path) -> None:
    async with running(tmp_path) as server, server.joined() as alice, server.client("other", full=False) as bare:
        await bare.expect("offer")
        server.signaling.stop()
        await alice.expect_bye("server_stopping", 1001, rejoin=True)
        assert await bare.closed() == 1001
        problem = await server.refused("/ws")
        assert (problem["status"], problem["code"]) == (503, "server_stopping")
        assert not server.rooms.peers


async def test_a_server_that_is_cancelled(tmp_path: Path) -> None:
    scope = trio.CancelScope()

    async def serve(*, task_status: trio.TaskStatus[Server]) -> None:
        with scope:
            async with running(tmp_path) as server:
                task_status.started(server)
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve)
        async with server.joined() as alice:
            scope.cancel()
            with pytest.raises(ConnectionClosed):
                await alice.receive()
    assert not server.rooms.peers
    assert server.counters.get("sfu_ends_total", code="internal") == 1


CLOSE_1000 = b"\x88\x02\x03\xe8"


def masked(text: bytes) -> bytes:
    """A short text frame (RFC 6455 section 5.2) whose mask is zero."""
    assert len(text) < 126
    return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text


async def read_to_end(stream: trio.SocketStream) -> bytes:
    with trio.fail_after(DEADLINE_S):
        return b"".join([data async for data in stream])


async def test_one_that_never_answers_the_close_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_S", 0.2)
    async with running(tmp_path) as server:
        before = tasks()
        async with server.raw() as stream:
            await stream.send_all(masked(b'{"event":"leave"}'))
            answer = await read_to_end(stream)
            assert b'"bye"' in answer
            assert answer.endswith(CLOSE_1000)
            await until(lambda: tasks() == before)


async def test_one_that_pings_into_the_close(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path) as server, server.raw() as stream:
        await stream.send_all(masked(b'{"event":"leave"}'))
        answer = b""
        while not answer.endswith(CLOSE_1000):
            answer += await stream.receive_some()
        await stream.send_all(b"\x89\x80\0\0\0\0" * 3)
        await read_to_end(stream)
        await until(lambda: server.counters.get("sfu_connection_failures_total", kind="websocket") == 1)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_one_that_never_answers_pings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_S", 0.2)
    config = settings(ping_s=0.1, pong_s=0.2, hold_s=0.1)
    async with running(tmp_path, config) as server, server.raw() as stream:
        answer = await read_to_end(stream)
        assert b"The client stopped responding." in answer
        await until(lambda: server.counters.get("sfu_ends_total", code="unresponsive") == 1)


async def test_one_that_answers_pings_stays(tmp_path: Path) -> None:
    async with running(tmp_path, settings(ping_s=0.05, pong_s=2.0)) as server, server.joined() as alice:
        joined = trio.current_time()
        await until(lambda: trio.current_time() > joined + 0.5)
        await alice.send("chat", {"text": "still here"})
        await alice.expect("chat")


async def test_one_that_does_not_read_while_much_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "OUTBOX", 8)
    monkeypatch.setattr(websocket, "CLOSE_S", 0.2)
    async with running(tmp_path, settings(send_s=60.0)) as server, server.joined(name="bob") as bob:
        before = tasks()
        async with server.raw():
            peer = (await bob.expect("joined"))["peer"]
            await bob.flood(peer, 60, 500_000)  # sockets of Linux hold about 10 MB
            assert await bob.expect("left") == {"peer": peer, "reason": "slow_consumer"}
            await until(lambda: tasks() == before)


async def test_one_that_does_not_read_for_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_S", 0.2)
    async with running(tmp_path, settings(send_s=0.3)) as server, server.joined(name="bob") as bob:
        before = tasks()
        async with server.raw():
            peer = (await bob.expect("joined"))["peer"]
            await bob.flood(peer, 60, 500_000)
            assert await bob.expect("left") == {"peer": peer, "reason": "slow_consumer"}
            await until(lambda: tasks() == before)


async def test_ends_of_all_kinds_leave_nothing_behind(tmp_path: Path) -> None:
    config = settings(messages_burst=10, messages_per_s=1, hold_s=0.1)
    async with running(tmp_path, config) as server:
        before = tasks()
        async with server.joined():
            pass
        await until(lambda: tasks() == before)
        files = open_files()
        async with server.joined() as alice:
            await alice.send("leave")
            await alice.closed()
        async with server.joined() as alice:
            await alice.ws._stream.aclose()
        async with server.joined() as alice:
            await alice.ws.send_message("x" * 100_000)
            await alice.closed()
        async with server.joined() as alice:
            await alice.do(("Failed", {"code": "media_lost", "message": "Gone."}))
            await alice.closed()
        async with server.joined() as alice:
            await alice.spam(30)
            await alice.closed()
        async with server.raw() as stream:
            await stream.send_all(b"\x81\x85nonsense that is not masked text")
        await server.refused("/ws?room=%00")
        await until(lambda: tasks() == before)
        await until(lambda: open_files() == files)
        assert not server.rooms.rooms
        assert not server.rooms.peers
        assert server.workers.pick() == 0


# --- with the real worker ---------------------------------------------------------------------------------------------


async def test_a_call_is_offered(tmp_path: Path) -> None:
    async with running(tmp_path, command=COMMAND) as server, server.client() as alice:
        await alice.expect("welcome")
        offer = await alice.expect("offer")
        assert offer["send"] == {"0": "microphone", "1": "camera"}
        assert "a=ice-lite" in offer["sdp"]
        await alice.answer("nonsense")
        assert (await alice.expect("error"))["code"] == "bad_answer"
        async with server.client(name="bare", full=False) as bare:
            assert (await alice.expect("joined"))["name"] == "bare"
            assert (await bare.expect("offer"))["sdp"].count("\r\nm=") == 2
