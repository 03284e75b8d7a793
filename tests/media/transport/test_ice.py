from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest
from aioice import stun
from support.media_client import check, run

from sfu.media.streams.ingress import RtpDemuxer
from sfu.media.transport.ice import (
    ASKED,
    DTLS_QUEUE,
    HELLO_BYTES,
    MAX_PATHS,
    PATIENCE_S,
    PROVE_S,
    SILENT_S,
    Agent,
)
from sfu.media.transport.sockets import CandidatePair, Endpoint
from sfu.stun import parse_check

PWD = "passwordpasswordpassword"
NOW_S = 100.0
PATH = CandidatePair(None, ("192.0.2.1", 1))  # type: ignore[arg-type]


def demuxer() -> RtpDemuxer:
    return RtpDemuxer({}, lambda data: None, lambda ssrc, kind: None)


class Sockets:
    """An endpoint of the worker, and any number of addresses a peer may have."""

    def __init__(self) -> None:
        self.endpoint = Endpoint("127.0.0.1", 0, Counter())
        self.opened: list[socket.socket] = []

    def path(self) -> CandidatePair:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        self.opened.append(sock)
        return CandidatePair(self.endpoint, sock.getsockname())

    def received(self, path: CandidatePair) -> bytes:
        sock = next(s for s in self.opened if s.getsockname() == path.address)
        return sock.recv(2000)

    def close(self) -> None:
        for sock in (self.endpoint.socket, *self.opened):
            sock.close()


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    made = Sockets()
    yield made
    made.close()


class Followed(Agent):
    """An agent and the paths it selected."""

    def __init__(self) -> None:
        self.moves: list[CandidatePair] = []
        self.round_trips: list[tuple[float, float, float]] = []
        super().__init__(self.moves.append, lambda *measured: self.round_trips.append(measured))
        self.answered(("remote", PWD))


def arrive(
    agent: Agent, path: CandidatePair, now_s: float, *, nominate: bool = False, there: bool = True
) -> stun.Message:
    """A check as the UDP port hands it on; returns the request. `there`: its sender answers a check of the agent's."""
    request = check(agent.ufrag, agent.pwd, nominate=nominate)
    parsed = parse_check(bytes(request))
    assert parsed is not None
    assert parsed.verify(agent.pwd)
    agent.check(parsed, path, now_s)
    if there and agent._wanted is not None:
        agent.handle_response(proof(agent._wanted.transaction_id), path, now_s)
    return request


def proof(transaction_id: bytes, pwd: str = PWD) -> bytes:
    response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, transaction_id)
    response.add_message_integrity(pwd.encode())
    return bytes(response)


# --- the agent --------------------------------------------------------------------------------------------------------


def test_credentials_are_long_and_fresh() -> None:
    """RFC 8445 section 5.3: at least 24 bits of ufrag and 128 of password, of ice-char."""
    agents = [Agent(lambda path: None) for _ in range(100)]
    assert len({a.ufrag for a in agents}) == len({a.pwd for a in agents}) == 100
    assert all(len(a.ufrag) == 8 and len(a.pwd) == 24 and (a.ufrag + a.pwd).isalnum() for a in agents)


def test_a_check_is_answered(sockets: Sockets) -> None:
    """RFC 8445 section 7.3.1: the mapped address is the source, and the response is signed."""
    agent, path = Followed(), sockets.path()
    request = arrive(agent, path, 100.0)
    response = stun.parse_message(sockets.received(path))
    assert (response.message_method, response.message_class) == (stun.Method.BINDING, stun.Class.RESPONSE)
    assert response.transaction_id == request.transaction_id
    assert response.check_message_integrity(agent.pwd.encode())
    assert response.attributes["XOR-MAPPED-ADDRESS"] == path.address
    assert "FINGERPRINT" in response.attributes


def test_only_a_nomination_selects(sockets: Sockets) -> None:
    agent, path = Followed(), sockets.path()
    arrive(agent, path, 100.0)
    assert agent.selected is None
    assert not agent.connected.is_set()
    arrive(agent, path, 100.1, nominate=True)
    assert agent.selected == path
    assert agent.connected.is_set()
    arrive(agent, path, 100.2, nominate=True)
    assert agent.moves == [path]


