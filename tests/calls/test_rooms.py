"""Rooms: who is told what, and that a room is there exactly as long as somebody is in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle as Peers
from hypothesis.stateful import RuleBasedStateMachine, consumes, initialize, invariant, rule

from sfu import bridge
from sfu.calls.rooms import EVERYTHING, HISTORY_BYTES, OPEN, Deliveries, Peer, Rooms, new_id
from sfu.errors import MediaUnavailable
from sfu.network.turn import CREDENTIALS_S, credentials
from sfu.protocol.server_messages import (
    Cause,
    ChatDeleted,
    ChatLine,
    Connection,
    Direction,
    HandRaised,
    History,
    IceServer,
    Joined,
    Left,
    Limits,
    Muted,
    Offer,
    Participant,
    Quality,
    RoomState,
    Speakers,
    Track,
    TrackEnded,
    TrackInfo,
    Welcome,
)
from sfu.protocol.shared import Candidate
from sfu.settings.config import Config
from sfu.tenancy.tokens import Permissions


def join(rooms: Rooms, key: str = "team", name: str = "alice", *, full: bool = True, worker: int = 0) -> Peer:
    return rooms.join(key, name, full=full, pick=lambda: worker)[0]


def told(deliveries: Deliveries) -> list[tuple[str, Any]]:
    return [(peer.name, message) for peer, message in deliveries]


def test_the_first_is_welcomed_to_a_new_room() -> None:
    rooms = Rooms(Config())
    peer, deliveries = rooms.join("team", "alice", full=True, pick=lambda: 3)
    limits = Limits(4096, 8, 65536, 20, 10_485_760, 255)
    assert told(deliveries) == [
        ("alice", Welcome(peer.id, "team", "alice", (), limits, EVERYTHING, RoomState(), peer.secret, resumed=False))
    ]
    assert rooms.rooms["team"].worker == 3
    assert rooms.rooms["team"].peers == rooms.peers == {peer.id: peer}


def test_the_second_learns_who_is_there_and_the_first_who_comes() -> None:
    rooms = Rooms(Config())
    alice = join(rooms)
    rooms.track(alice, "camera", "video")
    rooms.mute(alice, "camera", True)
    bob, deliveries = rooms.join("team", "bob", full=True, pick=lambda: 1)
    welcome = deliveries[0][1]
    assert isinstance(welcome, Welcome)
    assert welcome.participants == (Participant(alice.id, "alice", (TrackInfo("camera", "video", muted=True),)),)
    assert told(deliveries[1:]) == [("alice", Joined(bob.id, "bob", moderator=False))]
    assert rooms.rooms["team"].worker == 0, "a room stays on its worker"


def test_everybody_learns_who_may_not_publish() -> None:
    rooms = Rooms(Config())
    viewer = rooms.join("team", "viewer", full=True, pick=lambda: 0, permissions=Permissions(publish=False))[0]
    later, deliveries = rooms.join("team", "later", full=True, pick=lambda: 0, permissions=Permissions(publish=False))
    welcome = deliveries[0][1]
    assert isinstance(welcome, Welcome)
    assert welcome.participants == (Participant(viewer.id, "viewer", publish=False),)
    assert told(deliveries[1:]) == [("viewer", Joined(later.id, "later", moderator=False, publish=False))]


def test_ids_are_not_to_be_guessed() -> None:
    rooms = Rooms(Config(limits=False))
    ids = {join(rooms).id for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(peer_id) for peer_id in ids} == {12}


def test_secrets_are_not_to_be_guessed_nor_shown() -> None:
    rooms = Rooms(Config(limits=False))
    peers = [join(rooms) for _ in range(100)]
    assert len({peer.secret for peer in peers}) == 100
    assert all(peer.secret.startswith(f"{peer.id}.") and len(peer.secret) == 12 + 1 + 32 for peer in peers)
    shown = repr((peers[0], rooms.welcome(peers[0], 0)))
    assert peers[0].secret.partition(".")[2] not in shown


def test_a_welcome_again_has_all_that_was_missed() -> None:
    rooms = Rooms(Config())
    alice, bob = join(rooms), join(rooms, name="bob")
    rooms.track(bob, "camera", "video")
    rooms.mute(bob, "camera", True)
    rooms.speakers("team", bob.id, [bob.id])
    (_, welcome), (_, speakers) = rooms.welcome(alice, 0, resumed=True)
    assert isinstance(welcome, Welcome)
    assert (welcome.peer, welcome.session, welcome.resumed) == (alice.id, alice.secret, True)
    assert welcome.participants == (Participant(bob.id, "bob", (TrackInfo("camera", "video", muted=True),)),)
    assert speakers == Speakers(bob.id, (bob.id,))


def test_a_welcome_has_credentials_for_turn_and_a_later_one_has_new_ones() -> None:
    urls, secret = ("turn:turn.example.org",), "north-by-northwest"
    rooms = Rooms(Config(turn_urls=urls, turn_secret=secret))
    alice = join(rooms)
    for now_s in (1_000, 80_000):
        (_, welcome), *_ = rooms.welcome(alice, 1000 * now_s + 999, resumed=True)
        assert isinstance(welcome, Welcome)
        (server,) = welcome.ice_servers
        assert server == IceServer(urls, *credentials(secret, alice.id, now_s))
        assert server.username == f"{now_s + CREDENTIALS_S}:{alice.id}"
        assert server.credential not in repr(welcome)


def test_who_leaves_is_gone_and_the_others_are_told() -> None:
    rooms = Rooms(Config())
    alice, bob, carol = join(rooms), join(rooms, name="bob"), join(rooms, name="carol")
    left = Left(bob.id, "ice_timeout")
    assert told(rooms.leave(bob, "ice_timeout")) == [("alice", left), ("carol", left)]
    assert rooms.leave(bob, "left") == []
    assert list(rooms.rooms["team"].peers) == list(rooms.peers) == [alice.id, carol.id]


def test_a_room_is_told_who_speaks_and_so_is_who_comes_later() -> None:
    rooms = Rooms(Config())
    alice, bob, bare = join(rooms), join(rooms, name="bob"), join(rooms, name="bare", full=False)
    now = Speakers(bob.id, (alice.id, bob.id))
    assert told(rooms.speakers("team", bob.id, [alice.id, bob.id])) == [("alice", now), ("bob", now)]
    rooms.leave(bob, "left")
    carol, deliveries = rooms.join("team", "carol", full=True, pick=lambda: 0)
    assert told(deliveries)[1] == ("carol", Speakers(None, (alice.id,)))
    _, deliveries = rooms.join("elsewhere", "dave", full=True, pick=lambda: 0)
    assert [type(message) for _, message in deliveries] == [Welcome]
    for peer in (alice, bare, carol):
        rooms.leave(peer, "left")
    assert rooms.speakers("team", alice.id, [alice.id]) == [], "the news came after the room's end"


def test_a_peer_is_told_how_its_call_goes_and_the_others_only_how_well() -> None:
    rooms = Rooms(Config())
    alice, bob, bare = join(rooms), join(rooms, name="bob"), join(rooms, name="bare", full=False)
    up = Direction(loss=0.12, jitter_ms=3.0, round_trip_ms=40.0, bitrate_bps=900_000)
    cause = Cause("upload_loss", alice.id, 12, "%")
    assert rooms.measured(alice, bridge.Quality(alice.id, None, None, None, None, 0, 0)) == []
    said = told(rooms.measured(alice, bridge.Quality(alice.id, 3.0, up, None, cause, 1000, 0)))
    assert said == [("alice", Quality(up, None, cause, {alice.id: 3.0}))]
    assert rooms.measured(bare, bridge.Quality(bare.id, 4.0, None, None, None, 0, 500)) == []
    scores = {alice.id: 3.0, bare.id: 4.0, bob.id: 4.4}
    report = bridge.Quality(bob.id, 4.4, None, up, None, 0, 0)
    assert told(rooms.measured(bob, report)) == [("bob", Quality(None, up, None, scores))]
    assert rooms.measured(bob, report) == [], "nothing has changed"
    rooms.leave(alice, "left")
    assert told(rooms.measured(bob, report)) == [("bob", Quality(None, up, None, {bare.id: 4.0, bob.id: 4.4}))]
    rooms.measured(bare, bridge.Quality(bare.id, None, None, None, None, 0, 500))
    assert told(rooms.measured(bob, report)) == [("bob", Quality(None, up, None, {bob.id: 4.4}))]
    assert alice.summary.record().bytes_up == 1000
    assert bare.summary.record().score_mean == 4.0


def test_an_empty_room_is_gone() -> None:
    rooms = Rooms(Config())
    alice = join(rooms)
    assert rooms.leave(alice, "left") == []
    assert not rooms.rooms
    assert not rooms.peers
    assert join(rooms, worker=1).room.worker == 1, "a room of that name is a new one"
    assert rooms.created == 2


def test_without_a_worker_there_is_no_new_room() -> None:
    rooms = Rooms(Config())

    def pick() -> int:
        raise MediaUnavailable

    with pytest.raises(MediaUnavailable):
        rooms.join("team", "alice", full=True, pick=pick)
    assert not rooms.rooms
    assert not rooms.peers
    assert rooms.created == 0


def test_a_track_is_told_to_the_others() -> None:
    rooms = Rooms(Config())
    alice, _ = join(rooms), join(rooms, name="bob")
    assert told(rooms.track(alice, "camera", "video")) == [("bob", Track(alice.id, "camera", "video", muted=False))]
    assert told(rooms.mute(alice, "camera", True)) == [("bob", Muted(alice.id, "camera", muted=True))]
    assert told(rooms.mute(alice, "camera", False)) == [("bob", Muted(alice.id, "camera", muted=False))]
    assert told(rooms.track_ended(alice, "camera")) == [("bob", TrackEnded(alice.id, "camera"))]
    assert rooms.track_ended(alice, "camera") == []


def test_a_mute_before_its_track_is_remembered() -> None:
    rooms = Rooms(Config())
    alice, _ = join(rooms), join(rooms, name="bob")
    assert rooms.mute(alice, "camera", True) == []
    for _ in range(2):  # and stays when the track ends and begins again
        assert told(rooms.track(alice, "camera", "video")) == [("bob", Track(alice.id, "camera", "video", muted=True))]
        rooms.track_ended(alice, "camera")


def test_chat_comes_back_to_its_sender() -> None:
    rooms = Rooms(Config())
    alice, _ = join(rooms), join(rooms, name="bob")
    line, deliveries = rooms.chat(alice, "hello", 1_700_000_000_123)
    assert line == ChatLine(alice.id, "alice", "hello", 1_700_000_000_123, line.id)
    assert told(deliveries) == [("alice", line), ("bob", line)]


KEPT = RoomState(chat_kept_s=60)


def history(rooms: Rooms, now_ms: int) -> list[str]:
    """The texts that somebody is told who comes now."""
    peer, deliveries = rooms.join("team", "late", full=True, pick=lambda: 0, now_ms=now_ms)
    rooms.leave(peer, "left")
    return [line.text for _, message in deliveries if isinstance(message, History) for line in message.lines]


def test_who_comes_later_is_told_what_was_written() -> None:
    rooms = Rooms(Config())
    earlier = [ChatLine("p", "carol", "yesterday", 1_000, "a"), ChatLine("p", "carol", "just now", 70_000, "b")]
    alice, _ = rooms.join("team", "alice", full=True, pick=lambda: 0, state=KEPT, earlier=earlier, now_ms=80_000)
    lines = [rooms.chat(alice, f"line {n}", 80_000)[0] for n in range(3)]
    assert [line.time for line in lines] == [80_000, 80_001, 80_002], "their times are their order"
    assert history(rooms, 80_000) == ["just now", "line 0", "line 1", "line 2"]
    assert told(rooms.chat_deleted("team", lines[1].id)) == [("alice", ChatDeleted(lines[1].id))]
    assert history(rooms, 80_000) == ["just now", "line 0", "line 2"]
    assert history(rooms, 140_001) == ["line 2"], "the others are a minute old"
    rooms.change("team", RoomState())
    rooms.chat(alice, "not kept", 90_000)
    assert history(rooms, 90_000) == []


def test_the_history_is_bounded() -> None:
    rooms = Rooms(Config())
    alice, _ = rooms.join("team", "alice", full=True, pick=lambda: 0, state=KEPT)
    for n in range(300):
        rooms.chat(alice, f"{n}", 0)
    assert history(rooms, 0) == [f"{n}" for n in range(100, 300)]
    for _ in range(100):
        rooms.chat(alice, "ä" * 2048, 0)
    assert len(history(rooms, 0)) == HISTORY_BYTES // 4096


def test_a_hand_stays_up_until_it_is_taken_down() -> None:
    rooms = Rooms(Config())
    alice, _ = join(rooms), join(rooms, name="bob")
    assert told(rooms.hand(alice, 5)) == [("alice", HandRaised(alice.id, 5)), ("bob", HandRaised(alice.id, 5))]
    assert told(rooms.hand(alice, 9)) == [("alice", HandRaised(alice.id, 5))], "the first event may be lost"
    _, deliveries = rooms.join("team", "carol", full=True, pick=lambda: 0)
    assert isinstance(deliveries[0][1], Welcome)
    assert [one.hand for one in deliveries[0][1].participants] == [5, 0]
    assert told(rooms.hand(alice, 0))[0] == ("alice", HandRaised(alice.id, 0))
    assert told(rooms.hand(alice, 0)) == [("alice", HandRaised(alice.id, 0))]


def test_others_see_whose_connection_is_lost() -> None:
    rooms = Rooms(Config())
    alice, bob = join(rooms), join(rooms, name="bob")
    assert told(rooms.lost(alice, True)) == [("bob", Connection(alice.id, True))]
    assert told(rooms.lost(alice, True)) == []
    _, deliveries = rooms.join("team", "carol", full=True, pick=lambda: 0)
    assert isinstance(deliveries[0][1], Welcome)
    assert [one.lost for one in deliveries[0][1].participants] == [True, False]
    assert ("bob", Connection(alice.id, False)) in told(rooms.lost(alice, False))
    assert ("alice", Connection(bob.id, True)) in told(rooms.fall_silent(bob)), "its page went away"


def test_a_room_is_told_how_it_is_set() -> None:
    rooms = Rooms(Config())
    alice = join(rooms)
    locked = RoomState(locked=True)
    assert told(rooms.change("team", locked)) == [("alice", locked)]
    assert rooms.change("team", locked) == rooms.change("elsewhere", locked) == []
    _, deliveries = rooms.join("team", "bob", full=True, pick=lambda: 0, state=OPEN)
    assert isinstance(deliveries[0][1], Welcome)
    assert deliveries[0][1].state == locked, "what the running call knows counts"
    assert rooms.moderators("team") == rooms.moderators("elsewhere") == []
    carol, _ = rooms.join("team", "carol", full=True, pick=lambda: 0, permissions=Permissions(moderate=True))
    assert rooms.moderators("team") == [carol]
    assert alice.moderator is False


def test_a_bare_client_is_told_nothing_of_this() -> None:
    rooms = Rooms(Config())
    alice = join(rooms)
    bare, deliveries = rooms.join("team", "bare", full=False, pick=lambda: 0)
    assert told(deliveries) == [("alice", Joined(bare.id, "bare", moderator=False))]
    changes: list[Callable[[], Deliveries]] = [
        lambda: rooms.track(alice, "camera", "video"),
        lambda: rooms.mute(alice, "camera", True),
        lambda: rooms.chat(alice, "hello", 0)[1],
        lambda: rooms.track_ended(alice, "camera"),
        lambda: rooms.leave(alice, "left"),
    ]
    assert all(bare not in [peer for peer, _ in change()] for change in changes)
    assert bare.takes(Offer("offer", ""))
    assert bare.takes(Candidate(""))


class AnyOrder(RuleBasedStateMachine):
    """Whatever peers do in whatever order, the books agree and nothing leaves its room."""

    peers: Peers[Peer] = Peers("peers")
    keys = st.sampled_from(["a", "b", "c"])
    sources = st.sampled_from(["microphone", "camera", "screen"])

    @initialize()
    def start(self) -> None:
        self.rooms = Rooms(Config())
        self.there: dict[str, list[Peer]] = {"a": [], "b": [], "c": []}

    def heard(self, sender: Peer, deliveries: Deliveries, *, sender_too: bool = False) -> None:
        others = [p for p in self.there[sender.room.key] if p.full and (sender_too or p is not sender)]
        assert [peer for peer, _ in deliveries] == others

    @rule(target=peers, key=keys, full=st.booleans())
    def join(self, key: str, full: bool) -> Any:
        before = list(self.there[key])
        peer, deliveries = self.rooms.join(key, "x", full=full, pick=lambda: 0)
        assert [p for p, _ in deliveries] == [peer] * full + [p for p in before if p.full]
        self.there[key].append(peer)
        return peer

    @rule(peer=consumes(peers))
    def leave(self, peer: Peer) -> None:
        self.there[peer.room.key].remove(peer)
        self.heard(peer, self.rooms.leave(peer, "left"))

    @rule(peer=peers, source=sources)
    def track(self, peer: Peer, source: str) -> None:
        self.heard(peer, self.rooms.track(peer, source, "video"))

    @rule(peer=peers, source=sources)
    def end_track(self, peer: Peer, source: str) -> None:
        published = source in peer.tracks
        deliveries = self.rooms.track_ended(peer, source)
        if published:
            self.heard(peer, deliveries)
        else:
            assert deliveries == []

    @rule(peer=peers)
    def chat(self, peer: Peer) -> None:
        self.heard(peer, self.rooms.chat(peer, "x", 0)[1], sender_too=True)

    @invariant()
    def books_agree(self) -> None:
        assert {key: list(room.peers.values()) for key, room in self.rooms.rooms.items()} == {
            key: peers for key, peers in self.there.items() if peers
        }
        assert self.rooms.peers == {peer.id: peer for peers in self.there.values() for peer in peers}


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_no_id_looks_like_an_option_of_a_command() -> None:
    """One in 64 did, and `sfu kick ROOM ID` asked for the person that it had been given."""
    ids = [new_id() for _ in range(2000)]
    assert len({*ids}) == 2000
    assert not [one for one in ids if one.startswith("-")]
