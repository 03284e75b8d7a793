"""What a peer publishes from one source: a single RTP stream, the layers of a simulcast, or a stream with layers in
it (svc.py). Each subscriber gets one layer at a time, all under one SSRC.

Each layer is an RTP stream of its own (rtp_stream.py). A down track switches to another layer at a keyframe of that
layer, and its sequence numbers, timestamps and picture ids continue as if it were one stream (down_track.py).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import attrgetter
from typing import Literal, NamedTuple

from sfu import bridge
from sfu.media.bandwidth.allocation import Layer, Step
from sfu.media.bandwidth.lastn import Video
from sfu.media.peer import sdp
from sfu.media.streams.down_track import DownTrack
from sfu.media.streams.fanout import SendBuffers
from sfu.media.streams.redundant import RedundantStream
from sfu.media.streams.rtp_stream import RtpStream
from sfu.media.streams.svc import ScalableStream
from sfu.media.transport.transport import Transport

CAMERA = {"q": (180, 150e3), "h": (360, 500e3), "f": (720, 2500e3)}
"""Simulcast layers of a camera by rid: height and maximum bitrate, where the client does not tell them."""
LINES = 720
"""Height of a stream with spatial layers that do not tell their sizes; each layer has half the height of the next."""
SCREEN = {"q": (540, 250e3), "h": (1080, 800e3), "f": (1080, 2500e3)}
"""Likewise for a shared screen. Text at half its size is hard to read, so the middle layer has the full height and a
low frame rate."""
SILENT_S = 1.0
"""A layer without packets for this long, while another one has some, is not being sent."""
START_S = 2.0
"""How long a publisher takes at most to start a layer."""
STARVED = 0.5
"""A layer that has less than this share of its maximum bitrate would better be a smaller one."""
LOSSY = 0.03
"""Unless its uplink loses more than this: an encoder that changes layers there needs keyframes, which get lost, too."""
RELEASE_S = 4.0
"""How long nobody must want a layer before the publisher is told to stop it."""
MEAN_S, PEAK_S = 3.0, 0.5
"""Time constants of smoothing: of a layer's bitrate, and of the one whose maximum counts."""
FORGET_S = 20.0
"""After this long of being sent, the highest bitrate of a layer counts for half."""
SHARES = {1: (1.0,), 2: (0.6, 1.0), 3: (0.4, 0.6, 1.0), 4: (0.25, 0.4, 0.6, 1.0)}
"""Share of a layer's bitrate up to each temporal layer, by their number, as libwebrtc divides it."""
SHARES_S, SHARES_WEIGHT = 1.0, 0.2
"""How often the real shares are looked at, and their weight: a keyframe changes those of one second much."""
RISE_S, TOGETHER_S = 2.0, 0.3
"""Subscribers on narrow downlinks have a keyframe requested to get more at most once in RISE_S, those who want it
within TOGETHER_S of the first one included: a keyframe is one of all layers, so every subscriber has to bear it."""

_lower = attrgetter("lower")


class _Rate:
    """Bitrate of a layer's stream, smoothed, and its recent maximum; and the share that its uplink loses, smoothed."""

    __slots__ = ("_at_s", "_bytes", "_flowed_s", "_lost", "_packets", "_peak_bps", "bps", "loss", "most_bps")

    def __init__(self) -> None:
        self.bps = self.most_bps = self._peak_bps = 0.0
        self._at_s = self._flowed_s = self.loss = 0.0
        self._bytes = self._lost = self._packets = 0

    def update(self, stream: RtpStream, now_s: float) -> None:
        passed_s, total_bytes = now_s - self._at_s, stream.bytes
        packets, lost = stream.packets - self._packets, stream.reception.lost - self._lost
        self._packets, self._lost = stream.packets, stream.reception.lost
        if packets > 0:
            self.loss += (max(0, lost) / (packets + max(0, lost)) - self.loss) * min(1.0, passed_s / MEAN_S)
        if self._at_s and passed_s > 0:
            bps = (total_bytes - self._bytes) * 8 / passed_s
            begins = not self.bps
            self.bps += (bps - self.bps) * (1.0 if begins else min(1.0, passed_s / MEAN_S))
            self._peak_bps += (bps - self._peak_bps) * (1.0 if begins else min(1.0, passed_s / PEAK_S))
            if bps:
                self._flowed_s = now_s
                self.most_bps = max(self._peak_bps, self.most_bps * 0.5 ** (passed_s / FORGET_S))
            elif now_s - self._flowed_s > SILENT_S:
                self.bps = self._peak_bps = 0.0  # what it had before says nothing about its next beginning
        self._at_s, self._bytes = now_s, total_bytes