def test_another_nomination_is_followed(sockets: Sockets) -> None:
    agent, first, second = Followed(), sockets.path(), sockets.path()
    arrive(agent, first, 100.0, nominate=True)
    arrive(agent, second, 100.0, nominate=True)
    assert agent.selected == second
    arrive(agent, first, 100.1, nominate=True)
    assert agent.moves == [first, second, first]


def asked(sockets: Sockets, path: CandidatePair) -> list[stun.Message]:
    """The checks of the agent's that wait at a path."""
    sock = next(s for s in sockets.opened if s.getsockname() == path.address)
    sock.setblocking(False)
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(stun.parse_message(sock.recv(2000)))
    return [message for message in found if message.message_class == stun.Class.REQUEST]


def test_a_path_that_does_not_answer_is_not_moved_to(sockets: Sockets) -> None:
    """RFC 8445 section 7.3.1.4: the check is one that a browser answers; it is not sent faster than PROVE_S."""
    agent, first, second = Followed(), sockets.path(), sockets.path()
    arrive(agent, first, 100.0, nominate=True)
    for step in range(10):
        arrive(agent, second, 100.0 + step * PROVE_S / 4, nominate=step < 2, there=False)
    checks = asked(sockets, second)
    assert len(checks) == 3
    (transaction_id,) = {message.transaction_id for message in checks}
    for message in checks:
        assert message.message_method == stun.Method.BINDING
        assert message.attributes["USERNAME"] == f"remote:{agent.ufrag}"
        assert message.check_message_integrity(PWD.encode())
        assert {"PRIORITY", "ICE-CONTROLLED", "FINGERPRINT"} <= message.attributes.keys()
        assert "USE-CANDIDATE" not in message.attributes
    assert agent.moves == [first]
    for data, path in (
        (proof(bytes(12)), second),
        (proof(transaction_id, "another password here"), second),
        (proof(transaction_id), first),
        (proof(transaction_id)[:-8], first),
        (b"\x01\x01" + bytes(50), second),
    ):
        assert not agent.handle_response(data, path, NOW_S)
    assert agent.moves == [first]
    assert agent.handle_response(proof(transaction_id), second, NOW_S)
    assert agent.moves == [first, second]
    assert not agent.handle_response(proof(transaction_id), second, NOW_S), "once"


def test_a_check_on_the_path_in_use_measures_a_round_trip(sockets: Sockets) -> None:
    agent, first, second = Followed(), sockets.path(), sockets.path()
    agent.measure_rtt(100.0)
    arrive(agent, first, 100.0, nominate=True)
    asked(sockets, first)
    agent.measure_rtt(101.0)
    agent.measure_rtt(102.0)
    one, two = (message.transaction_id for message in asked(sockets, first))
    assert not agent.handle_response(proof(two), second, 102.1), "from elsewhere"
    assert not agent.handle_response(proof(two, "another password here"), first, 102.1)
    assert agent.handle_response(proof(two), first, 102.25)
    assert not agent.handle_response(proof(two), first, 102.3), "once"
    assert agent.handle_response(proof(one), first, 102.5)
    assert agent.round_trips == [(0.25, 102.0, 102.25), (1.5, 101.0, 102.5)]
    assert agent.moves == [first]


def test_checks_that_nobody_answers_are_forgotten(sockets: Sockets) -> None:
    agent, path = Followed(), sockets.path()
    arrive(agent, path, 100.0, nominate=True)
    asked(sockets, path)
    for n in range(10 * ASKED):
        agent.measure_rtt(101.0 + n)
    sent = [message.transaction_id for message in asked(sockets, path)]
    assert [agent.handle_response(proof(one), path, 200.0) for one in sent] == [False] * 9 * ASKED + [True] * ASKED


