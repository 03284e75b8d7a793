from __future__ import annotations

import asyncio
import errno

import pytest
from support.media_client import LOOPBACKS, check, run, until
from support.ports import ALERT, CLIENT_HELLO, MEDIA, Port, opened, proof

from sfu.media.transport import gate, ice
from sfu.media.transport.ice import DTLS_QUEUE, MAX_PATHS
from sfu.media.transport.sockets import MAX_DATAGRAM

# --- the gate ---------------------------------------------------------------------------------------------------------


STRANGERS = {
    "empty": (b"", "gate_length"),
    "long": (bytes(MAX_DATAGRAM + 1), "gate_length"),
    "longer than the buffer": (bytes(9000), "gate_length"),
    "media": (MEDIA, "gate_stranger"),
    "media of one byte": (b"\x80", "gate_stranger"),
    "hello": (CLIENT_HELLO, "gate_stranger"),
    "alert": (ALERT, "gate_stranger"),
    "turn": (b"\x40" + bytes(20), "gate_stranger"),
    "zrtp": (b"\x13" + bytes(20), "gate_stranger"),
    "no protocol": (b"\xff", "gate_stranger"),
    "stun of one byte": (b"\x00", "gate_stun_malformed"),
    "stun without cookie": (b"\x00\x01" + bytes(18), "gate_stun_malformed"),
    "stun for nobody": (bytes(check("nobody00", "x" * 24)), "gate_stun_refused"),
    "stun for nobody, and malformed": (bytes(check("nobody00", "x" * 24))[:30] + bytes(60), "gate_stun_refused"),
}


@pytest.mark.parametrize(("data", "counter"), STRANGERS.values(), ids=STRANGERS)
def test_a_stranger_reaches_nobody(data: bytes, counter: str) -> None:
    async def test() -> None:
        async with opened() as port:
            agent, stranger = port.agent(), port.sender()
            stranger.send(data)
            await port.counted(counter, 1)
            assert sum(port.counters.values()) == 1
            assert port.media == []
            assert agent._dtls.empty()
            stranger.settimeout(0)
            with pytest.raises(BlockingIOError):
                stranger.recv(2000)  # nor gets an answer

    run(test)


def test_a_wrong_password_opens_nothing() -> None:
    async def test() -> None:
        async with opened() as port:
            agent, stranger = port.agent(), port.sender()
            stranger.send(bytes(check(agent.ufrag, "x" * 24)))
            stranger.send(MEDIA)
            await port.counted("gate_stun_refused", 1)
            await port.counted("gate_stranger", 1)
            assert agent.selected is None
            assert port.media == []

    run(test)


def test_a_proof_opens_the_gate_for_its_address_only() -> None:
    async def test() -> None:
        async with opened() as port:
            agent, peer, stranger = port.agent(), port.sender(), port.sender()
            response = await port.prove(peer, agent)
            assert response.attributes["XOR-MAPPED-ADDRESS"] == peer.getsockname()
            stranger.send(MEDIA)
            stranger.send(CLIENT_HELLO)
            await port.counted("gate_stranger", 2)
            peer.send(MEDIA)
            peer.send(CLIENT_HELLO)
            assert await asyncio.wait_for(agent._recv(), 5) == CLIENT_HELLO
            assert port.media == [MEDIA]
            for first in (4, 19, 64, 127, 192, 255):  # RFC 7983: none of STUN, DTLS and SRTP
                peer.send(bytes([first]) + bytes(20))
            await port.counted("gate_protocol", 6)

    run(test)


def test_peers_are_told_apart() -> None:
    async def test() -> None:
        async with opened() as port:
            agents = [port.agent() for _ in range(20)]
            peers = [port.sender() for _ in agents]
            for peer, agent in zip(peers, agents, strict=True):
                await port.prove(peer, agent)
            for i, peer in enumerate(peers):
                peer.send(CLIENT_HELLO + bytes([i]))
            for i, agent in enumerate(agents):
                assert await asyncio.wait_for(agent._recv(), 5) == CLIENT_HELLO + bytes([i])

    run(test)


def test_an_address_is_whose_proof_came_last() -> None:
    """Two peers behind one NAT: the mapping of the one may later be the other's."""

    async def test() -> None:
        async with opened() as port:
            first, second, nat = port.agent(), port.agent(), port.sender()
            await port.prove(nat, first)
            await port.prove(nat, second)
            nat.send(CLIENT_HELLO)
            assert await asyncio.wait_for(second._recv(), 5) == CLIENT_HELLO
            assert first._dtls.empty()
            port.unregister(first)  # and does not take the address away with it
            nat.send(ALERT)
            assert await asyncio.wait_for(second._recv(), 5) == ALERT

    run(test)


