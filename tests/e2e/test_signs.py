"""How the page tells who came, left, wrote, knocked or raised a hand: by toasts, sounds, its title, notifications."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crowd import Crowd
from people import Person
from playwright.sync_api import Locator, expect
from support.process import Server
from support.waiting import eventually

Go = Callable[..., Person]
_SIGNS_JS = """
window.tones = []; // of the sounds played
const make = AudioContext.prototype.createOscillator;
AudioContext.prototype.createOscillator = function () {
    const tone = make.call(this);
    window.tones.push(tone);
    return tone;
};
window.WebSocket = class extends WebSocket {
    constructor(...given) {
        super(...given);
        // as if the server had sent them, all at once
        window.receive = (messages) => {
            for (const [event, data] of messages) {
                this.dispatchEvent(new MessageEvent('message', { data: JSON.stringify({ event, data }) }));
            }
        };
    }
};
window.toasts = []; // the texts of all so far
new MutationObserver((changes) => {
    for (const { addedNodes } of changes) {
        const made = [...addedNodes].filter((node) => node.matches?.('.toast'));
        window.toasts.push(...made.map((node) => node.querySelector('p').textContent));
    }
}).observe(document, { childList: true, subtree: true });
window.notices = []; // system notifications
window.Notification = class extends Notification {
    static permission = 'granted'; // the headless browser always says 'denied'
    constructor(title, options) {
        super(title, options);
        if (options.body) window.notices.push(this);
    }
};
"""
_HIDE_JS = """(hidden) => {
    Object.defineProperty(document, 'hidden', { configurable: true, value: hidden });
    document.dispatchEvent(new Event('visibilitychange'));
}"""
KNOCK_HZ = 392


@pytest.fixture
def go(server: Server, crowd: Crowd, person: Callable[..., Person]) -> Go:
    """Sends somebody to a room with a token; who enters has loaded the whole page, and heard the sounds of settling."""

    def made(name: str, room: str, *, moderate: bool = False, enters: bool = True, settled: bool = True) -> Person:
        one = person(server, name, quiet=True)
        one.context.grant_permissions(["camera", "microphone", "notifications"])
        one.page.add_init_script(_SIGNS_JS)
        one.page.goto(f"{server.url}/?token={crowd.token(room, name, permissions={'moderate': moderate})}&preview=off")
        if enters:
            eventually(lambda: one.peer, f"{name} is in {room}")
            one.page.evaluate("async () => (await import('/app/page.js')).page.actions.later()")
        if enters and settled:
            one.page.wait_for_timeout(3_000)  # no sounds are played so soon after joining
        return one

    return made


def toast(one: Person, text: str) -> Locator:
    return one.page.locator(".toast", has_text=text)


def told(one: Person, text: str) -> bool:
    """Whether there was a toast of this text; most go by themselves."""
    return text in one.page.evaluate("toasts")


def notes(one: Person) -> list[float]:
    """The frequencies played so far."""
    found: list[float] = one.page.evaluate("tones.map((tone) => Math.round(tone.frequency.value))")
    return found


def noticed(one: Person) -> list[str]:
    found: list[str] = one.page.evaluate("notices.map(({ title, body }) => `${title}: ${body}`)")
    return found


def hide(one: Person, hidden: bool = True) -> None:
    one.page.evaluate(_HIDE_JS, hidden)


def switch(one: Person, name: str) -> None:
    one.page.keyboard.press(",")
    one.page.get_by_role("switch", name=name).click()


def test_who_comes_and_leaves_is_told_with_a_sound(go: Go) -> None:
    alice = go("alice", "signs")
    assert notes(alice) == []
    bob = go("bob", "signs")
    eventually(lambda: told(alice, "bob joined"), "a toast")
    eventually(lambda: notes(alice) == [523, 659], "rising notes")
    bob.page.evaluate("room.leave()")
    eventually(lambda: told(alice, "bob left"), "a toast")
    eventually(lambda: notes(alice) == [523, 659, 659, 523], "falling notes")
    assert notes(bob) == []  # nor did bob hear of himself
    expect(alice.page.locator("#announcer")).to_contain_text("bob left")


@pytest.mark.soak
def test_many_who_come_at_once_are_one_toast_without_a_sound(server: Server, person: Go) -> None:
    alice = person(server, "alice", quiet=True)
    alice.page.add_init_script(_SIGNS_JS)
    alice.join("signs-many")
    alice.page.evaluate("async () => (await import('/app/page.js')).page.actions.later()")
    come = [["joined", {"peer": f"p{number}", "name": f"Guest {number}"}] for number in range(50)]
    alice.page.evaluate("(messages) => receive(messages)", come)
    eventually(lambda: told(alice, "Guest 0, Guest 1, and 48 others joined"), "one toast")
    go = [["left", {"peer": f"p{number}", "reason": "left"}] for number in range(3)]
    passes = [["joined", {"peer": "q", "name": "Passer-by"}], ["left", {"peer": "q", "reason": "left"}]]
    alice.page.evaluate("(messages) => receive(messages)", go + passes)
    eventually(lambda: told(alice, "Guest 0, Guest 1, and Guest 2 left"), "one toast")
    assert len(alice.page.evaluate("toasts")) == 2
    assert notes(alice) == []


@pytest.mark.soak
def test_a_message_is_previewed_counted_and_opens_the_chat(go: Go) -> None:
    alice, bob = go("alice", "signs-chat"), go("bob", "signs-chat")
    bob.page.evaluate("room.chat('Hello,\\n' + 'all '.repeat(100))")
    preview = toast(alice, "bob: Hello, all all")
    expect(preview).to_contain_text("…")
    expect(alice.page).to_have_title("(1) signs-chat · 127.0.0.1:" + alice.page.url.split(":")[2].split("/")[0])
    eventually(lambda: 880 in notes(alice), "a note")
    preview.get_by_role("button", name="Show").click()
    expect(alice.page.locator("#chat-input")).to_be_focused()
    expect(alice.page).not_to_have_title("(1)")
    assert not alice.page.title().startswith("(")
    hide(alice)
    bob.page.evaluate("room.chat('Are you there?')")
    eventually(lambda: alice.page.title().startswith("(1) "), "counted although the chat is open")
    hide(alice, hidden=False)
    eventually(lambda: not alice.page.title().startswith("("), "read")
    assert 880 not in notes(bob)


@pytest.mark.soak
def test_a_hidden_page_notifies_only_who_asked_for_it(go: Go) -> None:
    alice, bob = go("alice", "signs-away"), go("bob", "signs-away")
    hide(alice)
    bob.page.evaluate("room.chat('first')")
    eventually(lambda: told(alice, "bob: first"), "a toast")
    assert noticed(alice) == []
    hide(alice, hidden=False)
    switch(alice, "Desktop notifications")
    expect(alice.page.get_by_role("switch", name="Desktop notifications")).to_be_checked()
    alice.page.keyboard.press("Escape")
    hide(alice)
    bob.page.evaluate("room.chat('second')")
    eventually(lambda: noticed(alice) == ["signs-away: bob: second"], "a notification")
    alice.page.evaluate("notices[0].onclick()")
    expect(alice.page.locator("#chat-input")).to_be_focused()


@pytest.mark.soak
def test_a_refused_permission_turns_the_switch_off(server: Server, person: Go) -> None:
    alice = person(server, "alice", quiet=True).join("signs-refused")
    alice.page.evaluate("Notification.requestPermission = async () => 'denied'")
    switch(alice, "Desktop notifications")
    expect(alice.page.get_by_text("Your browser is blocking notifications.")).to_be_visible()
    expect(alice.page.get_by_role("switch", name="Desktop notifications")).not_to_be_checked()


@pytest.mark.soak
def test_hands_are_told_in_their_order(go: Go) -> None:
    alice, bob, carol = (go(name, "signs-hands", settled=name == "alice") for name in ("alice", "bob", "carol"))
    eventually(lambda: any("carol joined" in text for text in alice.page.evaluate("toasts")), "all are here")
    alice.page.wait_for_timeout(1_500)  # the least time between two sounds
    bob.page.keyboard.press("h")
    eventually(lambda: told(alice, "bob raised a hand"), "a toast")
    eventually(lambda: 587 in notes(alice), "a sound")
    carol.page.keyboard.press("h")
    expect(toast(alice, "carol raised a hand, number 2 in line")).to_be_visible()
    toast(alice, "carol raised a hand").get_by_role("button", name="Show").click()
    expect(alice.page.locator(".person__name bdi")).to_have_text(["alice (you)", "bob", "carol"])
    for one in (bob, carol):
        one.page.keyboard.press("h")
    expect(toast(alice, "raised a hand")).to_have_count(0)


def test_a_knock_is_loud_stays_and_marks_the_title(go: Go) -> None:
    alice = go("alice", "signs-door", moderate=True)
    alice.page.clock.install()
    alice.page.evaluate("room.send('room', { locked: null, lobby: true })")
    eventually(lambda: alice.page.evaluate("room.settings.lobby"), "the lobby is on")
    go("bob", "signs-door", enters=False)
    asks = alice.page.get_by_role("alert").filter(has_text="bob is waiting to join")
    expect(asks).to_be_visible()
    eventually(lambda: notes(alice).count(KNOCK_HZ) == 4, "a knock")
    assert alice.page.title().startswith("🔔 ")
    for number in range(5):
        alice.page.evaluate(f"async () => (await import('/ui/toasts.js')).toast('t{number}', 'Another toast')")
    expect(asks).to_be_visible()
    alice.page.clock.run_for(10_000)
    eventually(lambda: notes(alice).count(KNOCK_HZ) == 8, "another knock, since nobody answered")
    expect(asks).to_be_visible()
    asks.get_by_role("button", name="Admit").click()
    eventually(lambda: not alice.page.title().startswith("🔔"), "nobody waits any more")


@pytest.mark.soak
def test_a_knock_shows_in_full_screen_and_on_phones(go: Go, crowd: Crowd) -> None:
    alice = go("alice", "signs-full", moderate=True)
    crowd.join("signs-full", ["Amira"])
    tile = alice.page.locator(".tile:not(.is-self)")
    tile.hover()
    tile.get_by_role("button", name="More options for Amira").click()
    alice.page.get_by_role("menuitem", name="Full screen").click()
    expect(alice.page.locator(".tile:fullscreen")).to_be_visible()
    alice.page.evaluate("room.send('room', { locked: null, lobby: true })")
    eventually(lambda: alice.page.evaluate("room.settings.lobby"), "the lobby is on")
    go("bob", "signs-full", enters=False)
    expect(alice.page.locator(".tile:fullscreen .toast", has_text="bob is waiting to join")).to_be_visible()
    alice.page.evaluate("document.exitFullscreen()")
    expect(alice.page.locator("#stage > .toasts .toast", has_text="bob is waiting to join")).to_be_visible()
    alice.page.set_viewport_size({"width": 390, "height": 844})
    alice.page.click("#more-button")  # the people key is in this menu then
    expect(alice.page.get_by_role("menuitem", name="People, 1 waiting to join")).to_have_text("People 1")


@pytest.mark.soak
def test_sounds_can_be_turned_off(go: Go) -> None:
    alice = go("alice", "signs-mute")
    switch(alice, "Notification sounds")
    alice.page.keyboard.press("Escape")
    bob = go("bob", "signs-mute")
    eventually(lambda: told(alice, "bob joined"), "a toast")
    bob.page.keyboard.press("h")
    eventually(lambda: told(alice, "bob raised a hand"), "a toast")
    assert notes(alice) == []
    assert alice.page.evaluate("JSON.parse(localStorage['sfu.choices']).sounds") is False
