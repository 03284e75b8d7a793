"""Every link to its room that the page offers leads there; where none does, it offers none and says how to invite."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crowd import Crowd
from people import Person
from playwright.sync_api import Page, expect
from support.process import Server
from support.waiting import eventually

_OFFERED_JS = """() => {
    const nodes = [...document.querySelectorAll('body *')].filter((one) => one.checkVisibility());
    const said = nodes.flatMap((one) => [...one.attributes].map(({ value }) => value).concat(String(one.value)));
    return { link: [document.body.innerText, ...said].some((text) => text.includes('?room=')),
        code: nodes.some((one) => one.matches('.qr')),
        straight: /Anyone with this link/.test(document.body.innerText) };
}"""


def closed(page: Page) -> None:
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)


def card(page: Page) -> None:
    expect(page.locator("#invitation-text")).to_be_visible()


def more(page: Page) -> None:
    page.click("#more-button")
    expect(page.get_by_role("menuitem", name="Settings")).to_be_visible()


def invite(page: Page) -> None:
    page.get_by_role("button", name="Invite", exact=True).click()
    expect(page.get_by_role("dialog", name="Invite people")).to_be_visible()


def people(page: Page) -> None:
    page.keyboard.press("p")
    expect(page.get_by_role("button", name="Invite", exact=True)).to_be_visible()


def manage(page: Page) -> None:
    page.get_by_role("button", name="Manage", exact=True).click()
    expect(page.get_by_role("switch", name="Lobby")).to_be_visible()


PLACES: dict[str, tuple[Callable[[Page], None], bool]] = {
    "card": (card, True),
    "more": (more, False),
    "people": (people, True),
    "invite": (invite, True),
    "manage": (manage, False),
}
"""Each with whether a room that has a link says it there, or how to invite."""


def offers(page: Page) -> dict[str, dict[str, bool]]:
    """What each place offers."""
    found = {}
    for name, (act, _) in PLACES.items():
        act(page)
        found[name] = page.evaluate(_OFFERED_JS)
        if page.locator("dialog[open]").count():
            closed(page)
    return found


def test_a_room_without_a_link_offers_none(server: Server, crowd: Crowd, person: Callable[..., Person]) -> None:
    alice = person(server, "alice", quiet=True)
    page = alice.page
    page.goto(f"{server.url}/?token={crowd.token('linkless', 'alice', permissions={'moderate': True})}&preview=off")
    eventually(lambda: alice.peer, "alice is in the room")
    nothing = {"link": False, "code": False, "straight": False}
    assert offers(page) == dict.fromkeys(PLACES, nothing)
    page.get_by_role("button", name="Invite", exact=True).click()
    expect(page.locator("#invite")).to_contain_text("To invite someone, use the website or app")
    closed(page)
    page.click("#more-button")
    page.get_by_role("menuitem", name="Invite").click()
    expect(page.locator("#invite")).to_be_visible()

    page.reload()
    eventually(lambda: alice.peer, "loading it again leads back")
    other = person(server, "other", quiet=True).page
    other.goto(page.url)
    expect(other.locator("#end-title")).to_have_text("This address doesn’t contain an invitation")
    expect(other.locator("#end-text")).to_contain_text("You need an invitation to join linkless")
    other.get_by_role("button", name="Another room").click()
    expect(other.locator("#room-input")).to_be_visible()
    assert other.url == f"{server.url}/"

    for moderates, words in ((True, "use the website or app"), (False, "ask the person who invited you")):
        token = crowd.token("alone", "eve", permissions={"moderate": moderates})
        other.goto(f"{server.url}/?token={token}&preview=off")
        expect(other.locator("#invitation-text")).to_contain_text(words)
        other.click("#leave-button")
        expect(other.locator("#end-title")).to_be_visible()


@pytest.mark.soak
def test_a_room_with_a_link_offers_it(server: Server, person: Callable[..., Person]) -> None:
    alice = person(server, "alice", quiet=True).join("linked")
    page = alice.page
    card(page)
    assert page.evaluate(_OFFERED_JS) == {"link": True, "code": False, "straight": False}
    page.keyboard.press("p")
    invite(page)
    assert page.evaluate(_OFFERED_JS) == {"link": True, "code": True, "straight": True}
    other = person(server, "other", quiet=True)
    other.page.goto(page.url)
    other.page.fill("#name-input", "other")
    other.page.click("#join-button")
    eventually(lambda: alice.others() == ["other"], "the address leads to alice")