class LayerOptions(NamedTuple):
    """The layers that a subscriber can have of a publication at one moment, the smallest first. `most_bps[i]` is the
    highest bitrate among layers 0 to i. `shape` is the same object as long as only bitrates change."""

    layers: Sequence[Layer]
    most_bps: Sequence[float]
    shape: object


class Publication:
    """Owned by its publisher; ends with its section or its peer. `rids` are the layers of a simulcast, the smallest
    first; none means a single stream. `redundant`: its audio is sent as RED."""

    def __init__(
        self,
        publisher: Transport,
        source: str,
        kind: Literal["audio", "video"],
        send_buffers: SendBuffers,
        rids: Sequence[str] = (),
        *,
        redundant: bool = False,
    ) -> None:
        self.publisher, self.source, self.kind = publisher, source, kind
        self.video = Video(publisher.id, source)
        self._usual = SCREEN if source.startswith("screen") else CAMERA
        self.opus, self.redundant = sdp.Opus(), redundant
        self.ssrc = secrets.randbelow(0xFFFFFFFE) + 1
        make = RedundantStream if redundant else ScalableStream if kind == "video" else RtpStream
        self.streams = {rid: make(publisher, source, kind, send_buffers, self.ssrc) for rid in rids or ("",)}
        self.received = list(self.streams.values())  # the streams that the publisher sends
        self.simulcast = len(self.received) > 1
        self._rids = {stream: rid for rid, stream in self.streams.items()}
        self.down_tracks: dict[str, DownTrack[RtpStream]] = {}  # by subscribing peer's id, on one of the layers
        self.asked: tuple[str, ...] = tuple(rids[:1])  # the layers that the publisher was last told to send
        self._asked_s: dict[str, float] = {}  # since when, by rid
        self._asked_last = self.asked  # the last `asked` that was not empty
        self._rates: dict[RtpStream, _Rate] = {}
        self._offer, self._offered_s = LayerOptions((), (), None), float("-inf")
        self._shaped: tuple[object, ...] = ()  # what the shape of the last offer stands for
        self._told: dict[str, bridge.LayerSize] = {}  # by rid, what the client says that it sends; empty: nothing
        self._wanted: dict[str, Step] = {}  # what each subscriber is to have
        self._shares: dict[RtpStream, tuple[float, ...]] = {}
        self._shared_s = float("-inf")  # when `_shares` was last brought up to date
        self._rose_s = float("-inf")  # when a narrow subscriber last had a keyframe requested
        self._wanted_s = dict.fromkeys(self.streams, float("-inf"))  # when anybody last wanted it

    @property
    def scalable(self) -> bool:
        """Whether one of its streams has spatial layers now."""
        return any(map(_lower, self.received))

    @property
    def layers(self) -> dict[str, RtpStream]:
        """The streams that a subscriber can be on, by name, the smallest first. A stream's name is its rid; a part
        without the larger spatial layers is named by the rid and its highest layer."""
        if not self.scalable:
            return self.streams
        found: dict[str, RtpStream] = {}
        for rid, stream in self.streams.items():
            found.update((f"{rid}{spatial}", lower) for spatial, lower in enumerate(stream.lower))
            found[rid] = stream
        return found

    @property
    def layer_streams(self) -> list[RtpStream]:
        return list(self.layers.values())

    @property
    def muted(self) -> bool:
        return self.received[0].muted

    @property
    def flows(self) -> bool:
        """Whether any packet of it has ever come; before that, nobody is told that there is such a source."""
        return any(stream.remote_ssrc is not None for stream in self.received)

    @property
    def packets(self) -> int:
        return sum(stream.packets for stream in self.received)

    @property
    def bytes(self) -> int:
        return sum(stream.bytes for stream in self.received)

    # --- subscribers -------------------------------------------------------------------------------------------------

    def add_down_track(self, peer: Transport, pause: str = "") -> None:
        """Adds a down track for a peer whose answer accepted this; with a reason to `pause`, it waits for `resume`. It
        begins with the smallest layer that flows, so that a picture appears at once."""
        if peer.id not in self.down_tracks:
            flowing = [stream for stream in self.layer_streams if stream.whole.remote_ssrc is not None]
            stream = (flowing or self.layer_streams)[0].for_subscriber(peer)
            stream.add_down_track(peer, pause)
            self.down_tracks[peer.id] = stream.down_tracks[peer.id]

    def remove_down_track(self, peer: Transport) -> None:
        down_track = self.down_tracks.pop(peer.id, None)
        self._wanted.pop(peer.id, None)
        if down_track is not None:
            down_track.stream.remove_down_track(peer)
            for stream in self.layer_streams:
                stream.forget(peer.id)

    def prefer(self, subscriber: str, step: Step, *, now: bool) -> None:
        """Sets what a subscriber is to have. It gets the present layer until a keyframe of the new one comes; with
        `now` it gets nothing until then, because the present one is too much for it. Moving down within one stream
        needs no keyframe, nor does a change of temporal layers alone."""
        down_track = self.down_tracks[subscriber]
        wanted = self.layers[step.rid]
        before = self._wanted.get(subscriber)
        self._wanted[subscriber] = step
        if before is None or before.rid != step.rid:
            for stream in self.layer_streams:
                stream.forget(subscriber)
        if down_track.stream is not wanted:
            if (now or down_track.pauses) and down_track.stream.whole is not wanted.whole:
                wanted.forget(subscriber)
                down_track.stream.switch(subscriber, wanted)
            elif not wanted.expects(subscriber):
                wanted.expect(down_track)
        if down_track.stream is wanted or self.falls(subscriber, step.rid):
            down_track.temporal = step.temporal  # on its way up it keeps the pictures that it has

    def step_of(self, subscriber: str) -> Step:
        """The step that a subscriber is to have, or else the present one."""
        wanted, layers = self._wanted.get(subscriber), self.layers
        if wanted is not None and wanted.rid in layers:
            return wanted
        down_track = self.down_tracks[subscriber]
        rid = next(rid for rid, stream in layers.items() if stream is down_track.stream)
        return Step(rid, down_track.temporal)

    def needs_keyframe(self, subscriber: str, step: Step) -> bool:
        """Whether a keyframe would have to be requested for a subscriber to get this step, which is more than what it
        has or is to have."""
        before, names = self.step_of(subscriber).rid, list(self.layers)
        return bool(self.down_tracks[subscriber].pauses) or names.index(step.rid) > names.index(before)

    def may_rise(self, now_s: float) -> bool:
        """Whether a keyframe may be requested for a subscriber on a narrow downlink, only because it can have more."""
        if now_s - self._rose_s >= RISE_S:
            self._rose_s = now_s
        return now_s - self._rose_s <= TOGETHER_S

    def falls(self, subscriber: str, rid: str) -> bool:
        """Whether this layer is smaller than the one a subscriber gets."""
        layer, now = self.layers[rid], self.down_tracks[subscriber].stream
        return self.layer_streams.index(layer) < self.layer_streams.index(now)

    def paused(self, subscriber: str) -> str:
        """A reason why a subscriber is paused, empty if there is none."""
        down_track = self.down_tracks.get(subscriber)
        return min(down_track.pauses, default="") if down_track is not None else ""

    def pause(self, subscriber: str, reason: str) -> None:
        self.down_tracks[subscriber].stream.pause(subscriber, reason)

    def resume(self, subscriber: str, reason: str) -> None:
        self.down_tracks[subscriber].stream.resume(subscriber, reason)

    def set_plain(self, subscriber: str, plain: bool) -> None:
        """Gives a subscriber sound without redundancy, or with it if it supports that."""
        for stream in self.received:
            if isinstance(stream, RedundantStream):
                stream.set_plain(subscriber, plain)

    def request_keyframe(self, subscriber: str) -> None:
        if (down_track := self.down_tracks.get(subscriber)) is not None:
            down_track.stream.request_keyframe()

    def retransmit(self, subscriber: str, seqs: Iterable[int], now_s: float) -> None:
        if (down_track := self.down_tracks.get(subscriber)) is not None:
            down_track.stream.retransmit(subscriber, seqs, now_s)

    def down_tracks_changed(self) -> None:
        for stream in self.layer_streams:
            stream.down_tracks_changed()

    # --- the publisher's side ----------------------------------------------------------------------------------------

    def set_muted(self, muted: bool, reason: str = "") -> None:
        for stream in self.received:
            stream.set_muted(muted, reason)

    def take_level(self) -> float | None:
        return self.received[0].take_level()

    def tell_sizes(self, sizes: Sequence[bridge.LayerSize]) -> None:
        """Takes which of its layers the client sends from now on, and how large; none: it does not tell."""
        self._told = {size.rid: size for size in sizes if size.rid in self.streams}

    def measure(self, now_s: float) -> None:
        """Called periodically: updates the bitrate of each layer."""
        streams = self.layer_streams
        if list(self._rates) != streams:
            self._rates = {stream: self._rates.get(stream) or _Rate() for stream in streams}
        for stream, rate in self._rates.items():
            rate.update(stream, now_s)

    def offered(self, now_s: float) -> LayerOptions:
        """The layers that a subscriber can have; computed once per moment for all of them."""
        if now_s != self._offered_s:
            named = self._heard(now_s)
            layers = [self._layer(name, stream, now_s) for name, stream in named]
            shaped = (*named, *[layer.height for layer in layers], self.muted)
            shape = self._offer.shape if shaped == self._shaped else object()
            most_bps = list(accumulate([layer.bps for layer in layers], max))
            self._offer, self._shaped, self._offered_s = LayerOptions(layers, most_bps, shape), shaped, now_s
        return self._offer

    def shares(self, now_s: float) -> list[Sequence[float]]:
        """For each layer of the last offer, the smoothed share of its bitrate up to each temporal layer. An encoder
        gives all simulcast layers as many temporal layers. Empty for a screen, which has few pictures as it is."""
        if self._usual is SCREEN:
            return []
        named = self.layers
        if now_s - self._shared_s >= SHARES_S:
            self._shared_s = now_s
            found = {stream: stream.temporal_shares for stream in named.values()}
            count = max(map(len, found.values()))
            self._shares = {stream: self._smoothed(stream, new, count) for stream, new in found.items()}
        return [self._shares.get(named[layer.rid], SHARES[1]) for layer in self._offer.layers]

    def _smoothed(self, stream: RtpStream, new: tuple[float, ...], count: int) -> tuple[float, ...]:
        old = self._shares.get(stream, ())
        if len(old) != count:
            old = SHARES[count]
        if len(new) != count:  # nothing of it has come lately
            return old
        return tuple([a + (b - a) * SHARES_WEIGHT for a, b in zip(old, new, strict=True)])

    def _heard(self, now_s: float) -> list[tuple[str, RtpStream]]:
        """The layers by name, without those that the client does not send, or that should be flowing but have gone
        silent."""
        told = self._told if self.simulcast else None
        named = [(name, stream) for name, stream in self.layers.items() if not told or self._rids[stream.whole] in told]
        if not self.simulcast:
            return named
        newest_s, scalable = max([stream.last_s for stream in self.received]), self.scalable
        found = []
        for name, stream in named:
            if newest_s - stream.whole.last_s > SILENT_S:
                rid = self._rids[stream.whole]
                if scalable or (rid in self.asked and now_s - self._asked_s.get(rid, now_s) > START_S):
                    continue
            found.append((name, stream))
        return found

    def _layer(self, name: str, stream: RtpStream, now_s: float) -> Layer:
        rid, rate = self._rids[stream.whole], self._rates.get(stream) or _Rate()
        width, height = self._size(rid, stream)
        return Layer(name, height, self._rate_bps(rid, stream, rate, now_s), rate.most_bps, width)

    def _size(self, rid: str, stream: RtpStream) -> tuple[int, int]:
        """Width and height, 0 if unknown. The width of a screen does not matter, as pages show all of it."""
        whole = self.streams[rid]
        if isinstance(whole, ScalableStream) and whole.lower:
            return 0, whole.height(stream, LINES)
        if (told := self._told.get(rid)) is not None:
            return (0 if self._usual is SCREEN else told.width), told.height
        return 0, self._usual[rid][0] if self.simulcast else 0

    def _rate_bps(self, rid: str, stream: RtpStream, rate: _Rate, now_s: float) -> float:
        if now_s - stream.whole.last_s < SILENT_S or not self.simulcast:
            return rate.bps
        told = self._told.get(rid)
        return rate.most_bps or (self._usual[rid][1] if told is None else float(told.max_bps))

    def ask(self, now_s: float) -> bool:
        """Updates `asked`, the layers that a subscriber is to have, or was until recently. True if that changed. Before
        the first packet nobody can want a layer, and without the first layer there would be no packet."""
        if not self.flows:
            return False
        before, self.asked = self.asked, self._wanted_now(now_s)
        if self.scalable and self.asked:  # switching one encoding on or off would change another one's layers
            self.asked = self._asked_last
        self._asked_last = self.asked or self._asked_last
        if tuple(self._asked_s) != self.asked:
            self._asked_s = {rid: self._asked_s.get(rid, now_s) for rid in self.asked}
        return self.asked != before

    def _wanted_now(self, now_s: float) -> tuple[str, ...]:
        layers, rids = self.layers, self._rids
        for subscriber, down_track in self.down_tracks.items():
            if not down_track.pauses:
                self._wanted_s[rids[down_track.stream.whole]] = now_s
                if (wanted := self._wanted.get(subscriber)) is not None and wanted.rid in layers:
                    self._wanted_s[rids[layers[wanted.rid].whole]] = now_s
        for rid in self._below_starved(now_s):
            self._wanted_s[rid] = now_s
        return tuple(rid for rid, last_s in self._wanted_s.items() if now_s - last_s <= RELEASE_S)

    def _below_starved(self, now_s: float) -> list[str]:
        """The layers below the largest one that is wanted, if that gets so little that the uplink must be narrow: they
        stay on, so that the encoder can fall to them."""
        told = [rid for rid in self.streams if rid in self._told]
        wanted = [rid for rid in told if now_s - self._wanted_s[rid] <= RELEASE_S]
        if not wanted or self._usual is SCREEN:
            return []
        rate, most_bps = self._rates.get(self.streams[wanted[-1]]), self._told[wanted[-1]].max_bps
        starved = rate is not None and rate.bps < STARVED * most_bps and rate.loss < LOSSY
        return told[: told.index(wanted[-1])] if starved else []

    def close(self) -> None:
        self.down_tracks.clear()
        for stream in self.layer_streams:
            stream.close()
