"""Pictures of the page's states, for eyes: `python -m tests.e2e.shoot [names]` makes tests/e2e/screens/*.png and
docs/call.png anew, all of them or those whose names contain one of the words between commas.

The people in them are real peers with drawn faces (crowd.py); so is the camera of whoever looks.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from crowd import DRAW_JS, NAMES, Crowd  # noqa: E402
from people import FAKE_DEVICES, launch  # noqa: E402
from people import HERE as INSECURE_HOST  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402
from support.process import Server  # noqa: E402
from support.waiting import eventually  # noqa: E402

SCREENS = HERE / "screens"
DOCS = HERE.parents[1] / "docs"
WINDOWS = {
    "": {"width": 1280, "height": 800},
    "portrait": {"width": 390, "height": 844},
    "landscape": {"width": 844, "height": 390},
    "large": {"width": 1440, "height": 900},
}
_CAMERA_JS = (
    DRAW_JS
    + """
const real = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
if (real) navigator.mediaDevices.getUserMedia = async (asked) => {
    const stream = await real(asked);
    for (const track of stream.getVideoTracks()) {
        track.stop();
        stream.removeTrack(track);
        const drawn = window.draw('Sofia Marin', 1280, 720, 10).getVideoTracks()[0];
        drawn.getSettings = () => ({ ...track.getSettings(), height: 720, frameRate: 30 });
        stream.addTrack(drawn);
    }
    return stream;
};
if (navigator.mediaDevices?.getDisplayMedia) navigator.mediaDevices.getDisplayMedia = async () => window.sheet();
"""
)
_BUSY_JS = """
const free = navigator.mediaDevices.getUserMedia;
navigator.mediaDevices.getUserMedia = async (asked) => {
    if (asked.video) throw new DOMException('Could not start video source', 'NotReadableError');
    return free(asked);
};
"""
_REFUSED_JS = """
navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('Permission denied', 'NotAllowedError'); };
"""
_HELD_JS = """
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = async function () {
    if (!this.muted) throw new DOMException('The user did not interact with the document first.', 'NotAllowedError');
    return play.call(this);
};
"""
_BYE = '{"event": "bye", "data": {"code": "%s", "message": "", "rejoin": false}}'
COLOURS = 256  # of a picture; more would not be seen


@dataclass
class Shot:
    """One picture. `people` are others in the room; `act` brings the page into the state."""

    name: str
    people: int = -1  # -1: before the call
    act: Callable[[Page], Any] = lambda page: None
    window: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    path: str = ""  # instead of a link into the room
    script: str = ""  # what the browser does otherwise
    crowd: dict[str, Any] = field(default_factory=dict)  # who else: see Crowd.join
    scene: Callable[[Studio, Page], Any] = lambda studio, page: None  # what the others do before `act`
    height: int = 180  # of the others' pictures
    folder: Path = SCREENS


def press(*keys: str) -> Callable[[Page], None]:
    def act(page: Page) -> None:
        for key in keys:
            page.keyboard.press(key)

    return act


def click(selector: str) -> Callable[[Page], None]:
    return lambda page: page.click(selector)


def talk(studio: Studio, page: Page) -> None:
    """A few lines and a file, the last lines after the chat was closed."""
    said = [("Amira Haddad", "Morning. The plan for release 4 is ready: https://plan.example.org/release-4")]
    said += [("Amira Haddad", "I moved the relay work one week later, see the red row.")]
    said += [("Jonas Lindqvist", "Good. Can we keep the load test in the same week?")]
    late = [("Mei Tanaka", "Both are free from Wednesday."), ("Mei Tanaka", "I will book them now.")]
    page.evaluate("async () => (await import('/app/page.js')).page.actions.panel('chat')")
    page.locator("#chat-input").wait_for()
    if "load test" not in page.locator("#chat-log").inner_text():
        for one in said:
            studio.crowd.page.evaluate(_SAY_JS, one)
            page.get_by_text(one[1][:20]).first.wait_for()
        page.fill("#chat-input", "Yes, if the two spare machines are free. Notes from the last run:")
        page.press("#chat-input", "Enter")
        notes: Any = {"name": "load-test-2026-11-20.pdf", "mimeType": "application/pdf", "buffer": bytes(214_000)}
        page.set_input_files("#chat-files", files=[notes])
        page.locator("a.filecard").wait_for()
        page.keyboard.press("Escape")
        for one in late:
            studio.crowd.page.evaluate(_SAY_JS, one)
        page.wait_for_timeout(300)
        page.evaluate("async () => (await import('/app/page.js')).page.actions.panel('chat')")


def hands(studio: Studio, page: Page) -> None:
    for name in ("Priya Raman", "Kofi Mensah"):
        studio.crowd.page.evaluate("(name) => window.crowd.get(name).send('hand', { raised: true })", name)


def knock(studio: Studio, page: Page) -> None:
    hands(studio, page)
    page.evaluate("room.send('room', { locked: null, lobby: true })")
    page.wait_for_timeout(300)
    studio.crowd.knock(studio.name, ["Sam Whitfield", "Diego Fuentes"])


def menu(page: Page) -> None:
    page.keyboard.press("p")
    page.locator(".person .icon-btn:not(.is-gone)").nth(1).click()


def invite(page: Page) -> None:
    page.evaluate("async () => (await import('/app/page.js')).page.actions.invite()")


PHONE = {"has_touch": True, "is_mobile": True}
HOST = {"permissions": {"moderate": True}}
LIGHT = {"color_scheme": "light"}
SHARED = {"screen": True}
SHOTS = [
    Shot("join", path="/?room=Design review"),
    Shot("join-light", path="/?room=Design review", options=LIGHT),
    Shot("join-portrait", path="/?room=Design review", window="portrait", options=PHONE),
    Shot("join-landscape", path="/?room=Design review", window="landscape", options=PHONE),
    Shot("join-ar", path="/?room=Design review", options={"locale": "ar"}),
    Shot("join-refused", path="/?room=Design review", script=_REFUSED_JS),
    Shot("join-insecure", path="insecure"),
    Shot("join-busy", path="/?room=Design review", script=_BUSY_JS),
    Shot("end-token", path="/?token=broken"),
    Shot("end-full", path="bye room_full"),
    Shot("end-removed", path="bye removed"),
    Shot("end-removed-portrait", path="bye removed", window="portrait", options=PHONE | LIGHT),
    Shot("end-unreachable", path="unreachable", window="portrait", options=PHONE),
    Shot("call", people=4, window="large", height=720, folder=DOCS),  # the one in the README
    Shot("call-1", people=0),
    Shot("call-1-portrait", people=0, window="portrait", options=PHONE),
    Shot("call-1-landscape", people=0, window="landscape", options=PHONE),
    Shot("call-2", people=1),
    Shot("call-2-portrait", people=1, window="portrait", options=PHONE),
    Shot("call-5", people=4),
    Shot("call-5-light", people=4, options=LIGHT),
    Shot("call-5-portrait", people=4, window="portrait", options=PHONE),
    Shot("call-5-landscape", people=4, window="landscape", options=PHONE),
    Shot("call-5-focus", people=4, act=lambda page: page.locator(".tile").nth(1).hover()),
    Shot("settings", people=4, act=press(",")),
    Shot("settings-portrait", people=4, act=lambda page: page.evaluate(_SETTINGS_JS), window="portrait", options=PHONE),
    Shot("more", people=4, act=click("#more-button")),
    Shot("more-portrait", people=4, act=click("#more-button"), window="portrait", options=PHONE),
    Shot("reactions", people=4, act=press("r")),
    Shot("shortcuts", people=4, act=press("?")),
    Shot("toasts", people=4, act=lambda page: page.evaluate(_TOASTS_JS)),
    Shot("chat", people=4, scene=talk),
    Shot("chat-light", people=4, scene=talk, options=LIGHT),
    Shot("chat-portrait", people=4, scene=talk, window="portrait", options=PHONE),
    Shot("chat-landscape", people=4, scene=talk, window="landscape", options=PHONE),
    Shot("chat-ar", people=4, scene=talk, options={"locale": "ar"}),
    Shot("stats", people=4, act=lambda page: [page.keyboard.press("i"), page.wait_for_timeout(9000)]),
    Shot("invite", people=4, act=invite),
    Shot("invite-portrait", people=4, act=invite, window="portrait", options=PHONE | LIGHT),
    Shot("share", people=3, crowd=SHARED),
    Shot("share-portrait", people=3, crowd=SHARED, window="portrait", options=PHONE),
    Shot("share-landscape", people=3, crowd=SHARED, window="landscape", options=PHONE),
    Shot("people", people=11, scene=hands, act=menu),
    Shot("call-12", people=11),
    Shot("call-12-ar", people=11, options={"locale": "ar"}),
    Shot("speaker", people=11, act=press("g")),
    Shot("lobby", people=11, scene=knock, act=press("p")),
    Shot("lobby-portrait", people=11, act=click("#more-button"), window="portrait", options=PHONE),
    Shot("sound-held", people=4, script=_HELD_JS),
    Shot("sound-held-portrait", people=4, script=_HELD_JS, window="portrait", options=PHONE),
    Shot("media-blocked", path="blocked"),
    Shot("media-blocked-portrait", path="blocked", window="portrait", options=PHONE),
    Shot("call-25", people=24),
    Shot("call-25-portrait", people=24, window="portrait", options=PHONE),
    Shot("reconnecting", people=3),  # the last: the server is stopped for it
]
_REST_JS = "async () => void (await (await import('/app/page.js')).page.actions.later())"
_SAY_JS = "([name, text]) => window.crowd.get(name).chat(text)"
_SETTINGS_JS = "async () => (await import('/app/page.js')).page.actions.settings()"
_TOASTS_JS = """async () => {
    const { toast } = await import('/ui/toasts.js');
    const { t } = await import('/i18n/texts.js');
    const unmute = { label: t('key.unmute'), then() {} };
    toast('asked', t('hint.asked', { name: 'Amira Haddad' }), { icon: 'microphone-off', ask: true, action: unmute });
    toast('now', t('device.now.microphone', { label: 'Built-in microphone' }), { icon: 'microphone' });
    toast('copy', t('link.copied'), { icon: 'check' });
}"""


class Studio:
    """A server, a browser and whoever is in the room; the room is filled only as far as the next picture needs."""

    def __init__(self, browser: Browser, server: Server) -> None:
        self.browser, self.server = browser, server
        self.crowd = Crowd(browser, server)
        self._inside: tuple[int, str] = (0, "")
        self._rooms = 0

    def room(self, shot: Shot) -> str:
        """A room with the people of the picture in it, the last one if it is the same company."""
        wanted = (shot.people, f"{shot.crowd} {shot.height}")
        if self._inside != wanted or not self._rooms:
            self.crowd.leave()
            self._rooms += 1
            names = NAMES[: shot.people]
            off = (5, 9, 15, 20)
            if names:
                sharing = [name for name in names[-1:] if shot.crowd]
                quiet = [name for name in names[1:] if name not in sharing]
                self.crowd.join(self.name, names[:1], sound=True, height=shot.height)
                if quiet:
                    self.crowd.join(self.name, quiet, no_camera=off, height=shot.height)
                if sharing:
                    self.crowd.join(self.name, sharing, **shot.crowd)
            self._inside = wanted
        return self.name

    @cached_property
    def walled(self) -> Server:
        """A server whose media address nobody listens at."""
        return Server(public_ip="127.0.0.2", ice_s="2").start()

    def close(self) -> None:
        if "walled" in vars(self):
            self.walled.close()

    @property
    def name(self) -> str:
        return "Design review" if self._rooms == 1 else f"Design review {self._rooms}"

    @contextmanager
    def page(self, shot: Shot) -> Iterator[Page]:
        usual = {"permissions": ["camera", "microphone"], "color_scheme": "dark", "reduced_motion": "reduce"}
        context = self.browser.new_context(**usual | {"viewport": WINDOWS[shot.window], "locale": "en"} | shot.options)
        context.add_init_script(_CAMERA_JS)
        context.add_init_script(shot.script)
        try:
            yield context.new_page()
        finally:
            for one in context.pages:
                one.evaluate("window.room?.leave()")  # whoever only goes is in the next picture for seconds
            context.close()

    def shoot(self, shot: Shot) -> None:
        with self.page(shot) as page:
            if shot.people >= 0:
                page.goto(
                    f"{self.server.url}/?token={self.crowd.token(self.room(shot), 'Sofia Marin', **HOST)}&preview=off"
                )
                eventually(lambda: page.evaluate("window.room?.connected"), shot.name, 40)
                on = shot.people - len([index for index in (5, 9, 15, 20) if index < shot.people - 1])
                eventually(lambda: page.locator(".tile.has-picture").count() >= min(on, 8), shot.name, 40)
                page.evaluate(_REST_JS)
                page.wait_for_timeout(700)
            else:
                page.goto(self.address(shot, page))
                page.wait_for_timeout(1500)
                if page.locator("#name-input").is_visible():
                    page.fill("#name-input", "Sofia Marin")
            shot.scene(self, page)
            shot.act(page)
            if shot.name == "reconnecting":
                self.server.kill()
                page.locator("#banner").wait_for(state="visible", timeout=30_000)
            if shot.path == "blocked":
                page.locator("#banner").wait_for(state="visible", timeout=30_000)
            page.wait_for_timeout(900)
            picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
            kept = picture.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            kept.save(shot.folder / f"{shot.name}.png", optimize=True)
            print(shot.name, flush=True)

    def address(self, shot: Shot, page: Page) -> str:
        """Where to go for a picture before the call, after whatever the state needs."""
        if shot.path == "insecure":
            return f"http://{INSECURE_HOST}:{self.server.port}/?room=Design review"
        if shot.path.startswith("bye "):
            bye = _BYE % shot.path.split()[1]
            page.route_web_socket("**/ws*", lambda ws: ws.close(code=4403) if ws.send(bye) is None else None)
            return f"{self.server.url}/?room=Design review&username=Sofia"
        if shot.path == "blocked":
            return f"{self.walled.url}/?room=Design review&username=Sofia"
        if shot.path == "unreachable":
            page.route("**/health", lambda route: route.abort())
            page.route_web_socket("**/ws*", lambda ws: ws.close(code=1011))
            return f"{self.server.url}/?room=Design review&username=Sofia"
        return self.server.url + shot.path


def main(part: str = "") -> None:
    SCREENS.mkdir(exist_ok=True)
    server = Server().start()
    try:
        with sync_playwright() as playwright, launch(playwright, FAKE_DEVICES) as browser:
            studio = Studio(browser, server)
            for shot in SHOTS:
                if any(one in shot.name for one in part.split(",")):
                    studio.shoot(shot)
            studio.close()
    finally:
        server.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])
