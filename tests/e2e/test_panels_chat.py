"""The chat between real browsers: what is written, what is new, what was written before, and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from people import FILE_BYTES, Person
from playwright.sync_api import Page, Route, expect
from support.process import Server
from support.waiting import eventually

People = Callable[..., Person]

PARTS = (  # what is written, and the links in it: text and address
    ("see https://a.example/x?y=1#z.", [("https://a.example/x?y=1#z", "https://a.example/x?y=1#z")]),
    ("(http://a.example/b_(c))", [("http://a.example/b_(c)", "http://a.example/b_(c)")]),
    ("https://a.example, https://b.example!", [("https://a.example",) * 2, ("https://b.example",) * 2]),
    ("„https://a.example/ü“", [("https://a.example/ü", "https://a.example/%C3%BC")]),
    ("see www.example.org/a.", [("www.example.org/a", "https://www.example.org/a")]),
    (
        "WWW.Example.org me@www.a.example xwww.a.example www.example www. www..a",
        [("WWW.Example.org", "https://www.example.org")],
    ),
    ("javascript:alert(1) data:text/html,x ftp://a.example file:///etc/passwd", []),
    ("https:// http://[::1 https://%", []),
    ("xhttps://a.example", []),
)


_END_JS = """() => {
    const foot = document.querySelector('.panel__foot:has(.composer)').getBoundingClientRect();
    return document.querySelector('#chat-log').lastElementChild.getBoundingClientRect().bottom <= foot.top + 1;
}"""
_SHRINK_JS = """() => {
    const box = document.querySelector('#chat-log').parentElement;
    box.scrollTop -= 1;
    box.style.maxHeight = '200px';
}"""
"""In one frame the window gets lower and an earlier scroll is told of."""


@pytest.fixture(scope="module")
def two(server: Server, residents: People) -> tuple[Person, Person]:
    """Alice and bob, in one room for all the tests: what each writes is told by its words."""
    alice, bob = (residents(server, name, quiet=True).join("chat") for name in ("alice", "bob"))
    return alice, bob


@pytest.fixture(autouse=True)
def closed(two: tuple[Person, Person]) -> None:
    """Nobody's chat is open, and nothing in it is new."""
    for one in two:
        opened(one)
        one.page.keyboard.press("Escape")
        expect(one.page.locator("#chat-input")).to_be_hidden()


def opened(one: Person) -> Page:
    """The page with its chat open."""
    if one.page.locator("#chat-input").is_visible():
        one.page.focus("#chat-input")
    else:
        one.page.click("#chat-button")
        expect(one.page.locator("#chat-input")).to_be_focused()
    return one.page


def write(one: Person, text: str) -> None:
    opened(one).fill("#chat-input", text)
    one.page.press("#chat-input", "Enter")
    expect(one.page.locator(".message").last).to_contain_text(text)


def give(page: Page, name: str, content: bytes) -> None:
    files: Any = {"name": name, "mimeType": "text/plain", "buffer": content}
    page.set_input_files("#chat-files", files)


@pytest.mark.soak
def test_only_web_addresses_become_links(server: Server, person: People) -> None:
    page = person(server, "alice").page
    page.goto(f"{server.url}/health")
    for text, links in PARTS:
        found = page.evaluate("async (text) => (await import('/ui/linkify.js')).parts(text)", text)
        assert "".join(part["text"] for part in found) == text
        # the browser leaves a bare host without its slash in neither
        shown = [(part["text"], part["href"].removesuffix("/")) for part in found if "href" in part]
        assert shown == [(label, address.removesuffix("/")) for label, address in links]


def test_what_is_written_is_text_with_safe_links(two: tuple[Person, Person]) -> None:
    alice, bob = two
    opened(bob)
    text = "<img src=x onerror=alert(1)> https://example.org/a?b=1"
    write(alice, text)
    line = bob.page.locator(".message__text").last
    expect(line).to_have_text(text)
    expect(line.locator("img")).to_have_count(0)
    link = line.get_by_role("link")
    expect(link).to_have_attribute("href", "https://example.org/a?b=1")
    expect(link).to_have_attribute("target", "_blank")
    expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")


def test_the_newest_line_stays_in_view(two: tuple[Person, Person]) -> None:
    """When the window gets lower, the draft grows and files wait."""
    alice, _ = two
    page = opened(alice)
    for number in range(25):
        page.evaluate("(text) => window.room.chat(text)", f"filling {number}")
    last = page.locator(".message__text", has_text="filling 24")
    expect(last).to_be_in_viewport()
    page.route("**/files", lambda route: None)  # they go on for as long as the test
    for change in (
        lambda: page.evaluate(_SHRINK_JS),
        lambda: page.set_viewport_size({"width": 1280, "height": 420}),
        lambda: page.fill("#chat-input", "a draft\nof\nmany\nlines"),
        lambda: [give(page, name, b"x") for name in ("one.txt", "two.txt")],
    ):
        change()
        eventually(lambda: page.evaluate(_END_JS), "the end is in view")
    for cancel in page.get_by_role("button", name="Cancel").all()[::-1]:
        cancel.click()
    page.unroute("**/files")
    page.fill("#chat-input", "")
    page.set_viewport_size({"width": 1280, "height": 720})
    page.evaluate("document.querySelector('#chat-log').parentElement.removeAttribute('style')")


