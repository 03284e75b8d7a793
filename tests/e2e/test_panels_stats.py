"""The connection panel in a real call, and the words it finds for numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from people import Person
from playwright.sync_api import expect
from support.process import Server

pytestmark = pytest.mark.soak

People = Callable[..., Person]
RATE = re.compile(r"[1-9]\d* kb/s|\d+\.\d Mb/s")


def stream(sent: bool, loss: float | None) -> dict[str, Any]:
    return {"sent": sent, "loss": loss}


MINE, THEIRS = {"peer": "me"}, {"peer": "them"}
VERDICTS = (  # round trip, streams, the server's score for this side and whom it blames, the word
    (None, [], 5, None, "none"),
    (20, [], 5, None, "good"),
    (20, [stream(True, None), stream(False, 0.01)], 5, None, "good"),
    (20, [stream(False, 0.03)], 5, None, "weak"),
    (20, [stream(False, 0.2), stream(False, 0)], 5, None, "weak"),
    (20, [stream(False, 0.2), stream(False, 0.2)], 5, None, "poor"),
    (20, [stream(True, 0.03)], 5, None, "fair"),
    (20, [stream(True, 0.03)], 2.9, None, "poor"),
    (20, [stream(True, 0.06)], 5, None, "poor"),
    (250, [], 5, None, "fair"),
    (450, [], 5, None, "poor"),
    (20, [], 5, THEIRS, "good"),
    (20, [], 3.2, MINE, "fair"),
    (20, [], 2.9, MINE, "poor"),
    (38, [stream(True, 0), stream(False, 0)], 2.9, None, "recovering"),  # never bad words beside good figures
    (38, [stream(False, 0)], 3.6, THEIRS, "recovering"),
)


def test_every_stream_has_its_numbers(server: Server, person: People) -> None:
    alice, bob = person(server, "alice").join("team"), person(server, "bob").join("team")
    alice.sees(bob)
    alice.context.grant_permissions(["clipboard-read", "clipboard-write"])
    alice.page.keyboard.press("i")
    panel = alice.page.get_by_role("complementary", name="Connection")
    expect(panel.locator(".verdict b")).to_have_text(re.compile("[Cc]onnection|link"))
    expect(panel.locator(".verdict")).to_contain_text(
        re.compile(r"\d ms to the server, (no|up to ([1-9]\d*\.\d|0\.[1-9])%) packet loss\.")
    )
    for title, format_ in {
        "Your microphone": "Opus, mono",
        "Your camera": r"\d+×\d+, \d+ fps, VP8",
        "bob, audio": "Opus, mono",
        "bob": r"\d+×\d+, \d+ fps, VP8",
    }.items():
        row = panel.locator(".stream").filter(has=alice.page.get_by_text(title, exact=True))
        expect(row.locator(".stream__top .num")).to_have_text(RATE)
        expect(row).to_contain_text(re.compile(format_))
        expect(row).to_contain_text(re.compile(r"\d+\.\d% lost"))
        expect(row).not_to_contain_text("-0.0%")
        expect(row.locator(".spark__line")).to_have_attribute("d", re.compile("^M.+L"))
    panel.get_by_role("button", name="Copy a report").click()
    expect(alice.page.get_by_text("Report copied")).to_be_visible()
    report = alice.page.evaluate("navigator.clipboard.readText()")
    assert re.search(r"^bob, (\d+ k|\d+\.\d M)b/s, \d+×\d+", report, re.M)

    bob.page.keyboard.press("v")
    alice.page.keyboard.press("m")
    gone = panel.locator(".stream").filter(has=alice.page.get_by_text("Your microphone", exact=True))
    expect(gone.locator(".stream__top .num")).to_have_text(re.compile("Off|[1-9] kb/s"))
    bob.page.evaluate("room.leave()")
    expect(panel.get_by_text("You receive")).to_be_hidden()

    found = alice.page.evaluate(
        """async (cases) => {
            const { verdict } = await import('/panels/measure.js');
            const quality = (score, cause) => ({ peers: { me: score }, cause });
            return cases.map(([rtt_ms, streams, ...told]) => verdict({ rtt_ms, streams }, quality(...told), 'me'));
        }""",
        [list(case[:4]) for case in VERDICTS],
    )
    assert found == [case[4] for case in VERDICTS]