@pytest.mark.parametrize("nominate", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["has no path", "has a path"])
def test_a_forged_source_takes_no_address(nominate: bool, elsewhere: bool) -> None:
    """Whoever has a password can put another peer's address on a check; sent from there, it is exactly that."""

    async def test() -> None:
        async with opened() as port:
            victim, attacker, home = port.agent(), port.agent(), port.sender()
            await port.prove(home, victim)
            if elsewhere:
                await port.prove(port.sender(), attacker)
            former, known = attacker.selected, list(attacker.paths)
            for n in range(1, 31):
                for _ in range(3):
                    home.send(bytes(check(attacker.ufrag, attacker.pwd, nominate=nominate)))
                home.send(proof(bytes(12)))  # nor does a guess
                home.send(MEDIA)
                await until(lambda: len(port.media) == n, f"media: {port.counters}")  # noqa: B023 -- awaited here
            assert set(port.owners) == {victim}
            assert (attacker.selected, attacker.paths) == (former, known)
            assert victim.selected is not None
            assert len(port._claims) <= 1
            assert port.counters["gate_stun_malformed"] == 30

    run(test)


@pytest.mark.parametrize("what", ["media", "stun for nobody", "stun without cookie"])
def test_a_flood_of_strangers_is_not_read(what: str, caplog: pytest.LogCaptureFixture) -> None:
    """And keeps from nobody what comes from where a peer is."""

    async def test() -> None:
        async with opened() as port:
            peer, agent, flood = port.sender(), port.agent(), port.sender()
            await port.prove(peer, agent)
            data, counter = STRANGERS[what]
            for n in range(1, 11):
                for _ in range(50):
                    flood.send(data)
                peer.send(MEDIA)
                await until(lambda: len(port.media) == n, f"media: {port.counters}")  # noqa: B023 -- awaited here
            await until(lambda: port.counters["gate_flood"] + port.counters[counter] == 500, f"all: {port.counters}")
            assert port.counters["gate_flood"] >= 100
            assert caplog.text.count("strangers_flood address=127.0.0.1") == 1

    run(test)


def test_a_peers_own_flood_of_checks_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come from any number of addresses, and harms only that peer."""
    monkeypatch.setattr(ice, "CHECKS_PER_S", 0.0)

    async def test() -> None:
        async with opened() as port:
            flooder, other, home = port.agent(), port.agent(), port.sender()
            sources = [port.sender() for _ in range(8)]
            for n in range(int(ice.CHECKS_BURST) + 10):
                sources[n % len(sources)].send(bytes(check(flooder.ufrag, flooder.pwd)))
                await asyncio.sleep(0)
            await port.counted("gate_flood", 10)
            await port.prove(home, other)

    run(test)


def test_forged_sources_make_nobody_forget_an_address() -> None:
    async def test() -> None:
        async with opened() as port:
            victims = [port.agent() for _ in range(MAX_PATHS + 2)]
            homes = [port.sender() for _ in victims]
            attacker, own = port.agent(), port.sender()
            await port.prove(own, attacker)
            for home, victim in zip(homes, victims, strict=True):
                await port.prove(home, victim)
                home.send(bytes(check(attacker.ufrag, attacker.pwd)))
                home.send(MEDIA)
            await until(lambda: len(port.media) == len(victims), f"media: {port.counters}")
            assert port.owners == victims
            assert [path.address for path in attacker.paths] == [own.getsockname()]
            assert len(port._claims) == 1
            port.unregister(attacker)
            assert not port._claims

    run(test)


def test_an_address_that_is_silent_is_whoever_comes_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client needs no proof against a peer that is no longer there, only that it is at its address itself."""
    monkeypatch.setattr(gate, "HELD_S", 0.0)

    async def test() -> None:
        async with opened() as port:
            first, second, nat = port.agent(), port.agent(), port.sender()
            await port.prove(nat, first)
            nat.send(bytes(check(second.ufrag, second.pwd, nominate=False)))
            await until(lambda: second.paths, "taken")
            nat.send(MEDIA)
            await until(lambda: port.owners == [second], f"media: {port.counters}")

    run(test)


def test_an_address_that_is_claimed_is_moved_to_only_where_nominated() -> None:
    async def test() -> None:
        async with opened() as port:
            first, second, nat, own = port.agent(), port.agent(), port.sender(), port.sender()
            await port.prove(nat, first)
            await port.prove(own, second)
            await port.prove(nat, second, nominate=False)
            nat.send(MEDIA)
            await until(lambda: port.owners == [second], f"media: {port.counters}")
            assert second.selected is not None
            assert second.selected.address == own.getsockname()

    run(test)


def test_only_authentic_media_keeps_a_peer_alive() -> None:
    async def test() -> None:
        async with opened() as port:
            agent, peer = port.agent(), port.sender()
            await port.prove(peer, agent)
            before = agent.last_seen_s
            port.authentic = False
            peer.send(MEDIA)
            await until(lambda: len(port.media) == 1, "media came")
            assert agent.last_seen_s == before
            port.authentic = True
            peer.send(MEDIA)
            await until(lambda: len(port.media) == 2, "media came")
            assert agent.last_seen_s > before

    run(test)


def test_an_unregistered_peer_gets_nothing_more() -> None:
    async def test() -> None:
        async with opened() as port:
            agent, peer = port.agent(), port.sender()
            await port.prove(peer, agent)
            port.unregister(agent)
            peer.send(MEDIA)
            await port.counted("gate_former", 1)
            peer.send(bytes(check(agent.ufrag, agent.pwd)))
            await port.counted("gate_stun_refused", 1)

    run(test)


