"""`sfu doctor --phone`: the page on a phone and the terminal say the same, with UDP open and blocked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from people import HERE
from playwright.sync_api import Browser, Page, expect
from support.process import ROOT, Server
from support.relay import HOST
from support.variants import variants
from wires import TcpWire

PHONE = {"width": 390, "height": 844}


class Terminal:
    """A running `sfu doctor --phone --json`."""

    def __init__(self, server: Server, *options: str) -> None:
        command = [sys.executable, "-m", "sfu", "doctor", "--phone", "--json", *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, cwd=ROOT, env=server.env, text=True, **pipes)  # type: ignore[call-overload]
        self.invitation: dict[str, Any] = self.line()

    def line(self) -> dict[str, Any]:
        text = self.process.stdout.readline()
        assert text, self.process.stderr.read()
        found: dict[str, Any] = json.loads(text)
        return found

    def end(self) -> int:
        return int(self.process.wait(30))


@contextmanager
def terminal(server: Server, *options: str) -> Iterator[Terminal]:
    made = Terminal(server, *options)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        for pipe in (made.process.stdout, made.process.stderr):
            pipe.close()


@contextmanager
def phone(browser: Browser, url: str, language: str = "en") -> Iterator[Page]:
    context = browser.new_context(viewport=PHONE, locale=language, ignore_https_errors=True)  # type: ignore[arg-type]
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    yield page
    assert problems == []
    context.close()


def legs(page: Page) -> dict[str, tuple[str, str]]:
    """Of each leg the state and the sentence."""
    rows = page.locator(".leg")
    found = [(row.get_attribute("class") or "", row.locator(".leg__text").inner_text()) for row in rows.all()]
    names = ("signalling", "udp", "tcp", "relay")
    return {name: (of.removeprefix("leg is-"), text) for name, (of, text) in zip(names, found, strict=True)}


def test_everything_open(start_server: Callable[..., Server], browser: Browser) -> None:
    server = start_server("--self-signed")
    with terminal(server) as running, phone(browser, running.invitation["url"]) as page:
        assert running.invitation["url"].startswith(f"https://127.0.0.1:{server.port}/phone.html#"), "not localhost"
        expect(page.locator("#verdict")).to_have_text("Calls work from this device.")
        shown = legs(page)
        assert [shown[name][0] for name in ("signalling", "udp", "tcp", "relay")] == ["ok", "ok", "ok", "off"]
        assert shown["udp"][1].startswith("Works. The picture came back after ")
        said = running.line()
        assert said["client"] == "127.0.0.1"
        assert [one["status"] for one in said["legs"].values()] == ["ok", "ok", "ok"]
        assert said["legs"]["tcp"]["text"].startswith(f"TCP {server.port} works: media came back after ")
        assert running.end() == 0
    assert server.get("/health")["peers"] == 0
    assert "unreached" not in server.output


def test_udp_blocked_and_tcp_as_a_fallback(start_server: Callable[..., Server], browser: Browser) -> None:
    """Nothing listens for UDP at the advertised address; TCP there leads to the server."""
    server = start_server(public_ip=HOST)
    wire = TcpWire(server.port, (HOST, server.port))
    try:
        with terminal(server) as running:
            assert running.invitation["url"].startswith(f"http://{HOST}:{server.port}/phone.html#")
            assert "The server speaks http." in " ".join(running.invitation["hints"])
            with phone(browser, running.invitation["url"].replace(HOST, HERE)) as page:
                expect(page.locator("#verdict")).to_have_text(
                    "Calls work from this device, but not over UDP, so they are less smooth."
                )
                shown = legs(page)
                assert shown["udp"][0] == "failed"
                assert shown["udp"][1].startswith(f"UDP to {HOST}:{server.port} does not arrive. Open it in the ")
                assert shown["tcp"][0] == "ok"
                expect(page.locator("#more")).to_contain_text("browsers refuse camera and microphone here")
            said = running.line()["legs"]
            assert said["udp"]["status"] == "failed"
            text = said["udp"]["text"]
            assert text == f"UDP {server.port} does not arrive; TCP works as a fallback."
            assert said["udp"]["fix"].startswith("Open it in the provider's firewall")
            assert running.end() == 1
    finally:
        wire.close()


def test_a_stranger_cannot_use_the_page_and_the_link_ends_with_the_command(server: Server, browser: Browser) -> None:
    for secret in ("", "#" + "x" * 32):
        with phone(browser, f"{server.url}/phone.html{secret}") as page:
            expect(page.locator("#verdict")).to_have_text("This link is no longer valid.")
    with terminal(server) as running:
        url = running.invitation["url"]
    with phone(browser, url) as page:
        expect(page.locator("#verdict")).to_have_text("This link is no longer valid.")
        assert "sfu doctor --phone" in legs(page)["signalling"][1]


@pytest.mark.parametrize("language", ["ar", *variants("de")])
def test_in_other_languages(server: Server, browser: Browser, language: str) -> None:
    title = {"ar": "اختبار الاتصال", "de": "Verbindungstest"}[language]
    with terminal(server) as running, phone(browser, running.invitation["url"], language) as page:
        expect(page.locator("h1")).to_have_text(title)
        expect(page.locator("#verdict")).to_have_class("probe__verdict is-ok")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert page.evaluate("document.documentElement.dir") == ("rtl" if language == "ar" else "ltr")
