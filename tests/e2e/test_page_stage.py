"""The stage has a place, or a way to one, for everybody and every screen; its states show in forced colours too."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from crowd import NAMES, Crowd
from people import QUIET_JS
from PIL import Image, ImageChops
from playwright.sync_api import Browser, Locator, Page, expect
from support.process import Server
from support.waiting import eventually

_ACT_JS = "async ([name, ...given]) => void (await (await import('/app/page.js')).page.actions[name](...given))"


@pytest.fixture
def sofia(browser: Browser, server: Server, room: str, crowd: Crowd) -> Iterator[Any]:
    """Sofia's page, in a room that the test has filled."""
    contexts = []

    def enter(may: dict[str, bool] | None = None, **options: Any) -> Page:
        usual = {"permissions": ["camera", "microphone"], "reduced_motion": "reduce"}
        context = browser.new_context(**usual | {"viewport": {"width": 1000, "height": 560}} | options)
        contexts.append(context)
        context.add_init_script(QUIET_JS)
        page = context.new_page()
        page.goto(f"{server.url}/?token={crowd.token(room, 'Sofia Marin', permissions=may or {})}&preview=off")
        eventually(lambda: page.evaluate("window.room?.connected"), "in the room")
        page.evaluate(_ACT_JS, ["later"])
        return page

    yield enter
    for context in contexts:
        context.close()


@pytest.mark.soak
def test_whoever_has_no_place_is_pinned_from_the_list(sofia: Any, crowd: Crowd, room: str) -> None:
    crowd.join(room, NAMES[:14])
    page = sofia()
    expect(page.locator(".tile")).to_have_count(15)
    page.keyboard.press("g")
    eventually(lambda: page.locator(".tile.is-away").count() > 5, "the strip has no room for all")
    name = page.locator(".tile.is-away .plate bdi").first.text_content()
    page.click("#stage-more")
    page.get_by_role("button", name=f"More actions for {name}").click()
    page.get_by_role("menuitem", name=f"Pin {name}").click()
    expect(page.locator(".tile.is-main .plate bdi")).to_have_text(name)
    expect(page.locator(".tile.is-main.has-picture")).to_be_visible()


def test_each_of_two_screens_can_be_reached(sofia: Any, crowd: Crowd, room: str) -> None:
    crowd.join(room, NAMES[:10])
    crowd.join(room, NAMES[10:12], screen=True)
    page = sofia()
    expect(page.locator('.tile[data-source="screen"]')).to_have_count(2)
    expect(page.locator('.tile.is-main[data-source="screen"]')).to_have_count(1)
    other = page.locator('.tile[data-source="screen"]:not(.is-main)')
    expect(other).to_be_visible()
    name = other.locator(".plate bdi").inner_text()
    other.hover()
    other.get_by_role("button", name=f"Pin {name}", exact=True).click()
    expect(page.locator(".tile.is-main .plate bdi")).to_have_text(name)


@pytest.mark.soak
def test_each_pin_button_has_a_name_of_its_own(sofia: Any, crowd: Crowd, room: str) -> None:
    crowd.join(room, NAMES[:3])
    page = sofia()
    expect(page.locator(".tile")).to_have_count(4)
    pins = page.locator(".tools button:first-child")
    names = [pin.get_attribute("aria-label") for pin in pins.all()]
    assert len(set(names)) == len(names) == 4
    assert f"Pin {NAMES[0]}" in names


@pytest.mark.soak
def test_people_of_one_name_have_controls_of_different_names(sofia: Any, crowd: Crowd, room: str) -> None:
    crowd.join(room, ["Ana", "ana"], no_camera=(0, 1))
    page = sofia({"moderate": True})
    page.evaluate("window.room.send('room', { lobby: true, locked: null })")
    eventually(lambda: page.evaluate("window.room.settings.lobby"), "the lobby is on")
    crowd.knock(room, ["Eva", "eva"])
    page.keyboard.press("p")
    names = [f"{action} {name}" for name in ("Eva", "eva (2)") for action in ("Decline", "Admit")]
    names += [f"{action} {name}" for name in ("Ana", "ana (2)") for action in ("Pin", "More options for")]
    names += ["More actions for Ana", "More actions for ana (2)"]
    for name in names:
        expect(page.get_by_role("button", name=name, exact=True)).to_have_count(1)
    for name in ("Ana", "ana (2)"):
        expect(page.get_by_role("article", name=f"{name}, muted, no video", exact=True)).to_have_count(1)
        expect(page.locator(".tile .plate").get_by_text(name, exact=True)).to_have_count(1)
        expect(page.locator(".person__name").get_by_text(name, exact=True)).to_have_count(1)


def test_viewers_are_counted_and_have_no_tile(sofia: Any, crowd: Crowd, room: str) -> None:
    crowd.watch(room, NAMES[:12])
    page = sofia({"moderate": True})
    viewers = page.locator("#viewers")
    expect(viewers).to_have_text("12 viewers")
    expect(page.locator(".tile")).to_have_count(1)
    expect(page.locator(".tile.is-corner")).to_have_count(0)
    crowd.page.evaluate("window.crowd.get('Kofi Mensah').send('hand', { raised: true })")
    expect(viewers).to_have_text("12 viewers · 1 hand raised")
    expect(page.locator(".toast", has_text="Kofi Mensah raised a hand")).to_be_visible()
    viewers.click()
    expect(page.locator(".person")).to_have_count(13)
    expect(page.locator(".person", has_text="Kofi Mensah")).to_contain_text("Viewer · Hand raised")
    page.get_by_role("button", name="More actions for Kofi Mensah").click()
    expect(page.get_by_role("menuitem")).to_have_text(["Remove from the room"])
    page.keyboard.press("Escape")
    crowd.page.evaluate("window.crowd.get('Kofi Mensah').send('reaction', { reaction: 'clap' })")
    expect(viewers.get_by_text("Applause")).to_be_attached()
    crowd.page.evaluate("window.crowd.get('Kofi Mensah').leave()")
    crowd.join(room, ["Kofi Mensah"], no_camera=(0,))
    expect(viewers).to_have_text("11 viewers")
    expect(page.locator(".tile:not(.is-self) .plate bdi")).to_have_text("Kofi Mensah")


@pytest.mark.soak
def test_where_nobody_may_send_viewers_see_each_other(sofia: Any, crowd: Crowd, room: str) -> None:
    crowd.watch(room, NAMES[:2])
    page = sofia({"publish": False})
    expect(page.locator(".tile .plate bdi")).to_have_text(NAMES[:2])
    expect(page.locator("#viewers")).to_have_text("3 viewers")
    crowd.join(room, NAMES[2:3])
    expect(page.locator(".tile .plate bdi")).to_have_text(NAMES[2:3])
    expect(page.locator(".tile.has-picture")).to_be_visible()


def look(shown: Locator) -> Image.Image:
    return Image.open(io.BytesIO(shown.screenshot(animations="disabled"))).convert("RGB")


@pytest.mark.soak
def test_switches_and_choices_show_their_state_in_forced_colours(sofia: Any) -> None:
    page = sofia(forced_colors="active")
    page.evaluate(_ACT_JS, ["settings"])
    states = {}
    for state in ("true", "false"):
        for kind in ("switch", "radio"):
            one = page.locator(f"dialog [role={kind}][aria-checked={state}]").first
            one.evaluate("(one) => (one.textContent = '')")
            states[kind, state] = look(one).resize((40, 24))
    for kind in ("switch", "radio"):
        assert ImageChops.difference(states[kind, "true"], states[kind, "false"]).getbbox(), kind
        assert len(states[kind, "true"].getcolors()) > 1, kind
