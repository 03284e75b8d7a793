"""Calls through a TURN server, where nothing else leaves the network: real browsers, and Debian's coturn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from firefox import Firefox
from people import Person, in_call
from support.process import Server, free_port
from support.turn import coturn
from support.variants import variants
from support.waiting import eventually
from wires import TcpWire

People = Callable[..., Person]

SECRET = "north-by-northwest"
RELAY_ONLY_JS = """
window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(configuration) {
        super({ ...configuration, iceTransportPolicy: 'relay' });
    }
};
"""
"""The network lets nothing out but what goes to the TURN server."""
_PATH_JS = """async () => {
    const stats = await window.room.pc.getStats();
    const transport = [...stats.values()].find((one) => one.type === 'transport');
    const { localCandidateId, state } = stats.get(transport?.selectedCandidatePairId) ?? {};
    return state === 'succeeded' ? stats.get(localCandidateId) : null;
}"""
_ICE_SERVERS_JS = "window.room.pc.getConfiguration().iceServers"


def path(one: Person) -> dict[str, Any]:
    """The candidate in use (W3C webrtc-stats, RTCIceCandidateStats)."""
    found: dict[str, Any] = eventually(lambda: one.page.evaluate(_PATH_JS), f"{one.name} has a path")
    return found


@pytest.fixture
def relayed(start_server: Callable[..., Server], tmp_path: Path) -> Callable[[str], Any]:
    @contextmanager
    def running(transport: str) -> Iterator[tuple[Server, str]]:
        port = free_port()
        url = f"turn:127.0.0.1:{port}?transport={transport}"
        server = start_server(turn_urls=url, turn_secret=SECRET, log_level="debug")
        with coturn(server.env, port, tmp_path):
            yield server, url
        assert SECRET not in server.output

    return running


@pytest.mark.parametrize("transport", ["tcp", *variants("udp")])
def test_two_see_and_hear_each_other_through_a_turn_server(
    relayed: Callable[[str], Any], person: People, firefox: Firefox, transport: str
) -> None:
    with relayed(transport) as (server, url):
        alice = person(server, "alice")
        alice.page.add_init_script(RELAY_ONLY_JS)
        alice.join("relayed")
        fiona = person(server, "fiona", on=firefox).join("relayed")
        in_call(alice, fiona)
        used = path(alice)
        assert (used["candidateType"], used["relayProtocol"]) == ("relay", transport)
        (known,) = fiona.page.evaluate(_ICE_SERVERS_JS)
        assert known["urls"] in (url, [url])


@pytest.mark.soak
def test_a_resumed_call_gets_another_path_with_its_new_credentials(
    relayed: Callable[[str], Any], person: People
) -> None:
    with relayed("tcp") as (server, _):
        wire = TcpWire(server.port)
        alice = person(server, "alice")
        alice.page.add_init_script(RELAY_ONLY_JS)
        alice.join("relayed", port=wire.port)
        bob = person(server, "bob").join("relayed")
        in_call(alice, bob)
        peer, before = alice.peer, path(alice)
        (first,) = alice.page.evaluate(_ICE_SERVERS_JS)
        wire.up = False
        eventually(lambda: alice.trouble == "connection", "alice notices")
        wire.up = True
        eventually(lambda: alice.trouble is None, "alice has resumed")
        (second,) = alice.page.evaluate(_ICE_SERVERS_JS)
        assert second["username"] > first["username"]
        assert second["username"].endswith(f":{peer}")
        alice.page.evaluate("window.room.send('restart_ice', {})")
        eventually(lambda: path(alice)["id"] != before["id"], "alice has another path")
        in_call(alice, bob)
        assert (path(alice)["candidateType"], alice.peer) == ("relay", peer)
        wire.close()
