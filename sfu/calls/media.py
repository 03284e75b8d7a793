"""The media of a session: its peer at the media worker, and the sources that the peer may publish there.

A worker knows a peer from Join to Leave, and answers Leave with Gone. Until then its events are about media that has
ended, and the peer must not join again under the same id.
"""

from __future__ import annotations

from sfu import bridge, errors
from sfu.calls.rooms import Peer
from sfu.protocol.shared import CAMERA, MICROPHONE, Kind
from sfu.settings.config import Config
from sfu.workers.workers import Workers

BOTH: dict[str, Kind] = {MICROPHONE: "audio", CAMERA: "video"}
"""What whoever may publish can always send."""


class Media:
    """`joined`: the worker has the peer. `leaving`: it has yet to forget it. `offered`: the first offer has come."""

    def __init__(self, workers: Workers, config: Config, peer: Peer) -> None:
        self.joined = self.leaving = self.offered = False
        self._workers, self._config, self._peer = workers, config, peer
        self._wanted = False
        self._sources: dict[str, Kind] = {}
        self._candidates = 0

    def command(self, command: bridge.Command) -> None:
        self._workers.send(self._peer.room.worker, command)

    # --- from Join to Gone --------------------------------------------------------------------------------------------

    def begin(self) -> bool:
        """Begins media, or ends its pause. Returns whether it begins now; otherwise `gone` may begin it."""
        self._wanted = True
        if self.joined:
            self.command(bridge.Hold(self._peer.id, False))
        return self._join()

    def gone(self) -> bool:
        """The worker has forgotten the peer. Returns whether media begins anew."""
        self.leaving = False
        return self._join()

    def end(self) -> bool:
        """Ends media; false if there is none."""
        self._wanted = False
        if not self.joined:
            return False
        self.joined, self.leaving, self.offered = False, True, False
        self.command(bridge.Leave(self._peer.id))
        return True

    def _join(self) -> bool:
        if self.joined or self.leaving or not self._wanted:
            return False
        peer, may = self._peer, self._peer.permissions
        self.joined, self._sources, self._candidates = True, dict(BOTH) if may.publish else {}, 0
        peer.muted.clear()
        self.command(bridge.Join(peer.id, peer.room.key, peer.full, may.publish, may.subscribe))
        return True

    def permit(self) -> None:
        """The peer's permissions have changed. What it may not send any more ends; microphone and camera stay muted."""
        may = self._peer.permissions
        if bool(self._sources) != may.publish:
            self._sources = dict(BOTH) if may.publish else {}
            self._peer.muted &= BOTH.keys()
        if self.joined:
            self.command(bridge.Permit(self._peer.id, may.publish, may.subscribe))

    # --- what the client asks for -------------------------------------------------------------------------------------

    def publish(self, source: str, kind: Kind) -> None:
        """Publishes a source. One that is already known is tried again, for example after a camera was plugged in.

        Raises NotAllowed, BadSource or TooManyTracks.
        """
        if not self._peer.permissions.publish:
            raise errors.NotAllowed("You may not send audio or video.")
        if self._sources.get(source, kind) != kind:
            raise errors.BadSource(f"The source {source!r} is {self._sources[source]}.")
        if self._config.limits and source not in self._sources and len(self._sources) >= self._config.max_tracks:
            raise errors.TooManyTracks(f"A peer may publish at most {self._config.max_tracks} tracks.")
        self._sources[source] = kind
        self.command(bridge.Publish(self._peer.id, source, kind))

    def unpublish(self, source: str) -> None:
        """Raises BadSource."""
        self.check(source)
        if source not in (MICROPHONE, CAMERA):  # these two keep their media sections in the offer
            del self._sources[source]
        self.command(bridge.Unpublish(self._peer.id, source))

    def mute(self, source: str, muted: bool) -> None:
        """Raises BadSource."""
        self.check(source)
        self.command(bridge.Mute(self._peer.id, source, muted))

    def sizes(self, source: str, layers: tuple[bridge.LayerSize, ...]) -> None:
        """The client sends these layers of a source. Raises BadSource."""
        self.check(source)
        self.command(bridge.Sizes(self._peer.id, source, layers))

    def check(self, source: str) -> None:
        """Raises BadSource if the source is not published."""
        if source not in self._sources:
            raise errors.BadSource

    def count_candidate(self) -> None:
        """Counts an ICE candidate and ignores it. Raises TooManyCandidates, once.

        The server is ICE-lite (RFC 8445, 2.5) and learns a peer's address from the peer's authenticated checks. If it
        probed the addresses that peers name, it could be used to send packets to third parties.
        """
        self._candidates += 1
        if self._candidates == self._config.max_candidates + 1:
            raise errors.TooManyCandidates(f"A peer may send at most {self._config.max_candidates} candidates.")
