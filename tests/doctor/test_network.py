"""The doctor's checks of ports, addresses and DNS."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable

import pytest
from support.doctors import doctor
from support.process import Server, free_port


async def test_ports_that_the_server_has_and_that_are_free(start_server: Callable[..., Server]) -> None:
    server = start_server(program=(sys.executable, "-m", "sfu"))  # a process of its own name
    shown = f"TCP {server.port} and UDP {server.port}"
    assert await doctor("ports", env=server.env) == ("ok", f"{shown} are the running server's", "")
    other = await doctor("ports", env=server.env, data_dir="/nowhere")  # it cannot ask this server
    assert other[0] == "failed"
    assert f"is taken by a server with other settings than this command's (process {server.pid})" in other[1]
    server.stop()
    assert await doctor("ports", env=server.env) == ("ok", f"{shown} are free", "")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
async def test_a_port_that_another_program_has(kind: socket.SocketKind, request: pytest.FixtureRequest) -> None:
    port, name = free_port(), request.node.callspec.id
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", port))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        found = await doctor("ports", port=str(port))
        assert found[0] == "failed"
        assert found[1].startswith(f"{name} {port} is taken by ")
        assert f"(process {os.getpid()})" in found[1]
        elsewhere = await doctor("ports", port=str(port), host="127.0.0.3")
        assert elsewhere[0] == "ok", "an address of its own has a port of its own"


async def test_addresses_and_who_reaches_them(start_server: Callable[..., Server]) -> None:
    here = await doctor("addresses", host="127.0.0.1")
    assert here == (
        "note", "127.0.0.1: only this machine can reach the server.",
        "Remove SFU_HOST, so that the server listens on every address.",
    )  # fmt: skip
    private = await doctor("addresses", public_ip="10.1.2.3")
    assert private[:2] == ("note", "10.1.2.3: private, so only people in the same network reach the server.")
    assert "SFU_PUBLIC_IP=203.0.113.9,10.1.2.3 " in private[2]
    server = start_server(public_ip="203.0.113.9,10.1.2.3")
    assert await doctor("addresses", env=server.env) == (
        "ok", "203.0.113.9, 10.1.2.3; 203.0.113.9 is not on this machine but before it (NAT)", "",
    )  # fmt: skip


async def test_dns_that_leads_here_elsewhere_and_nowhere() -> None:
    assert (await doctor("dns"))[0] == "skipped"
    assert (await doctor("dns", domain="localhost"))[:2] in (
        ("ok", "localhost is 127.0.0.1"),
        ("ok", "localhost is ::1"),
        ("ok", "localhost is ::1, 127.0.0.1"),
        ("ok", "localhost is 127.0.0.1, ::1"),
    )
    wrong = await doctor("dns", domain="203.0.113.77", public_ip="198.51.100.1")
    assert wrong[0] == "failed"
    assert "203.0.113.77 is no address of this server" in wrong[1]
    assert "198.51.100.1" in wrong[1]
    assert wrong[2].startswith("Correct the A record of 203.0.113.77")
    nowhere = await doctor("dns", domain="meet.invalid")
    assert (nowhere[0], nowhere[2]) == ("failed", "Add an A or AAAA record for meet.invalid.")