def test_before_the_answer_is_there_no_path_can_be_proved(sockets: Sockets) -> None:
    agent, path = Agent(lambda path: None), sockets.path()
    arrive(agent, path, 100.0, nominate=True, there=False)
    assert agent.selected is None
    assert asked(sockets, path) == []
    agent.answered(None)
    agent.answered(("remote", PWD))
    (request,) = asked(sockets, path)
    assert agent.handle_response(proof(request.transaction_id), path, NOW_S)
    assert agent.selected == path


def test_the_first_path_is_proved_too(sockets: Sockets) -> None:
    """The check is repeated with each packet from there, a DTLS hello as well, but a short datagram is not answered by
    a longer one."""
    agent, path = Followed(), sockets.path()
    arrive(agent, path, 100.0, nominate=True, there=False)
    agent.dtls(bytes(HELLO_BYTES), path, 101.0)
    assert len(asked(sockets, path)) == 1
    agent.dtls(bytes(HELLO_BYTES + 1), path, 102.0)
    (request,) = asked(sockets, path)
    assert len(bytes(request)) < HELLO_BYTES
    assert not agent.connected.is_set()
    agent.handle_response(proof(request.transaction_id), path, 102.0)
    assert agent.connected.is_set()


@pytest.mark.parametrize("answers", [True, False], ids=["the other one answers", "nobody is there"])
def test_a_path_nominated_only_once_is_not_forgotten_for_another(sockets: Sockets, answers: bool) -> None:
    """Firefox nominates once, and may do so while another path still has to be proved."""
    agent, first, second = Followed(), sockets.path(), sockets.path()
    arrive(agent, first, 100.0, nominate=True, there=False)
    arrive(agent, second, 100.1, nominate=True, there=False)
    (request,) = asked(sockets, first)
    if answers:
        assert agent.handle_response(proof(request.transaction_id), first, 100.2)
        assert agent.selected == first
    else:
        arrive(agent, second, 100.2 + PATIENCE_S, there=False)
    (request,) = asked(sockets, second)
    assert agent.handle_response(proof(request.transaction_id), second, 101.0)
    assert agent.selected == second


def test_two_paths_nominated_in_turn_do_not_keep_each_other_from_being_proved(sockets: Sockets) -> None:
    agent, first, second, third = Followed(), sockets.path(), sockets.path(), sockets.path()
    arrive(agent, first, 100.0, nominate=True)
    for step in range(4):
        arrive(agent, (second, third)[step % 2], 100.0 + step / 100, nominate=True, there=False)
    assert asked(sockets, third) == []
    arrive(agent, third, 100.1 + PATIENCE_S, nominate=True)
    assert agent.selected == third


def test_the_path_there_is_nominated_again_and_no_other_is_wanted(sockets: Sockets) -> None:
    agent, first, second = Followed(), sockets.path(), sockets.path()
    arrive(agent, first, 100.0, nominate=True)
    arrive(agent, second, 100.0, nominate=True, there=False)
    (request,) = asked(sockets, second)
    arrive(agent, first, 100.1, nominate=True)
    assert not agent.handle_response(proof(request.transaction_id), second, NOW_S)
    assert agent.moves == [first]


def test_a_restart_leaves_the_former_good_until_a_nomination(sockets: Sockets) -> None:
    agent, first, second = Followed(), sockets.path(), sockets.path()
    arrive(agent, first, 100.0, nominate=True)
    former = agent.ufrag
    assert agent.restart() is None
    overtaken = agent.ufrag
    assert agent.restart() == overtaken
    assert list(agent.passwords) == [former, agent.ufrag]
    parsed = parse_check(bytes(check(agent.ufrag, agent.pwd, nominate=False)))
    assert parsed is not None
    assert agent.check(parsed, second, 100.1) is None
    parsed = parse_check(bytes(check(agent.ufrag, agent.pwd)))
    assert parsed is not None
    assert agent.check(parsed, second, 100.2) == former
    assert list(agent.passwords) == [agent.ufrag]
    assert agent.selected == first, "the peer's answer is not there yet"
    assert len(asked(sockets, second)) == 0
    agent.answered(("remote2", PWD))
    (request,) = asked(sockets, second)
    assert request.attributes["USERNAME"] == f"remote2:{agent.ufrag}"
    assert agent.handle_response(proof(request.transaction_id), second, NOW_S)