def test_what_is_new_is_counted_and_marked(two: tuple[Person, Person]) -> None:
    alice, bob = two
    write(bob, "first")
    bob.page.keyboard.press("Escape")
    expect(bob.page.locator("#chat-button")).to_be_focused()
    write(alice, "second")
    write(alice, "third")
    expect(bob.page.locator("#chat-count")).to_have_text("2")
    expect(bob.page.locator("#chat-button")).to_have_accessible_name("Chat, 2 unread")
    expect(bob.page.locator("#announcer")).to_contain_text("Message from alice: second")
    opened(bob)
    expect(bob.page.locator("#chat-count")).to_be_hidden()
    lines = bob.page.locator("#chat-log > *").all_inner_texts()
    new = lines.index("New")
    assert [line.split("\n")[-1] for line in lines[new - 1 :]] == ["first", "New", "second", "third"]
    assert [line.count("alice") for line in lines[new + 1 :]] == [1, 0]  # one name over both
    bob.page.keyboard.press("Escape")
    opened(bob)
    expect(bob.page.get_by_text("New", exact=True)).to_have_count(0)


@pytest.mark.soak
def test_who_comes_later_reads_what_was_written(server: Server, person: People, two: tuple[Person, Person]) -> None:
    alice, _ = two
    write(alice, "before carol came")
    carol = person(server, "carol", quiet=True).join("chat")
    expect(carol.page.locator("#chat-count")).to_be_hidden()
    expect(opened(carol).locator(".message").last).to_contain_text("before carol came")
    expect(carol.page.get_by_text("deleted soon after everyone has left")).to_be_visible()
    alice.page.reload()
    expect(opened(alice).get_by_text("before carol came")).to_have_count(1)


def test_a_draft_outlives_the_panel_and_the_page(two: tuple[Person, Person]) -> None:
    alice, _ = two
    opened(alice).fill("#chat-input", "half a thou")
    alice.page.keyboard.press("Escape")
    alice.page.reload()
    expect(opened(alice).locator("#chat-input")).to_have_value("half a thou")
    alice.page.press("#chat-input", "Enter")
    expect(alice.page.locator(".message").last).to_contain_text("half a thou")
    expect(alice.page.locator("#chat-input")).to_have_value("")


def test_a_file_reaches_the_room(two: tuple[Person, Person]) -> None:
    alice, bob = two
    content = bytes(range(256)) * 10
    give(opened(alice), "Überblick & Plan.txt", content)
    card = opened(bob).get_by_role("link", name="Download Überblick & Plan.txt, 3 kB")
    with bob.page.expect_download() as downloading:
        card.click()
    assert downloading.value.suggested_filename == "Überblick & Plan.txt"
    assert Path(downloading.value.path()).read_bytes() == content
    expect(alice.page.locator(".uploads li")).to_have_count(0)

    give(alice.page, "large.bin", bytes(FILE_BYTES + 1))
    expect(alice.page.get_by_text("large.bin is 100 kB. The limit is 100 kB.")).to_be_visible()
    expect(bob.page.get_by_role("link", name="large.bin")).to_have_count(0)


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_a_file_is_pasted_or_dropped(two: tuple[Person, Person], event: str) -> None:
    alice, _ = two
    opened(alice).evaluate(
        """(type) => {
            const data = new DataTransfer();
            data.items.add(new File(['hello'], `${type}.txt`, { type: 'text/plain' }));
            const init = { bubbles: true, cancelable: true, clipboardData: data, dataTransfer: data };
            const made = type === 'paste' ? new ClipboardEvent(type, init) : new DragEvent(type, init);
            document.getElementById('chat-input').dispatchEvent(made);
        }""",
        event,
    )
    expect(alice.page.get_by_role("link", name=f"Download {event}.txt")).to_be_visible()


def refuse(route: Route) -> None:
    """As while the database is away."""
    route.fulfill(status=503, json={"code": "database_unavailable"})


def test_a_file_that_was_not_sent_can_be_sent_again_or_given_up(two: tuple[Person, Person]) -> None:
    alice, bob = two
    held: list[Route] = []
    opened(alice).route(
        "**/files", lambda route: held.append(route), times=1
    )  # a network that lets nothing through yet
    give(alice.page, "slow.txt", b"hello")
    expect(alice.page.get_by_role("progressbar", name="Sending slow.txt")).to_be_visible()
    held.pop().abort()
    expect(alice.page.get_by_text("Not sent. The connection failed.", exact=True)).to_be_visible()
    alice.page.route("**/files", refuse, times=1)
    alice.page.locator(".uploads").get_by_role("button", name="Try again").click()
    expect(alice.page.get_by_text("Not sent. Files can’t be sent right now.", exact=True)).to_be_visible()
    alice.page.locator(".uploads").get_by_role("button", name="Try again").click()
    expect(opened(bob).get_by_role("link", name="Download slow.txt")).to_have_count(1)
    expect(alice.page.locator(".uploads li")).to_have_count(0)

    alice.page.route("**/files", lambda route: held.append(route), times=1)
    give(alice.page, "never.txt", b"hello")
    alice.page.get_by_role("button", name="Cancel never.txt").click()
    expect(alice.page.locator(".uploads li")).to_have_count(0)
