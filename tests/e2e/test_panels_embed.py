"""Calls inside another site's pages: those of docs/embedding.md, word for word but for the server's address."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from people import Person
from playwright.sync_api import Frame, Page, expect
from support.process import ROOT, Server
from support.waiting import eventually

People = Callable[..., Person]
ELEMENT, MODULE = re.findall(r"```html\n(.*?)```", (ROOT / "docs/embedding.md").read_text(), re.S)
EVENTS_JS = """() => {
    window.heard = [];
    const call = document.querySelector('video-room');
    for (const type of ['joined', 'participant', 'left', 'ended']) {
        call.addEventListener(type, ({ detail }) => window.heard.push([type, detail]));
    }
}"""
FRAMES_JS = "document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames ?? 0"


class Site(BaseHTTPRequestHandler):
    """Somebody else's site: /8080/element and /8080/module are the documented pages, for the server on that port."""

    def do_GET(self) -> None:
        _, port, name = f"{self.path}/".split("/")[:3]
        page = {"element": ELEMENT, "module": MODULE}.get(name, "")
        self.send_response(200 if page else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(page.replace("https://meet.example.org", f"http://127.0.0.1:{port}").encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Its origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


@pytest.fixture(scope="module")
def server(site: str) -> Iterator[Server]:
    """One for the module; the site's pages may use it."""
    running = Server(allowed_origins=site).start()
    yield running
    print(running.output)
    running.close()


_STAYS_JS = """
document.querySelector('video-room').addEventListener('left', (event) => event.stopImmediatePropagation(), true)
"""
"""The documented page keeps the element when somebody leaves."""


def frame(page: Page) -> Frame:
    """This server's page in the other site's."""
    return eventually(lambda: page.frames[1:], "the frame is there")[0]


def heard(page: Page, kind: str) -> list[dict[str, object]]:
    """Details of the element's events of a type so far."""
    found: list[dict[str, object]] = page.evaluate(
        "(kind) => heard.filter(([type]) => type === kind).map(([, detail]) => detail)", kind
    )
    return found


def test_the_documented_element_is_a_whole_call(site: str, server: Server, person: People) -> None:
    alice, bob = person(server, "alice").join("support"), person(server, "Sofia")
    bob.page.goto(f"{site}/{server.port}/element")
    bob.page.evaluate(EVENTS_JS)
    inner = frame(bob.page)
    eventually(lambda: inner.evaluate("window.room?.connected"), "Sofia is in the call")
    (peer,) = alice.page.evaluate("[...room.participants.keys()]")
    alice.moves(lambda: alice.frames(peer), "sees the embedded page")
    assert heard(bob.page, "joined") == [{"room": "support", "name": "Sofia", "peer": peer}]
    assert heard(bob.page, "participant") == [{"peer": alice.peer, "name": "alice", "present": True}]
    alice.page.evaluate("room.leave()")
    eventually(lambda: heard(bob.page, "participant")[1:], "the element tells that alice went")
    bob.page.evaluate("document.querySelector('video-room').leave()")
    eventually(lambda: heard(bob.page, "left") == [{}], "the element tells that Sofia left")
    expect(bob.page.locator("video-room")).to_have_count(0)  # the documented page removes it then


@pytest.mark.soak
def test_the_element_passes_on_all_that_a_call_uses(site: str, server: Server, person: People) -> None:
    alice = person(server, "alice")
    alice.context.grant_permissions(["camera", "microphone", "clipboard-read", "clipboard-write"])
    reply = alice.page.goto(server.url)
    assert reply
    used = {*re.findall(r"([\w-]+)=", reply.headers["permissions-policy"]), "clipboard-write"}
    alice.page.goto(f"{site}/{server.port}/element")
    inner = frame(alice.page)
    known = set(inner.evaluate("document.featurePolicy.features()"))
    assert {"camera", "clipboard-write", "screen-wake-lock", "picture-in-picture"} <= used & known
    assert used & known <= set(inner.evaluate("document.featurePolicy.allowedFeatures()"))
    passed = alice.page.evaluate("document.querySelector('video-room').shadowRoot.firstChild.allow")
    assert used == set(passed.split("; "))
    eventually(lambda: inner.evaluate("window.room?.connected"), "alice is in the call")
    inner.click("#copy-link")
    expect(inner.get_by_text("Link copied")).to_be_visible()
    alice.page.evaluate(_STAYS_JS)
    inner.click("#leave-button")
    expect(inner.locator("#end-actions button")).to_have_text(["Rejoin"])  # the room is the site's choice


def test_a_token_is_handed_over_and_stands_in_no_address(site: str, server: Server, person: People) -> None:
    alice = person(server, "alice")
    addresses: list[str] = []
    alice.page.on("request", lambda request: addresses.append(request.url))
    alice.page.goto(f"{site}/{server.port}/element")
    alice.page.evaluate(EVENTS_JS)
    alice.page.evaluate("document.querySelector('video-room').setAttribute('token', 'not.a.token')")
    (ended,) = eventually(lambda: heard(alice.page, "ended"), "the server's refusal arrives")
    assert ended["code"] == "token_malformed"
    addresses += [frame(alice.page).url]
    assert not [url for url in addresses if "not.a.token" in url]


def test_a_site_that_is_not_allowed_is_told(site: str, start_server: Callable[..., Server], person: People) -> None:
    closed = start_server()
    alice = person(closed, "alice")
    alice.page.clock.install()
    alice.page.goto(f"{site}/{closed.port}/element")
    alice.page.evaluate(EVENTS_JS)
    expect(alice.page.locator("iframe")).to_have_count(1)
    alice.page.clock.run_for(15_000)
    (ended,) = eventually(lambda: heard(alice.page, "ended"), "the element tells that it is not allowed")
    assert ended["code"] == "embedding_refused"


@pytest.mark.soak
def test_the_documented_page_on_the_protocol_alone(site: str, server: Server, person: People) -> None:
    alice, bob = person(server, "alice"), person(server, "bob")
    for one in (alice, bob):
        one.page.goto(f"{site}/{server.port}/module")
        expect(one.page).to_have_title("joined")
    for one in (alice, bob):
        expect(one.page.locator("audio")).to_have_count(1)
        one.moves(lambda one=one: one.page.evaluate(FRAMES_JS), "sees the other")
    bob.page.close()
    expect(alice.page.locator("video")).to_have_count(0)
