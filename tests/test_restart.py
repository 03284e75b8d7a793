"""What becomes of a peer whose network changes or whose WebSocket is away: ICE restarts, and offers that are held."""

from __future__ import annotations

import asyncio
import re

import pytest
from support.media_client import Client, LocalControl, check, clients, local_worker, run
from support.waiting import until

from sfu import bridge
from sfu.media.peer import negotiation


def credentials(offer: bridge.Offer | None) -> tuple[str, str]:
    """What all sections of an offer say alike."""
    assert offer is not None
    (ufrag,), (pwd,) = (set(re.findall(rf"a=ice-{what}:(\S+)", offer.sdp)) for what in ("ufrag", "pwd"))
    return ufrag, pwd


async def renewed(control: LocalControl, client: Client) -> tuple[str, str]:
    """The credentials after a restart, whose offer the client has answered; it goes on with those it has."""
    before = credentials(client.offer)
    await control.send(bridge.RestartIce(client.id))
    await until(lambda: credentials(client.offer) != before, "an offer with new credentials")
    ufrag, pwd = credentials(client.offer)
    assert ufrag != before[0]
    assert pwd != before[1]
    peer = control.worker.peers[client.id]
    await until(lambda: not peer.negotiation.sections.in_flight, "the answer is there")
    return ufrag, pwd


async def heard(sender: Client, receiver: Client, seq16: int) -> None:
    """A packet gets from one to the other."""
    text = f"{sender.id} {seq16}".encode()
    await sender.send_rtp("microphone", seq16, text)
    while (await receiver.rtp()).payload != text:
        pass


async def held(control: LocalControl, peer: str, yes: bool) -> None:
    await control.send(bridge.Hold(peer, yes))


def test_a_restart_moves_the_media_and_keeps_the_encryption() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await heard(a, b, 1)
            await heard(b, a, 1)
            assert a.ice is not None
            ssrc, former = a.ssrc_of("b", "microphone"), (a.ice.ufrag, a.ice.pwd)
            new = await renewed(control, a)
            await heard(a, b, 2)  # by the path there was, until another is nominated
            await heard(b, a, 2)
            a.ice.ufrag, a.ice.pwd = new
            await a.move()  # the network is another one
            await heard(b, a, 3)
            await heard(a, b, 3)
            assert a.ssrc_of("b", "microphone") == ssrc
            assert control.pending(bridge.TrackEnded, "a") == []
            refused = control.worker.counters["gate_stun_refused"]
            a.ice.ufrag, a.ice.pwd = former
            a.ice.send(bytes(check(*former)))
            await until(lambda: control.worker.counters["gate_stun_refused"] > refused, "the old ones are void")

    run(test)


def test_until_a_nomination_the_old_credentials_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiation, "RESTART_S", 0.0)

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            assert a.ice is not None
            former = a.ice.ufrag, a.ice.pwd
            for turn in range(2):
                new = await renewed(control, a)
                a.ice.ufrag, a.ice.pwd = new
                await a.ice.check(nominate=False)
                a.ice.ufrag, a.ice.pwd = former
                await a.move()  # they are followed
                await heard(b, a, turn)
            assert set(control.worker.udp._agents) & {former[0], new[0]} == {former[0], new[0]}
            assert len(control.worker.udp._agents) == 3, "b's, and two of a's"
            a.ice.ufrag, a.ice.pwd = new
            await a.ice.check()
            assert len(control.worker.udp._agents) == 2
            await b.leave()
            await a.leave()
            assert not control.worker.udp._agents

    run(test)


def test_restarts_are_one_at_a_time_and_not_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negotiation, "RESTART_S", 0.3)

    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            seen = [credentials(await a.negotiate())]
            began = asyncio.get_running_loop().time()
            for _ in range(10):
                await control.send(bridge.RestartIce("a"))
            seen.append(credentials(await a.negotiate()))
            for _ in range(10):
                await control.send(bridge.RestartIce("a"))
            seen.append(credentials(await a.negotiate()))
            assert asyncio.get_running_loop().time() - began >= 0.25
            assert len(set(seen)) == 3
            await asyncio.sleep(0.4)  # as long as one more could take
            assert control.pending(bridge.Offer, "a") == []

    run(test)


def test_a_restart_asked_for_while_an_offer_is_in_flight_is_in_the_next() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            first = await a.next_offer()
            await control.send(bridge.RestartIce("a"))
            await until(lambda: control.worker.peers["a"].negotiation._renew, "it is asked for")
            await control.send(bridge.Answer("a", a.answer(first)))
            second = await a.negotiate()
            assert credentials(first) != credentials(second)
            await a.connect()
            await a.aclose()

    run(test)


def test_a_held_peer_gets_no_offer_and_afterwards_one_with_everything() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            await a.negotiate()
            await held(control, "a", True)
            others = [await Client(control, name).start() for name in "bc"]
            for other in others:
                for _ in range(2):
                    await control.event(bridge.Track, other.id)
            await control.send(bridge.RestartIce("a"))
            await asyncio.sleep(0.01)
            assert control.pending(bridge.Offer, "a") == []
            await held(control, "a", False)
            offer = await a.negotiate()
            assert {peer for peer, _ in offer.receive.values()} == {"b", "c"}
            await asyncio.sleep(0.01)
            assert control.pending(bridge.Offer, "a") == []
            for other in others:
                await other.aclose()

    run(test)


@pytest.mark.parametrize("noticed", [True, False])
def test_the_offer_in_flight_comes_again_and_is_not_overdue_meanwhile(noticed: bool) -> None:
    async def test() -> None:
        async with local_worker(answer_s=0.7) as control:
            a = await Client(control, "a").join()
            first = await a.next_offer()
            if noticed:
                await held(control, "a", True)
                await asyncio.sleep(0.8)  # longer than an answer may take
            await held(control, "a", False)
            again = await a.next_offer()
            assert again == first
            await control.send(bridge.Answer("a", a.answer(again)))
            await asyncio.sleep(0.8)
            assert control.pending(bridge.Failed, "a") == []
            assert "a" in control.worker.peers

    run(test)


def test_an_offer_that_comes_again_has_its_deadline_again() -> None:
    async def test() -> None:
        async with local_worker(answer_s=0.1) as control:
            await (await Client(control, "a").join()).next_offer()
            await held(control, "a", True)
            await held(control, "a", False)
            assert (await control.event(bridge.Failed, "a")).code == "answer_timeout"

    run(test)


def test_an_answer_that_arrived_before_the_break_is_not_asked_for_again() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            await a.negotiate()
            await held(control, "a", True)
            await held(control, "a", False)
            await asyncio.sleep(0.01)
            assert control.pending(bridge.Offer, "a") == []

    run(test)


def test_what_is_paused_is_told_again() -> None:
    async def test() -> None:
        async with local_worker(last_n=1) as control, clients(control, "a", "b", "c") as (_, _, c):
            paused = await control.event(bridge.Paused, "c")
            assert paused.reason == "not_speaking"
            await held(control, "c", True)
            await held(control, "c", False)
            assert await control.event(bridge.Paused, "c") == paused
            assert c.id == "c"

    run(test)
