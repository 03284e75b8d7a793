"""People in a call: browser pages, driven and watched from outside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright
from support.process import Server
from support.waiting import eventually

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome-stable")
"""The first draws no windows and their decoration: half the work."""
FAKE_DEVICES = "--use-fake-device-for-media-stream=device-count=3,fps=8"
"""The middle camera is one of depths, which calls cannot send."""
LIGHT = ("--in-process-gpu", "--disable-features=AudioServiceOutOfProcess")
"""Fewer processes draw and mix."""
REFUSED = "--use-fake-ui-for-media-stream=deny"
"""Who asks for camera and microphone is refused."""
HERE = "rooms.test"
"""A name for 127.0.0.1 that browsers know of no reason to trust: without TLS its pages are not a secure context."""

_OPENS_JS = """([height, sound]) => {
    const { mediaDevices } = navigator;
    const real = mediaDevices?.getUserMedia.bind(mediaDevices);
    if (real) mediaDevices.getUserMedia = (asked) => {
        if (asked.video) Object.assign(asked.video, { width: height * 16 / 9, height });
        if (asked.audio) Object.assign(asked.audio, sound);
        return real(asked);
    };
}"""
FILE_BYTES = 100_000
"""The longest file that the server takes."""
LINES = 180
"""Of a camera, unless more are needed: a processor without help encodes few larger ones at a time."""

FRAMES = 4
"""Frames that count as a moving picture: a camera of 8 a second needs half of one for them."""

_FRAMES_JS = """async ([peer, source]) => {
    const video = document.querySelector(`.tile[data-peer="${peer}"][data-source="${source}"] video`);
    if (!video?.videoWidth) return 0;
    const counted = video.getVideoPlaybackQuality().totalVideoFrames;
    if (counted || !navigator.userAgent.includes('Firefox')) return counted;
    // Firefox counts no frames of calls, but tells at the next one how many it presented
    const late = new Promise((done) => setTimeout(done, 500, 0));
    const next = new Promise((done) => video.requestVideoFrameCallback((_, frame) => done(frame.presentedFrames)));
    return Promise.race([late, next]);
}"""
_INBOUND_JS = """async (kind) => {
    const found = [];
    for (const report of (await window.room.pc?.getStats())?.values() ?? []) {
        if (report.type === 'inbound-rtp' && report.kind === kind) found.push(report);
    }
    return found;
}"""

_ENCODES_JS = """async (value) => {
    const sender = window.room.pc.getSenders().find((one) => one.track?.kind === 'video');
    for (let left = 20; ; left--) {
        const parameters = sender.getParameters();
        (%s)(parameters, value, sender);
        try {
            return await RTCRtpSender.prototype.setParameters.call(sender, parameters);
        } catch (error) {
            if (!left || error.name !== 'InvalidStateError') throw error;
        }
    }
}"""
_MEDIA_PORT_JS = """async () => {
    const stats = await window.room.pc.getStats();
    const path = [...stats.values()].find((one) => one.type === 'candidate-pair' && one.nominated);
    const local = path && stats.get(path.localCandidateId);
    return local ? local.relatedPort ?? local.port : 0; // the relay has a port of its own towards the server
}"""
QUIET_JS = "localStorage.setItem('sfu.choices', JSON.stringify({ microphoneOff: true, cameraOff: true }))"
_CAMERA_JS = "window.room.pc.getSenders().find((one) => one.track?.kind === 'video')?.track.label"
_VIEW_JS = """([peer, height]) => {
    delete window.room.view;
    window.room.view(height ? [{ peer, source: 'camera', width: height * 2, height }] : []);
    window.room.view = () => {};
}"""


def camera_script(lines: int = LINES, *, plain: bool = True) -> str:
    """A script before all of a page's: cameras have so many lines, in 16:9. Sound that is not `plain` has its echo and
    noise suppressed, which costs more than the picture, and gives the fake microphone's beeps an end that is heard."""
    sound = {"echoCancellation": False, "noiseSuppression": False} if plain else {}
    return f"({_OPENS_JS})({json.dumps([lines, sound])})"


