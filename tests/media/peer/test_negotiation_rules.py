"""Whatever happens in a room, in whatever order, each offer keeps to what the ones before it said (RFC 8829, 8853)."""

from __future__ import annotations

import asyncio
import itertools
import re
import selectors
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.media_client import configure

from sfu import bridge
from sfu.media.rtp import codecs
from sfu.media.worker import Worker

SOURCES = {"microphone": "audio", "camera": "video", "screen": "video", "screen-audio": "audio", "screen-2": "video"}
PEERS = ("page", "bare", "late")
FINGERPRINT = ":".join(["AB"] * 32)
RID, SIMULCAST = "sdes:rtp-stream-id", "a=simulcast:recv q;h;f"
_ssrcs = itertools.count(1000)


class Sleepless(selectors.DefaultSelector):
    """Time that passes when there is nothing else to do."""

    now_s = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        self.now_s += timeout or 0.0
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = Sleepless()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now_s


class Browser:
    """What a client knows of its sections, by what it was offered so far."""

    def __init__(self, *, full: bool) -> None:
        self.full = full
        self.sections: list[tuple[str, bool]] = []  # kind, and whether layers were ever offered in it
        self.offer: bridge.Offer | None = None  # not answered yet
        self.ssrcs: dict[str, int] = {}
        self.sends: set[str] = set()
        self.mids: dict[str, str] = {}  # of what it last answered that it may send, by source

    def take(self, offer: bridge.Offer) -> None:
        assert self.offer is None, "one at a time"
        self.offer = offer
        head, *blocks = re.split(r"\r\n(?=m=)", offer.sdp)
        assert f"a=group:BUNDLE {' '.join(map(str, range(len(blocks))))}" in head
        assert len(blocks) >= len(self.sections), "sections never go away"
        for mid, block in enumerate(blocks):
            lines = block.splitlines()
            assert f"a=mid:{mid}" in lines
            kind = lines[0][2:7]
            layers = SIMULCAST in lines
            assert layers == any(RID in line for line in lines) == ("a=rid:q recv" in lines)
            if mid < len(self.sections):
                assert kind == self.sections[mid][0], "a section keeps its kind"
                assert layers == self.sections[mid][1], "a transceiver keeps its encodings"
            else:
                self.sections.append((kind, layers))
            assert ("a=recvonly" in lines) == (str(mid) in offer.send)
            assert ("a=sendonly" in lines) == (str(mid) in offer.receive)
            assert ("a=ssrc:" in block) == ("a=sendonly" in lines)
            assert "a=recvonly" not in lines or layers == (self.full and kind == "video")
            assert not layers or "a=sendonly" not in lines
        ids = {}
        for number, uri in re.findall(r"a=extmap:(\d+) (\S+)", offer.sdp):
            assert ids.setdefault(number, uri) == uri, "an extension keeps its number"
        assert len({(peer, source) for peer, source in offer.receive.values()}) == len(offer.receive)

    def answer(self) -> str:
        assert self.offer is not None
        lines = ["v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0"]
        for mid, block in enumerate(re.split(r"\r\n(?=m=)", self.offer.sdp)[1:]):
            source, sent = self.offer.send.get(str(mid)), block.splitlines()
            sends = source in self.sends
            direction = "sendonly" if sends else "recvonly" if "a=sendonly" in sent else "inactive"
            lines += [
                sent[0],
                f"a=fingerprint:sha-256 {FINGERPRINT}",
                "a=setup:active",
                f"a=mid:{mid}",
                f"a={direction}",
            ]
            if sends and source is not None and SIMULCAST in sent:
                lines.append("a=simulcast:send q;h;f")
            elif sends and source is not None:
                lines.append(f"a=ssrc:{self.ssrcs.setdefault(source, next(_ssrcs))} cname:x")
        self.mids = {source: mid for mid, source in self.offer.send.items()}
        self.offer = None
        return "\r\n".join(lines) + "\r\n"