def test_forgotten_addresses_are_nobodys_again() -> None:
    async def test() -> None:
        async with opened() as port:
            agent = port.agent()
            peers = [port.sender() for _ in range(MAX_PATHS + 2)]
            await port.prove(peers[0], agent)
            for peer in peers[1:]:
                await port.prove(peer, agent, nominate=False)
            assert len(agent.paths) == MAX_PATHS
            for peer in peers[1:3]:  # the oldest but the selected one
                peer.send(MEDIA)
            await port.counted("gate_former", 2)
            for peer in (peers[0], *peers[3:]):
                peer.send(MEDIA)
            await until(lambda: len(port.media) == MAX_PATHS, "media of every address that is known")

    run(test)


def test_one_address_learnt_again_and_again_takes_one_place() -> None:
    """Two peers that prove the same address in turn must not make either forget one that is in use."""

    async def test() -> None:
        async with opened() as port:
            first, second, shared, other = port.agent(), port.agent(), port.sender(), port.sender()
            await port.prove(other, first)
            for _ in range(MAX_PATHS + 2):
                await port.prove(shared, second, nominate=False)
                await port.prove(shared, first, nominate=False)
            assert len(first.paths) == 2
            shared.send(MEDIA)
            await until(lambda: len(port.media) == 1, f"media: {port.counters}")

    run(test)


def test_a_flood_for_dtls_is_bounded() -> None:
    async def test() -> None:
        async with opened() as port:
            agent, peer = port.agent(), port.sender()
            await port.prove(peer, agent)
            for _ in range(4 * DTLS_QUEUE):
                peer.send(CLIENT_HELLO)
            peer.send(MEDIA)
            await until(lambda: port.media, "all came")
            assert agent._dtls.qsize() == DTLS_QUEUE

    run(test)


# --- sockets ----------------------------------------------------------------------------------------------------------


def test_every_family() -> None:
    async def test() -> None:
        async with opened(*LOOPBACKS) as port:
            agent = port.agent()
            for host in LOOPBACKS:
                peer = port.sender(host)
                response = await port.prove(peer, agent)
                assert response.attributes["XOR-MAPPED-ADDRESS"] == peer.getsockname()[:2]
                assert agent.selected is not None
                assert agent.selected.address == peer.getsockname()
                peer.send(MEDIA)
                await agent._send(CLIENT_HELLO)
                assert await asyncio.to_thread(peer.recv, 2000) == CLIENT_HELLO
            await until(lambda: port.media == [MEDIA] * len(LOOPBACKS), "media over each")

    run(test)


def test_a_taken_port_is_named() -> None:
    async def test() -> None:
        async with opened() as port, opened("127.0.0.2") as other:
            with pytest.raises(OSError, match=rf"127\.0\.0\.1 UDP port {port.port}: Address already in use") as caught:
                Port().open(["127.0.0.1"], port.port)
            assert caught.value.errno == errno.EADDRINUSE
            assert list(other.endpoints) == ["127.0.0.2"]

    run(test)


def test_addresses_come_and_go() -> None:
    async def test() -> None:
        async with opened("127.0.0.1") as port:
            assert port.open(["127.0.0.1"], port.port) == []
            assert port.open(["127.0.0.1", "127.0.0.2"], port.port) == ["127.0.0.2"]
            agent = port.agent()
            gone, kept = port.sender("127.0.0.2"), port.sender("127.0.0.1")
            await port.prove(gone, agent)
            assert port.open(["127.0.0.1"], port.port) == []
            assert list(port.endpoints) == ["127.0.0.1"]
            await agent._send(CLIENT_HELLO)  # the selected path is gone: counted, not raised
            assert port.counters["send_failed"] == 1
            await port.prove(kept, agent)
            await agent._send(CLIENT_HELLO)
            assert await asyncio.to_thread(kept.recv, 2000) == CLIENT_HELLO

    run(test)


def test_what_the_kernel_refuses_is_counted() -> None:
    async def test() -> None:
        async with opened() as port:
            endpoint = port.endpoints["127.0.0.1"]
            endpoint.send(bytes(70_000), ("127.0.0.1", 9))
            assert port.counters["send_failed"] == 1

    run(test)


def test_the_answer_comes_from_the_address_that_was_asked() -> None:
    """A connected socket takes nothing else, and neither does a browser."""

    async def test() -> None:
        async with opened("127.0.0.1", "127.0.0.2", "127.0.0.3") as port:
            agent = port.agent()
            for host in port.endpoints:
                await port.prove(port.sender(host), agent)

    run(test)


# --- addresses --------------------------------------------------------------------------------------------------------


def test_an_address_that_is_not_ready_waits_for_the_next_call() -> None:
    async def test() -> None:
        async with opened() as port:
            assert port.open(["127.0.0.1", "192.0.2.1", "127.0.0.2"], port.port) == ["127.0.0.2"]

    run(test)
