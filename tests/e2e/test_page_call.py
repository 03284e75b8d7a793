"""The page in a call, in real browsers: how the stage is laid out, and what pointer, keyboard and touch do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import pytest
from crowd import NAMES, Crowd
from people import Person, camera_script
from playwright.sync_api import Browser, Locator, Page, expect
from support.process import Server
from support.waiting import eventually

SMALL_PHONE = {"width": 360, "height": 640}
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}
USUAL: dict[str, Any] = {"permissions": ["camera", "microphone"], "viewport": DESKTOP, "reduced_motion": "reduce"}
_BOXES_JS = """() => [...document.querySelectorAll('.tile:not(.is-away)')].map((tile) => {
    const { x, y, width, height } = tile.getBoundingClientRect();
    return { x, y, width, height, self: tile.matches('.is-self'), main: tile.matches('.is-main') };
})"""
_PICTURES_AWAY_JS = """() => [...document.querySelectorAll('.tile.is-away video')]
    .map((video) => video.srcObject?.getVideoTracks().length ?? 0)"""
_MICROPHONE_JS = "window.room.pc.getSenders().find((one) => one.track?.kind === 'audio')?.track"
_REST_JS = "async () => void (await (await import('/app/page.js')).page.actions.later())"
_BLUR_JS = """
window.blurred = []; // as a browser does whose system can blur
const { getCapabilities, applyConstraints } = MediaStreamTrack.prototype;
Object.assign(MediaStreamTrack.prototype, {
    getCapabilities() {
        return { ...getCapabilities.call(this), ...(this.kind === 'video' && { backgroundBlur: [true, false] }) };
    },
    async applyConstraints({ backgroundBlur, ...others }) {
        if (backgroundBlur !== undefined) window.blurred.push(backgroundBlur);
        return applyConstraints.call(this, others);
    },
});
"""
_COVERS_JS = """(selector) => {
    const { x, y, width, height } = document.querySelector(selector).getBoundingClientRect();
    return x === 0 && y === 0 && width === innerWidth && height === innerHeight;
}"""
_SPEAKERS_JS = """async (times) => {
    const peers = [...window.room.participants.keys()];
    for (let turn = 0; turn < times; turn++) {
        const speaking = [0, 3, 5].map((more) => peers[(turn + more) % peers.length]);
        const detail = { dominant: speaking[0], speaking };
        window.room.dispatchEvent(new CustomEvent('speakers', { detail }));
        await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
    }
}"""
_MOVED_JS = (
    "() => Promise.allSettled(document.getAnimations().filter((one) => one.id === 'move').map((one) => one.finished))"
)
_SHIFTS_JS = """() => {
    window.shift = 0;
    const add = (list) => list.getEntries().forEach((one) => (window.shift += one.value));
    new PerformanceObserver(add).observe({ type: 'layout-shift' });
}"""


@pytest.fixture
def enter(browser: Browser, server: Server, crowd: Crowd) -> Iterator[Callable[..., Page]]:
    """Somebody with a page of their own enters a room in which others are; the others go afterwards."""
    contexts: list[Any] = []
    problems: list[str] = []

    def go(room: str, others: int = 0, no_camera: tuple[int, ...] = (), **options: Any) -> Page:
        if others:
            crowd.join(room, NAMES[:others], no_camera=no_camera)
        context = browser.new_context(**USUAL | options)
        context.add_init_script(camera_script())
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{server.url}/?token={crowd.token(room, 'Sofia Marin')}&preview=off")
        eventually(lambda: page.evaluate("window.room?.state === 'joined'"), "in the room")
        expect(page.locator(".tile")).to_have_count(others + 1)
        page.evaluate(_REST_JS)
        return page

    yield go
    for context in contexts:
        context.close()
    crowd.leave()
    assert problems == []


def boxes(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate(_BOXES_JS)
    return found


def placed(locator: Locator, **where: float) -> dict[str, float]:
    """Waits until the element stands there: a panel is made when it is first opened, and what follows takes a frame."""

    def look() -> Any:
        box: Any = locator.bounding_box()
        return box if box and where.items() <= box.items() else None

    return eventually(look, f"{locator} is at {where}")


def edges(locator: Locator) -> tuple[float, float]:
    """The upper and the lower one."""
    box = locator.bounding_box()
    return (box["y"], box["y"] + box["height"]) if box else (-1, -1)


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    beside = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
    return not (beside or one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"])


def shown_of(people: int, page: Page) -> list[dict[str, Any]] | None:
    """Boxes of the tiles that are shown, once the page says how many are not."""
    shown = boxes(page)
    return shown if page.locator("#stage-more").inner_text() == f"{people - len(shown)} more" else None


@pytest.mark.soak
def test_a_phone_shows_who_fits_and_decodes_nobody_else(enter: Callable[..., Page], crowd: Crowd) -> None:
    page = enter("phone", 12, viewport=SMALL_PHONE, has_touch=True, is_mobile=True)
    shown = eventually(lambda: shown_of(13, page), "it says how many are not shown")
    assert not any(overlap(*pair) for pair in combinations(shown, 2))
    assert all(
        box["width"] >= 120 and box["x"] >= 0 and box["x"] + box["width"] <= SMALL_PHONE["width"] for box in shown
    )
    assert shown[-1]["self"] or any(box["self"] for box in shown)
    hidden = 13 - len(shown)
    assert page.evaluate(_PICTURES_AWAY_JS) == [0] * hidden
    page.set_viewport_size(DESKTOP)
    expect(page.locator(".tile.is-away")).to_have_count(0)
    pictures = page.locator(".tile.has-picture:not(.is-self)")
    expect(pictures).to_have_count(12)

    page.keyboard.press("g")  # one large, the others in a strip
    eventually(lambda: [box["width"] > 900 for box in boxes(page) if box["main"]] == [True], "one is large")
    page.locator(".tile:not(.is-main):not(.is-away):not(.is-self)").first.focus()
    name = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    expect(page.locator(".tile.is-main")).to_have_attribute("aria-label", re.compile(f"^{name.split(',')[0]}"))
    page.keyboard.press("g")
    expect(page.locator(".tile.is-main")).to_have_count(0)


@pytest.mark.soak
def test_nothing_shifts_when_somebody_comes_and_goes(enter: Callable[..., Page], crowd: Crowd) -> None:
    page = enter("shift", 2)
    bar = page.locator("#leave-button").bounding_box()
    page.evaluate(_SHIFTS_JS)
    crowd.join("shift", NAMES[2:4])
    expect(page.locator(".tile")).to_have_count(5)
    crowd.page.evaluate("(name) => window.crowd.get(name).leave()", NAMES[0])
    expect(page.locator(".tile")).to_have_count(4)
    assert page.locator("#leave-button").bounding_box() == bar
    assert page.evaluate("window.shift") < 0.1, "good by Web Vitals: names at the lower edges of tiles move with these"


def test_alone_one_has_an_invitation_and_a_corner_that_moves(enter: Callable[..., Page], crowd: Crowd) -> None:
    page = enter("alone")
    expect(page.locator("#invitation")).to_be_visible()
    expect(page.locator("#invitation-text")).to_contain_text("a personal invitation")
    corner = page.locator(".tile.is-corner")
    before = corner.bounding_box()
    assert before
    page.mouse.move(before["x"] + 40, before["y"] + 40)
    page.mouse.down()
    page.mouse.move(200, 150, steps=4)
    page.mouse.up()
    after = placed(corner, x=28, y=28)
    crowd.join("alone", NAMES[:1])
    expect(page.locator("#invitation")).to_be_hidden()
    assert corner.bounding_box() == after, "nothing moves but the seat that is filled"
    corner.focus()
    page.keyboard.press("Shift+ArrowDown")
    eventually(lambda: (corner.bounding_box() or after)["y"] > after["y"], "the corner is below")


@pytest.mark.soak
def test_a_shared_screen_takes_the_stage_and_can_be_zoomed(enter: Callable[..., Page], crowd: Crowd) -> None:
    page = enter("share", 2)
    crowd.join("share", NAMES[2:3], screen=True)
    screen = page.locator(".tile.is-main.is-screen.has-picture")
    expect(screen).to_have_count(1)
    expect(page.locator(".share-bar")).to_contain_text("Mei Tanaka is sharing")
    bar = page.locator(".share-bar")
    eventually(lambda: edges(bar)[0] >= edges(screen)[1] - 1 > 0, "nothing stands on the picture")
    page.get_by_role("button", name="Zoom in").click()
    expect(screen).to_have_class(re.compile("is-zoomed"))
    page.get_by_role("button", name="Fit").click()
    expect(screen).not_to_have_class(re.compile("is-zoomed"))
    screen.dblclick()
    expect(screen).to_have_class(re.compile("is-zoomed"))
    crowd.page.evaluate("(name) => window.crowd.get(name).unpublish('screen')", NAMES[2])
    expect(page.locator(".share-bar")).to_be_hidden()
    expect(page.locator(".tile.is-main")).to_have_count(0)


def test_keys_and_what_they_do(enter: Callable[..., Page]) -> None:
    page = enter("keys")
    mute = page.locator("#mic-button")
    expect(mute).to_have_attribute("aria-label", "Mute")
    page.keyboard.press("m")
    expect(mute).to_have_attribute("aria-label", "Unmute")
    page.keyboard.down(" ")
    expect(mute).to_have_attribute("aria-label", "Mute")
    page.keyboard.up(" ")
    expect(mute).to_have_attribute("aria-label", "Unmute")
    page.keyboard.press("c")
    expect(page.locator("#chat-input")).to_be_focused()
    page.keyboard.type("mvg?")  # letters, not shortcuts
    expect(page.locator("#chat-input")).to_have_value("mvg?")
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    expect(page.locator("#chat-button")).to_be_focused()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.click("#more-button")
    expect(page.get_by_role("menuitem").first).to_be_focused()
    page.keyboard.press("End")
    expect(page.get_by_role("menuitem", name="Keyboard shortcuts")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#more-button")).to_be_focused()
    page.keyboard.press(",")
    page.get_by_role("switch", name="Single-key shortcuts").click()
    page.keyboard.press("Escape")
    page.locator("#call-view").focus()
    page.keyboard.press("m")
    expect(mute).to_have_attribute("aria-label", "Unmute")


def test_settings_change_devices_and_looks(enter: Callable[..., Page]) -> None:
    page = enter("settings")
    before = eventually(lambda: page.evaluate(f"{_MICROPHONE_JS}?.id"), "a microphone is sent")
    page.evaluate("delete navigator.mediaDevices.getUserMedia")  # camera_script's, which suppresses none
    page.keyboard.press(",")
    settings = (
        "window.room.pc.getSenders().find((one) => one.track?.kind === 'audio')?.track.getSettings().noiseSuppression"
    )
    for on in (False, True, False):
        page.get_by_role("switch", name="Noise suppression").click()
        eventually(lambda on=on: page.evaluate(settings) is on, f"the microphone's noise is suppressed: {on}")
    assert page.evaluate(f"{_MICROPHONE_JS}.id") != before
    page.get_by_role("radio", name="Light").click()
    expect(page.locator("body")).to_have_css("background-color", "rgb(241, 243, 240)")
    page.get_by_role("radio", name="Dark").click()
    expect(page.locator("body")).to_have_css("background-color", "rgb(14, 17, 16)")
    page.select_option("#settings-language", "de")
    expect(page.get_by_role("dialog", name="Einstellungen")).to_be_visible()
    expect(page.locator("#leave-button")).to_have_attribute("aria-label", "Verlassen")


@pytest.mark.soak
def test_talking_while_muted_is_noticed(enter: Callable[..., Page]) -> None:
    page = enter("muted")
    page.keyboard.press("m")
    page.evaluate(
        """async () => {
            const { page } = await import('/app/page.js');
            for (let times = 0; times < 9; times++) page.tell('level', { level: 0.9 });
        }"""
    )
    toast = page.locator(".toast", has_text="You’re talking, but your microphone is off.")
    toast.get_by_role("button", name="Unmute").click()
    expect(page.locator("#mic-button")).to_have_attribute("aria-label", "Mute")


def test_a_call_of_two_on_a_phone_has_sheets(enter: Callable[..., Page]) -> None:
    page = enter("sheets", 1, viewport=PHONE, has_touch=True, is_mobile=True)
    expect(page.locator(".tile.is-corner")).to_have_count(1)
    page.tap("#more-button")
    expect(page.get_by_role("menuitem", name="Hand")).to_be_visible()
    menu = page.locator("dialog.menu")
    placed(menu, x=8, width=PHONE["width"] - 16)
    eventually(lambda: abs(edges(menu)[1] - PHONE["height"] + 8) < 1, "the menu is at the lower edge")
    page.touchscreen.tap(195, 40)
    expect(page.locator("dialog.menu")).to_have_count(0)
    page.tap("#chat-button")
    placed(page.locator("#stage"), height=116)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_a_listener_cannot_send_and_is_told_why(server: Server, browser: Browser, crowd: Crowd) -> None:
    context = browser.new_context(permissions=["camera", "microphone"])
    page = context.new_page()
    page.goto(f"{server.url}/?token={crowd.token('listen', 'Lena', permissions={'publish': False})}&preview=off")
    eventually(lambda: page.evaluate("window.room?.state === 'joined'"), "in the room")
    for key in ("#mic-button", "#camera-button", "#screen-button"):
        expect(page.locator(key)).to_have_attribute("aria-disabled", "true")
        expect(page.locator(key)).to_have_attribute("title", "You were invited to watch and listen")
        page.click(key, force=True)  # it looks disabled
        said = page.locator(".toast", has_text="You were invited to watch and listen")
        expect(said).to_have_count(1)
        said.get_by_role("button").click()
    page.keyboard.press("m")
    expect(said).to_be_visible()
    context.close()


@pytest.mark.soak
def test_a_device_that_is_plugged_in_is_offered(server: Server, person: Callable[..., Person]) -> None:
    alice = person(server, "alice")
    alice.page.add_init_script(
        """const real = navigator.mediaDevices.enumerateDevices.bind(navigator.mediaDevices);
        window.more = [];
        navigator.mediaDevices.enumerateDevices = async () => [...(await real()), ...window.more];"""
    )
    alice.join("plugged")
    expect(alice.page.locator(".tile.has-picture")).to_have_count(1)
    alice.page.evaluate(
        """async () => {
            await (await import('/app/page.js')).page.actions.later();
            window.more = [{ kind: 'audioinput', deviceId: 'headset', label: 'USB headset' }];
            navigator.mediaDevices.dispatchEvent(new Event('devicechange'));
        }"""
    )
    toast = alice.page.locator(".toast", has_text="USB headset is now available.")
    toast.get_by_role("button", name="Use it").click()
    expect(alice.page.locator(".toast", has_text="Now using USB headset as your microphone.")).to_be_visible()


@pytest.mark.soak
def test_a_hand_and_a_reaction_are_shown(enter: Callable[..., Page]) -> None:
    page = enter("hands")
    tile = page.locator(".tile.is-self")
    page.keyboard.press("h")
    expect(tile.locator(".flag")).to_have_text("1")
    expect(page.locator("#hand-button")).to_have_attribute("aria-pressed", "true")
    expect(tile).to_have_attribute("aria-label", re.compile("hand raised, position 1"))
    page.keyboard.press("r")
    page.keyboard.press("2")
    expect(tile.locator(".reaction use")).to_have_attribute("href", "#i-heart")
    page.keyboard.press("h")
    expect(tile.locator(".flag")).to_be_hidden()


@pytest.mark.soak
def test_25_tiles_are_laid_out_a_few_times_a_change_not_once_each(enter: Callable[..., Page], crowd: Crowd) -> None:
    """Whoever looks at one tile after having moved another has the browser lay out the whole page in between."""
    page = enter("many", 24, no_camera=tuple(range(2, 24)), reduced_motion="no-preference")
    cdp = page.context.new_cdp_session(page)
    cdp.send("Performance.enable")

    def layouts() -> int:
        return next(
            int(one["value"]) for one in cdp.send("Performance.getMetrics")["metrics"] if one["name"] == "LayoutCount"
        )

    def after(change: Callable[[], Any], tiles: int) -> int:
        before = layouts()
        change()
        expect(page.locator(".tile")).to_have_count(tiles)
        page.evaluate(_MOVED_JS)
        return layouts() - before

    expect(page.locator(".tile.has-picture")).to_have_count(3)
    changes = {
        "one goes": after(lambda: crowd.page.evaluate("(name) => window.crowd.get(name).leave()", NAMES[0]), 24),
        "one comes": after(lambda: crowd.join("many", NAMES[:1]), 25),
        "one large": after(lambda: page.keyboard.press("g"), 25),
        "all alike": after(lambda: page.keyboard.press("g"), 25),
    }
    assert max(changes.values()) < 20, changes
    assert after(lambda: page.evaluate(_SPEAKERS_JS, 20), 25) < 40


@pytest.mark.soak
def test_the_page_and_each_tile_can_fill_the_screen(enter: Callable[..., Page]) -> None:
    page = enter("full", 2)

    def fills(selector: str | None) -> None:
        found = f"document.fullscreenElement === {f'document.querySelector({selector!r})' if selector else 'null'}"
        eventually(lambda: page.evaluate(found), f"{selector} fills the screen")
        if selector:
            eventually(lambda: page.evaluate(_COVERS_JS, selector), f"{selector} is as large as the screen")

    page.click("#more-button")
    page.get_by_role("menuitem", name="Full screen").click()
    fills("html")
    page.click("#more-button")
    page.get_by_role("menuitem", name="Leave full screen").click()
    fills(None)
    page.keyboard.press("f")
    fills("html")
    page.keyboard.press("f")
    fills(None)
    second = page.locator(".tile").nth(1)
    second.hover()
    second.get_by_role("button", name="More").click()
    page.get_by_role("menuitem", name="Full screen").click()
    fills(".tile:nth-child(2)")
    second.get_by_role("button", name="More").click()
    page.get_by_role("menuitem", name="Leave full screen").click()
    fills(None)


@pytest.mark.soak
def test_a_background_is_blurred_where_the_browser_can(server: Server, person: Callable[..., Person]) -> None:
    alice = person(server, "alice")
    page = alice.page
    blurs = page.locator("#settings").get_by_role("switch", name="Blur my background")
    alice.join("plain")
    page.keyboard.press(",")
    expect(page.get_by_role("switch", name="Noise suppression")).to_be_visible()
    expect(blurs).to_have_count(0)
    page.add_init_script(_BLUR_JS)
    alice.join("blurred")
    page.keyboard.press(",")
    expect(blurs).to_have_attribute("aria-checked", "false")
    blurs.click()
    eventually(lambda: page.evaluate("window.blurred") == [True], "it is blurred")
    page.keyboard.press("Escape")
    page.keyboard.press("v")
    expect(page.locator(".tile.is-self.has-picture")).to_have_count(0)
    page.keyboard.press("v")  # a new track
    eventually(lambda: page.evaluate("window.blurred") == [True, True], "it is blurred again")
    page.keyboard.press(",")
    blurs.click()
    eventually(lambda: page.evaluate("window.blurred") == [True, True, False], "it is not any more")