def launch(playwright: Playwright, *arguments: str, machine: Callable[[str], str] = str) -> Browser:
    """The Chromium this machine has; the test is skipped where there is none. `machine` makes of its executable one
    that runs elsewhere."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    flags = [
        *quiet,
        "--ignore-certificate-errors",  # told per context, a busy browser gives up after some of its connections
        "--use-fake-ui-for-media-stream",
        "--autoplay-policy=no-user-gesture-required",
        f"--host-resolver-rules=MAP {HERE} 127.0.0.1",
    ]
    return playwright.chromium.launch(executable_path=machine(found), args=[*flags, *LIGHT, *arguments])


class Person:
    """One page in a browser profile of its own. `problems` are errors that no code of the page expected."""

    def __init__(self, context: BrowserContext, server: Server, name: str) -> None:
        self.name = name
        self.context = context
        self.page: Page = context.new_page()
        self.room = ""
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self._server = server

    def join(self, room: str, host: str = "127.0.0.1", port: int = 0) -> Person:
        """Opens a link that leads straight into the room; another `port` is that of a relay."""
        self.room = room
        address = f"{self._server.scheme}://{host}:{port or self._server.port}"
        self.page.goto(f"{address}/?room={room}&username={self.name}")
        eventually(lambda: self.peer, f"{self.name} is in {room}")
        return self

    @property
    def peer(self) -> str | None:
        """The id the server knows this page by, while it is in a room."""
        found: str | None = self.page.evaluate("window.room?.state === 'joined' ? window.room.self : null")
        return found

    @property
    def trouble(self) -> str | None:
        """What the page is repairing."""
        found: str | None = self.page.evaluate("window.room.trouble")
        return found

    def has_come_back(self, old: str | None) -> bool:
        """Whether this page is in the room, as another peer than before."""
        return self.peer not in (None, old)

    def tile(self, other: Person) -> str:
        """A selector for the other's tile on this page."""
        return f'.tile[data-peer="{other.peer}"][data-source="camera"]'

    def others(self) -> list[str]:
        """Names of whom this page shows, without itself."""
        return [text.strip() for text in self.page.locator(".tile:not(.is-self) .plate").all_inner_texts()]

    def inbound(self, kind: str) -> list[dict[str, Any]]:
        """The WebRTC statistics of what arrives, one a track (W3C webrtc-stats, RTCInboundRtpStreamStats)."""
        found: list[dict[str, Any]] = self.page.evaluate(_INBOUND_JS, kind)
        return found

    @property
    def media_port(self) -> int:
        """The UDP port that its media leaves from."""
        found: int = eventually(lambda: self.page.evaluate(_MEDIA_PORT_JS), f"{self.name} has a media path")
        return found

    def shows(self, other: Person, height: int) -> None:
        """Its page says so to the server, and nothing else from then on: its own tiles have other sizes."""
        self.page.evaluate(_VIEW_JS, [other.peer, height])

    def encodes(self, change: str, value: str) -> None:
        """Its camera is sent otherwise: `change` is a function of the sender's parameters and `value`. The page changes
        them as well, and while it does, nobody else can."""
        self.page.evaluate(_ENCODES_JS % change, value)

    def keeps_sizes(self) -> None:
        """Its browser sends fewer frames, and no smaller ones, while it takes the processor for too slow."""
        self.encodes("(parameters, value) => { parameters.degradationPreference = value; }", "maintain-resolution")

    def sees(self, other: Person, source: str = "camera") -> None:
        """Waits until the other's picture moves."""
        self.moves(lambda: self.frames(other.peer, source), f"sees {other.name}'s {source}")

    def frames(self, peer: str | None, source: str = "camera") -> int:
        """How many frames of a peer's camera or screen this page has shown."""
        found: int = self.page.evaluate(_FRAMES_JS, [peer, source])
        return found

    def hears(self) -> None:
        """Waits until there is sound in what arrives. The fake microphone beeps once a second."""
        energy = [0.0]

        def louder() -> bool:
            energy.append(sum(report.get("totalAudioEnergy", 0) for report in self.inbound("audio")))
            return energy[-1] > energy[-2] > 0

        eventually(louder, f"{self.name} hears sound")

    def chooses(self, camera: int) -> None:
        """Takes another camera, in the settings."""
        self.page.keyboard.press(",")
        choice = self.page.locator("#settings-camera")
        choice.select_option(index=camera)
        label = choice.locator("option").nth(camera).inner_text()
        eventually(lambda: self.page.evaluate(_CAMERA_JS) == label, f"{self.name} sends {label}")
        self.page.keyboard.press("Escape")

    def moves(self, count: Callable[[], int], what: str) -> None:
        """Waits until a count of frames is there and grows."""
        first = eventually(count, f"{self.name} {what} at all")
        eventually(lambda: count() >= first + FRAMES, f"{self.name} {what} move")


class People:
    """Makes people for a test, or for several."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.here: list[Person] = []

    def __call__(
        self, server: Server, name: str, *, on: Browser | None = None, lines: int = LINES, quiet: bool = False
    ) -> Person:
        """`on` is another browser, `lines` are the camera's; who is `quiet` has camera and microphone turned off."""
        context = (on or self._browser).new_context(permissions=["camera", "microphone"])
        if isinstance(context, BrowserContext):
            context.add_init_script(camera_script(lines))
        person = Person(context, server, name)
        if not isinstance(context, BrowserContext):  # our driver of Firefox gives scripts to pages only
            person.page.add_init_script(camera_script(lines))
        if quiet:
            person.page.add_init_script(QUIET_JS)
        self.here.append(person)
        return person

    def go(self) -> None:
        """All of them; none may have met an error."""
        people, self.here = self.here, []
        for one in people:
            one.context.close()
        problems = [f"{one.name}: {problem}" for one in people for problem in one.problems]
        assert not problems, problems


def in_call(*people: Person) -> None:
    """Waits until each of them sees all others and hears somebody."""
    for one in people:
        for other in people:
            if other is not one:
                one.sees(other)
        one.hears()
