"""A team's first meeting, from the wheel to its history, with what everybody reads on the way.

The server is installed into a new environment, keeps its data in PostgreSQL, and is behind nginx with TLS, below a
path. The host and one guest have computers, the other guest has a phone.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from people import Person, camera_script
from phone import PHONE
from playwright.sync_api import Browser, Locator, expect
from support.process import Server
from support.proxies import SITES, running
from support.pythons import environment
from support.relay import HOST, Relay
from support.waiting import eventually
from test_screen import CAPTURE_JS
from wires import TcpWire

pytestmark = pytest.mark.soak

if TYPE_CHECKING:
    from support.postgres import Postgres

pytest_plugins = ["support.installed", "support.postgres"]

SITE = "nginx-below"
ROOM = "Montagsrunde"
NINE_MB = bytes(range(256)) * 36_864
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 720}, "permissions": ["camera", "microphone"]}


@dataclass
class Team:
    """What a team runs, and its members by name. `wire` is the way of Björn's computer to nginx."""

    server: Server
    network: Relay
    wire: TcpWire
    port: int
    key: str
    browser: Browser

    def api(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer of a request by the team's backend."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"{self.address()}api/v1{path}", data, headers, method=method)
        with urllib.request.urlopen(asked, timeout=10, context=ssl._create_unverified_context()) as answer:
            return json.load(answer)

    def address(self, port: int = 0) -> str:
        return f"https://127.0.0.1:{port or self.port}{SITES[SITE].path}/"

    def opens(self, name: str, device: dict[str, Any], *, port: int = 0, moderate: bool = False) -> Person:
        """Somebody opens the link that the team's backend made, on that device."""
        context = self.browser.new_context(**device)
        context.add_init_script(camera_script())
        context.add_init_script(CAPTURE_JS)
        one = Person(context, self.server, name)
        wanted = {"room_id": ROOM, "user_name": name, "permissions": {"moderate": moderate}, "single_use": True}
        one.page.goto(f"{self.address(port)}?token={self.api('POST', '/tokens', wanted)['token']}")
        return one


@pytest.fixture
def team(browser: Browser, wheel: Path, postgres: Postgres, tmp_path: Path) -> Iterator[Team]:
    bin_dir = environment(Path(sys.executable), tmp_path / "env", str(wheel))
    server = Server(
        program=(str(bin_dir / "sfu"),),
        folder=tmp_path,
        database_url=postgres.emptied(),
        public_ip=HOST,
        trusted_proxies="127.0.0.1",
    )
    with ExitStack() as stack:
        stack.callback(server.close)
        server.start()
        stack.callback(lambda: print(server.output))
        network = stack.enter_context(Relay(server.port))
        port = stack.enter_context(running(SITE, server.port, tmp_path))
        wire = TcpWire(port)
        stack.callback(wire.close)
        made = subprocess.run([bin_dir / "sfu", "company", "create", "Acme"], env=server.env, capture_output=True)
        yield Team(server, network, wire, port, made.stdout.decode().strip(), browser)


def reads(one: Person, *texts: str) -> None:
    """Waits until the page shows each of these."""
    for text in texts:
        expect(one.page.get_by_text(text, exact=True).and_(one.page.locator(":visible")).first).to_be_visible()


def named(one: Person, other: Person) -> Locator:
    return one.page.locator(f'.tile[data-peer="{other.peer}"]')


def all_see_each_other(*people: Person) -> None:
    for one in people:
        for other in people:
            if other is not one:
                one.sees(other)
                expect(named(one, other).locator(".plate").first).to_contain_text(other.name)


@pytest.mark.timeout(400)
def test_a_meeting(team: Team, tmp_path: Path) -> None:
    ana = team.opens("Ana", DESKTOP, moderate=True)
    arrives_first(ana)
    bjorn, chidi = team.opens("Björn", DESKTOP, port=team.wire.port), team.opens("Chidi", PHONE)
    for guest, inside in ((bjorn, "Ana"), (chidi, "Ana and Björn")):
        arrives(guest, inside)
    everybody = ana, bjorn, chidi
    all_see_each_other(*everybody)
    shares_a_screen(bjorn, chidi)
    locks(ana)
    is_kept_out(team)
    reloads(bjorn, chidi)
    changes_networks(team, bjorn)
    all_see_each_other(*everybody)
    restarts(team, everybody)
    all_see_each_other(*everybody)
    sends_a_file(bjorn, chidi, tmp_path)
    ends(ana, bjorn, chidi)
    is_history(team)
    assert [problem for one in everybody for problem in one.problems] == []


def arrives_first(host: Person) -> None:
    reads(host, ROOM, "No one is in the room yet", "This name comes from your invitation.")
    reads(host, "You’ll join with your microphone and camera on.")
    host.page.get_by_role("button", name="Join room").click()
    reads(host, "You’re the only one here")


def arrives(guest: Person, inside: str) -> None:
    reads(guest, ROOM, inside)
    guest.page.get_by_role("button", name="Join room").click()
    eventually(lambda: guest.peer, f"{guest.name} is in the room")


def shares_a_screen(sharer: Person, other: Person) -> None:
    sharer.page.get_by_role("button", name="Share", exact=True).click()
    other.sees(sharer, "screen")
    sharer.page.get_by_role("button", name="Stop sharing").first.click()
    expect(other.page.locator(".tile[data-source=screen]")).to_have_count(0)


def locks(host: Person) -> None:
    host.page.get_by_role("button", name="People", exact=True).click()
    host.page.get_by_role("button", name="Manage", exact=True).click()
    host.page.get_by_role("switch", name="Lock the room").click()
    reads(host, "The room is locked.")
    host.page.keyboard.press("Escape")
    host.page.keyboard.press("Escape")


def is_kept_out(team: Team) -> None:
    late = team.opens("Dora", DESKTOP)
    reads(late, f"{ROOM} is locked", "Ask a moderator to unlock it, then try again.")
    late.context.close()


def reloads(guest: Person, other: Person) -> None:
    """The room is locked, and the token was for one visit."""
    guest.page.reload()
    eventually(lambda: guest.peer, f"{guest.name} is in the room again")
    guest.sees(other)
    guest.page.get_by_role("button", name="Chat", exact=True).click()
    expect(guest.page.locator("#chat-input")).to_be_visible()  # with this, the page has loaded all its parts
    guest.page.keyboard.press("Escape")


def changes_networks(team: Team, guest: Person) -> None:
    """As when a phone leaves the Wi-Fi: its connection breaks, and its media comes from another address."""
    before = guest.peer
    team.wire.up = False
    team.network.rebind()
    expect(guest.page.locator("#banner-title")).to_have_text("Reconnecting")
    team.wire.up = True
    expect(guest.page.locator("#banner")).to_be_hidden()
    assert guest.peer == before


def restarts(team: Team, everybody: tuple[Person, ...]) -> None:
    before = [one.peer for one in everybody]
    assert team.server.stop() == 0
    for one in everybody:
        reads(one, "The server is restarting", "You’ll be reconnected automatically, usually within a minute.")
    team.server.start()
    for one, peer in zip(everybody, before, strict=True):
        eventually(lambda one=one, peer=peer: one.has_come_back(peer), f"{one.name} is in the room again")  # type: ignore[misc]


def sends_a_file(sender: Person, other: Person, folder: Path) -> None:
    sender.page.get_by_role("button", name="Chat", exact=True).click()
    reads(sender, "Messages and files are kept for 24 hours.")
    (folder / "minutes.bin").write_bytes(NINE_MB)
    sender.page.set_input_files("#chat-files", folder / "minutes.bin")
    other.page.locator("#chat-button").click()
    with other.page.expect_download() as download:
        other.page.get_by_role("link", name="Download minutes.bin, 9.4 MB").click()
    download.value.save_as(folder / "received.bin")
    assert (folder / "received.bin").read_bytes() == NINE_MB


def ends(host: Person, *guests: Person) -> None:
    host.page.get_by_role("button", name="People", exact=True).click()
    host.page.get_by_role("button", name="Manage", exact=True).click()
    host.page.get_by_role("button", name="End for everyone").click()
    reads(host, "End the call for everyone?", "Everyone leaves the call, including you.")
    host.page.get_by_role("dialog", name="End the call").get_by_role("button", name="End for everyone").click()
    reads(host, "The meeting is over", "You ended it for everyone.")
    for one in guests:
        reads(one, "The meeting is over", "It was ended for everyone.")


def is_history(team: Team) -> None:
    """One stay each, over reloads, other networks and the restart; and who was kept out is not in it."""
    sessions = team.api("GET", f"/rooms/{ROOM}/sessions")["items"]
    stays = sorted((one["user_name"], one["leave_reason"]) for one in sessions)
    assert stays == [(name, "call_ended") for name in ("Ana", "Björn", "Chidi")]
    assert all(one["disconnected_at"] and one["duration_s"] > 0 and one["token_id"] for one in sessions)
