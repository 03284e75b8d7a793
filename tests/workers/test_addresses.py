"""What the server advertises, and what it says about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
from support.namespaces import Machine, ServerOn, skip_without_namespaces
from support.process import Server
from support.stun_server import StunServer
from support.waiting import eventually

from sfu.bridge import AskMapping, Listen, Mapping
from sfu.settings.config import Config
from sfu.workers import addresses
from sfu.workers.addresses import Addresses, Advertised

SERVER, PORT = "192.0.2.3", 8080
PATIENCE_S = 20.0


class Told(Addresses):
    """Addresses, and what the workers were told."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(Config(**{"host": "10.0.0.5", "port": PORT, "stun": (SERVER, 3478)} | settings))
        self.commands: list[Listen | AskMapping] = []
        self.tell = self.commands.append
        self.read()

    def seen(self, address: str, port: int = PORT) -> None:
        self.on_mapping(Mapping("10.0.0.5", SERVER, address, port))


def test_a_public_address_is_advertised_before_the_private_one() -> None:
    found = Told()
    assert found.advertised == [Advertised("10.0.0.5", "")]
    found.seen("203.0.113.9")
    assert found.advertised == [Advertised("203.0.113.9", "SFU_STUN"), Advertised("10.0.0.5", "")]
    assert found.commands == [Listen(("10.0.0.5",), ("203.0.113.9", "10.0.0.5"))]
    found.seen("203.0.113.9")
    found.seen("", 0)  # no answer changes nothing
    assert len(found.commands) == 1
    found.seen("203.0.113.10")
    assert found.commands[1:] == [Listen(("10.0.0.5",), ("203.0.113.10", "10.0.0.5"))]
    found.seen("10.0.0.5")
    assert found.advertised == [Advertised("10.0.0.5", "")]


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1", "127.0.0.1", "169.254.1.1", "::", "ff02::1"])
def test_what_cannot_be_is_not_believed(address: str) -> None:
    found = Told()
    found.seen(address)
    assert found.commands == []


def test_a_setting_always_wins_and_is_contradicted_once(caplog: pytest.LogCaptureFixture) -> None:
    found = Told(public_ip=("203.0.113.77", "2001:db8::1"))
    for _ in range(2):
        found.seen("203.0.113.9")
    assert [one.address for one in found.advertised] == ["203.0.113.77", "2001:db8::1"]
    assert found.withheld == []
    assert caplog.text.count("WARNING") == 1
    assert "SFU_PUBLIC_IP=203.0.113.9" in caplog.text
    assert found.contradiction == "203.0.113.9"
    found.seen("203.0.113.77")
    assert not found.contradiction


def test_a_nat_that_changes_the_port_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    found = Told()
    for port in (PORT, 30_001, 30_002):
        found.seen("203.0.113.9", port)
    assert caplog.text.count("WARNING") == 1
    assert "changes UDP port 8080 to 30001" in caplog.text
    assert "forward UDP port 8080 of 203.0.113.9 to port 8080 of 10.0.0.5" in caplog.text


def test_a_silent_stun_server_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    found = Told()
    for _ in range(2):
        found.seen("", 0)
    assert caplog.text.count("WARNING") == 1
    assert SERVER in caplog.text


# --- the running server -----------------------------------------------------------------------------------------------


def test_a_server_asks_at_its_start_and_says_what_it_advertises(start_server: Callable[..., Server]) -> None:
    with StunServer("127.0.0.1") as stun:
        stun.says = "203.0.113.9", 1
        server = start_server(host="127.0.0.1", stun=f"localhost:{stun.address[1]}", workers="2")
        assert not stun.questions, "loopback is behind no NAT"
        assert "at 127.0.0.1 (lo)\n" in server.output


@pytest.fixture
def machine() -> Iterator[Machine]:
    skip_without_namespaces()
    made = Machine("server")
    made.ip("link add eth0 type bridge")
    made.ip("link add docker0 type bridge")
    made.address("eth0", "10.0.0.5/24")
    made.address("docker0", "172.17.0.1/16")
    yield made
    made.close()


async def test_where_changes_are_not_told_they_are_looked_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "changes", lambda: None)
    monkeypatch.setattr(addresses, "POLL_S", 0.01)
    found = Told(host="*", stun=None)
    with machine.within():
        found.read()
        async with trio.open_nursery() as nursery:
            await nursery.start(found.run)
            machine.ip("addr add 10.0.1.6/24 dev eth0")
            with trio.fail_after(PATIENCE_S):
                while not any(isinstance(told, Listen) and "10.0.1.6" in told.advertise for told in found.commands):  # noqa: ASYNC110 -- nothing announces it
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


async def test_a_name_that_nobody_knows_is_no_obstacle(caplog: pytest.LogCaptureFixture) -> None:
    found = Told(stun=("a..invalid", 3478))
    async with trio.open_nursery() as nursery:
        await nursery.start(found.run)
        nursery.cancel_scope.cancel()
    assert "a..invalid has no address now" in caplog.text
    assert not any(isinstance(command, AskMapping) for command in found.commands)


def changes_logged(server: Server) -> list[str]:
    return [line for line in server.output.splitlines() if "addresses_changed" in line]


def test_addresses_that_come_and_go_are_advertised_from_then_on(machine: Machine) -> None:
    server = ServerOn(machine, host="*", workers="2", public_ip="")
    try:
        server.start()
        assert "Media   at 10.0.0.5 (eth0)\n" in server.output
        withheld = next(line for line in server.output.splitlines() if "not told to browsers:" in line)
        assert "172.17.0.1 (docker0)" in withheld
        assert "127.0.0.1 (lo)" in withheld
        machine.ip("addr add 10.0.1.6/24 dev eth0")
        machine.ip("addr del 10.0.0.5/24 dev eth0")
        (line,) = eventually(lambda: changes_logged(server), "the change is logged")
        assert "advertised=10.0.1.6(eth0) was=10.0.0.5" in line
        with machine.within():
            assert server.ready()
    finally:
        print(server.output)
        server.close()


def test_the_public_address_is_learnt_from_the_media_port(machine: Machine) -> None:
    with machine.within():
        stun = StunServer("10.0.0.5")
    with stun:
        stun.says = "203.0.113.9", 40_000
        server = ServerOn(machine, host="*", workers="2", stun=f"10.0.0.5:{stun.address[1]}")
        try:
            server.start()
            assert "Media   at 203.0.113.9 (SFU_STUN), 10.0.0.5 (eth0)\n" in server.output
            assert f"changes UDP port {server.port} to 40000" in server.output
            asked = len(stun.questions)
            machine.ip("addr add 10.0.1.6/24 dev eth0")
            eventually(lambda: len(stun.questions) > asked, "it is asked again")
        finally:
            print(server.output)
            server.close()
