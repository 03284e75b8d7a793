"""The server's call to itself, on each way of media, open and closed; and the measurement of this machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.doctors import doctor
from support.process import Server, free_port
from support.relay import CLEAN, HOST, SILENT, Relay
from support.stun_server import StunServer
from support.turn import coturn
from support.variants import variants

from sfu.doctor import calls

SECRET = "north-by-northwest"


def left_behind(server: Server) -> int:
    """Rows of rooms and sessions, in the database of the server."""
    with closing(sqlite3.connect(Path(server.data.name) / "sfu.db")) as database:
        return sum(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("rooms", "sessions"))


@pytest.mark.parametrize("options", [(), *variants((("--self-signed",),))])
async def test_sound_comes_back_over_udp_and_tcp_and_leaves_nothing(
    start_server: Callable[..., Server], options: tuple[str, ...]
) -> None:
    server = start_server(*options, workers="2", allow_anonymous="off")
    for leg in ("udp", "tcp"):
        status, text, _ = await doctor(leg, env=server.env)
        assert (status, text.rpartition(" in ")[0]) == ("ok", f"{leg.upper()} 127.0.0.1:{server.port}")
    assert left_behind(server) == 0
    assert server.get("/health")["peers"] == 0
    assert "level=ERROR" not in server.output


async def test_closed_udp_and_a_way_that_opens(
    start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "PATH_S", 4.0)
    server = start_server(public_ip=HOST)
    with Relay(server.port) as relay:
        for direction in ("up", "down"):
            relay.shape(direction, SILENT)
        status, text, fix = await doctor("udp", env=server.env)
        assert (status, text) == (
            "failed", f"UDP {HOST}:{server.port}: no media path (nothing came back within 4 s).",
        )  # fmt: skip
        assert fix.startswith(f"Open UDP {server.port} in the firewall of this machine and of the provider.")
        assert "correct SFU_PUBLIC_IP" in fix
        for direction in ("up", "down"):
            relay.shape(direction, CLEAN)
        assert (await doctor("udp", env=server.env))[0] == "ok"
    status, text, _ = await doctor("tcp", env=server.env)
    assert (status, "no connection" in text) == ("failed", True)


async def test_behind_a_router_that_does_not_lead_back_it_is_a_warning(
    start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes back from the public address, which is not this machine's, and a STUN server sees it there."""
    monkeypatch.setattr(calls, "PATH_S", 2.0)
    with StunServer("127.0.0.1") as stun, Relay(server_port := free_port()) as relay:
        for direction in ("up", "down"):
            relay.shape(direction, SILENT)
        asked = f"127.0.0.1:{stun.address[1]}"
        server = start_server(port=str(server_port), public_ip=HOST, stun=asked)
        stun.says = (HOST, server_port)
        for leg in ("udp", "tcp"):
            status, text, fix = await doctor(leg, env=server.env)
            assert status == "note", text
            assert text.startswith(f"{leg.upper()} {HOST}:{server_port} is the router's address")
            assert "`sfu doctor --phone`" in fix
        stun.says = ("192.0.2.77", server_port)  # the setting is wrong
        assert (await doctor("udp", env=server.env))[0] == "failed"


async def test_tcp_that_is_off(start_server: Callable[..., Server]) -> None:
    server = start_server(tcp_port="0")
    assert (await doctor("tcp", env=server.env))[0] == "ok"
    assert (await doctor("turn", env=server.env))[1].startswith("no TURN server named")


@pytest.mark.parametrize("transport", ["udp", *variants("tcp")])
async def test_a_turn_server_and_its_secret(
    start_server: Callable[..., Server], tmp_path: Path, transport: str
) -> None:
    port = free_port()
    urls = f"turn:127.0.0.1:{port}?transport={transport}"
    server = start_server(turn_urls=urls, turn_secret=SECRET)
    with coturn(server.env, port, tmp_path):
        status, text, _ = await doctor("turn", env=server.env)
        assert (status, text.rpartition(" in ")[0]) == ("ok", f"TURN 127.0.0.1:{port} over {transport.upper()}")
        other = start_server(turn_urls=urls, turn_secret="another-secret-of-these")
        status, text, fix = await doctor("turn", env=other.env)
        assert status == "failed"
        assert "the TURN server refuses the credentials (401 Unauthorized)" in text
        assert "static-auth-secret is not SFU_TURN_SECRET" in text
        assert "sfu coturn-config" in fix
    status, text, _ = await doctor("turn", env=server.env)
    assert status == "failed"
    assert SECRET not in text


async def test_the_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MEASURE_S", 1)
    status, text, _ = await doctor("capacity", workers="2")
    assert status in ("ok", "note")
    assert text.startswith("about ")
    assert " rooms of 6 at 720p with 2 media workers: " in text