class Calls(RuleBasedStateMachine):
    """Three in a room, one of them without layers; their media has no path, and packets come as SSRCs."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()
        self.on_loop(lambda: None)
        self.worker: Worker = self.on_loop(lambda: Worker(configure(answer_s=1e9, ice_s=1e9, max_tracks=5)))
        self.browsers: dict[str, Browser] = {}
        for peer in PEERS[:2]:
            self.join(peer)

    def on_loop(self, work: Callable[[], Any], wait_s: float = 0.0) -> Any:
        async def do() -> Any:
            done = work()
            await asyncio.sleep(wait_s)
            return done

        return self.loop.run_until_complete(do())

    def do(self, command: bridge.Command) -> None:
        self.on_loop(lambda: self.worker.handle(command))

    def teardown(self) -> None:
        self.on_loop(self.worker.close, 1.0)
        self.loop.close()

    peers = st.sampled_from(PEERS)
    sources = st.sampled_from(sorted(SOURCES))

    @rule(peer=peers)
    def join(self, peer: str) -> None:
        if peer not in self.browsers:
            self.browsers[peer] = Browser(full=peer != "bare")
            self.do(bridge.Join(peer, "room", peer != "bare", True, True))

    @precondition(lambda self: len(self.browsers) > 2)
    @rule(peer=peers)
    def leave(self, peer: str) -> None:
        if self.browsers.pop(peer, None) is not None:
            self.do(bridge.Leave(peer))

    @rule(peer=peers, source=sources, settled=st.booleans())
    def start(self, peer: str, source: str, settled: bool) -> None:
        if peer in self.browsers:
            self.browsers[peer].sends.add(source)
            self.do(bridge.Publish(peer, source, SOURCES[source]))  # type: ignore[arg-type]
        if settled:
            self.settle()
            self.flow(peer, "q")

    @rule(peer=peers, source=sources, settled=st.booleans())
    def stop(self, peer: str, source: str, settled: bool) -> None:
        if peer in self.browsers:
            self.browsers[peer].sends.discard(source)
            self.do(bridge.Unpublish(peer, source))
        if settled:
            self.settle()

    @rule(peer=peers, source=sources)
    def again(self, peer: str, source: str) -> None:
        """What chance seldom puts in a row."""
        self.start(peer, source, settled=True)
        self.stop(peer, source, settled=True)
        self.start(peer, source, settled=True)

    @rule(peer=peers, source=sources, another=st.booleans())
    def pause(self, peer: str, source: str, another: bool) -> None:
        """Its next answer does not send this, or sends it as another stream."""
        if peer in self.browsers and another:
            self.browsers[peer].ssrcs.pop(source, None)
        elif peer in self.browsers:
            self.browsers[peer].sends.discard(source)

    @rule(peer=peers, source=sources, muted=st.booleans())
    def mute(self, peer: str, source: str, muted: bool) -> None:
        self.do(bridge.Mute(peer, source, muted))

    @rule(peer=peers)
    def hold(self, peer: str) -> None:
        """Another link; whatever was told to the last one may not have arrived."""
        if peer in self.browsers:
            self.take_offers()
            self.do(bridge.Hold(peer, True))
            browser = self.browsers[peer]
            in_flight, browser.offer = browser.offer, None
            self.do(bridge.Hold(peer, False))
            if in_flight is not None:
                self.take_offers()
                assert browser.offer == in_flight, "it comes again"

    @rule(peer=peers, rid=st.sampled_from(["q", "h", ""]))
    def flow(self, peer: str, rid: str) -> None:
        """A packet of everything that it publishes."""
        if peer in self.browsers:
            publisher = self.worker.peers[peer].publisher
            for publication in list(publisher.published.values()):
                mid = self.browsers[peer].mids[publication.source]
                names = {codecs.MID_ID: mid, codecs.RID_ID: rid} if rid and publication.simulcast else {}
                ssrc = self.browsers[peer].ssrcs.get(publication.source) or next(_ssrcs)
                self.on_loop(lambda k=publication.kind, n=names, s=ssrc: publisher.latch(s, k, n))

    @rule(peer=peers)
    def answer(self, peer: str) -> None:
        self.take_offers()
        browser = self.browsers.get(peer)
        if browser is not None and browser.offer is not None:
            self.do(bridge.Answer(peer, browser.answer()))

    @rule()
    def settle(self) -> None:
        """All answer until nothing is new; then everybody is brought what flows and nothing else."""
        for _ in range(20):
            self.on_loop(lambda: None, 1.0)
            self.take_offers()
            waiting = [peer for peer, browser in self.browsers.items() if browser.offer is not None]
            for peer in waiting:
                self.do(bridge.Answer(peer, self.browsers[peer].answer()))
            if not waiting:
                break
        else:
            raise AssertionError("offers without end")
        flowing = {
            (peer.id, source) for peer in self.worker.peers.values() for source, p in peer.published.items() if p.flows
        }
        for peer in self.worker.peers.values():
            brought = {(p.publisher.id, p.source) for p in peer.negotiation.subscribed}
            assert brought == {track for track in flowing if track[0] != peer.id}

    @invariant()
    def take_offers(self) -> None:
        while not self.worker.outbox.empty():
            event = self.worker.outbox.get_nowait()
            assert not isinstance(event, bridge.Failed), event
            if isinstance(event, bridge.Offer) and event.peer in self.browsers:
                self.browsers[event.peer].take(event)


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