def test_without_nomination_it_moves_only_after_silence(sockets: Sockets) -> None:
    agent, first, second = Followed(), sockets.path(), sockets.path()
    arrive(agent, first, 100.0, nominate=True)
    arrive(agent, second, 100.0 + SILENT_S)
    assert agent.selected == first
    arrive(agent, second, 100.1 + SILENT_S)
    assert agent.selected == second


def test_what_comes_on_the_path_keeps_it(sockets: Sockets) -> None:
    """Checks and media on the selected path count, those elsewhere do not."""
    agent, first, second = Followed(), sockets.path(), sockets.path()
    arrive(agent, first, 100.0, nominate=True)
    now_s = 100.0
    for beat in range(10):
        now_s += 0.9 * SILENT_S
        agent.seen(first, now_s) if beat % 2 else arrive(agent, first, now_s)
        arrive(agent, second, now_s + 0.5 * SILENT_S)
        assert agent.selected == first
    agent.seen(second, now_s + SILENT_S)
    arrive(agent, second, now_s + 1.1 * SILENT_S)
    assert agent.selected == second


def test_liveness_counts_every_path(sockets: Sockets) -> None:
    agent, first, second = Followed(), sockets.path(), sockets.path()
    arrive(agent, first, 100.0, nominate=True)
    arrive(agent, second, 101.0)
    assert agent.last_seen_s == 101.0
    agent.seen(second, 102.0)
    assert agent.last_seen_s == 102.0


def test_paths_are_bounded_and_the_selected_one_is_kept(sockets: Sockets) -> None:
    agent = Followed()
    paths = [CandidatePair(sockets.endpoint, ("192.0.2.1", port)) for port in range(1, 4 * MAX_PATHS)]
    agent.selected = paths[0]
    forgotten = [agent.add_pair(path) for path in paths]
    assert forgotten[:MAX_PATHS] == [None] * MAX_PATHS
    assert forgotten[MAX_PATHS:] == paths[1 : len(paths) - MAX_PATHS + 1]
    assert agent.paths == [paths[0], *paths[-(MAX_PATHS - 1) :]]


def test_records_reach_dtls_in_order_and_past_the_bound_are_dropped() -> None:
    async def test() -> None:
        agent = Followed()
        for i in range(DTLS_QUEUE + 10):
            agent.dtls(bytes([i]), PATH, NOW_S)
        assert [await agent._recv() for _ in range(DTLS_QUEUE)] == [bytes([i]) for i in range(DTLS_QUEUE)]
        agent.dtls(b"later", PATH, NOW_S)
        assert await agent._recv() == b"later"

    run(test)


@pytest.mark.parametrize("queued", [0, 1, DTLS_QUEUE])
def test_closing_ends_whoever_waits(queued: int) -> None:
    async def test() -> None:
        agent = Followed()
        waiter = asyncio.ensure_future(agent._recv()) if not queued else None
        await asyncio.sleep(0)
        for _ in range(queued):
            agent.dtls(b"record", PATH, NOW_S)
        agent.close()
        agent.close()
        if waiter is not None:
            with pytest.raises(ConnectionError):
                await waiter
        with pytest.raises(ConnectionError):
            await agent._recv()
        with pytest.raises(ConnectionError):
            await agent._send(b"record")
        agent.dtls(b"late", PATH, NOW_S)

    run(test)


def test_dtls_goes_where_the_peer_nominated(sockets: Sockets) -> None:
    async def test() -> None:
        agent, first, second = Followed(), sockets.path(), sockets.path()
        with pytest.raises(ConnectionError):
            await agent._send(b"too early")
        for path in (first, second):
            arrive(agent, path, 100.0, nominate=True)
            for _ in ("the response", "a check"):
                sockets.received(path)
            await agent._send(b"flight")
            assert sockets.received(path) == b"flight"

    run(test)
