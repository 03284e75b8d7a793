"""One case in the lab: alice joins a call, and either sees bob or reads why she cannot."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from people import QUIET_JS, Person, camera_script
from playwright.sync_api import Browser, Error
from support.namespaces import ServerOn
from support.waiting import eventually

from net.cases import Case
from net.lab import Lab

ROOM = "net"
PATIENCE_S = 60.0
_WATCH_JS = """() => {
    window.saw = {};
    const look = () => {
        const tiles = document.querySelectorAll('.tile.has-picture:not(.is-self) video');
        const video = [...tiles].find((one) => one.videoWidth);
        if (video) video.requestVideoFrameCallback(() => { window.saw.picture ??= performance.now(); });
        const banner = document.querySelector('#banner');
        if (banner?.innerText.includes('can’t connect')) window.saw.sentence ??= performance.now();
        if (!window.saw.picture) setTimeout(look, 20);
    };
    look();
}"""
"""Times in milliseconds since the page was asked for: of the first picture, and of the sentence about the cause."""
_PATH_JS = """async () => {
    const stats = await window.room.pc.getStats();
    const transport = [...stats.values()].find((one) => one.type === 'transport');
    const pair = stats.get(transport?.selectedCandidatePairId);
    const local = stats.get(pair?.localCandidateId);
    return local && (local.candidateType === 'relay' ? 'relay' : local.protocol);
}"""
_TOLD_JS = "window.room.pc.remoteDescription.sdp"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened: the way that media took, or the cause that the page names, in a case's words. `seconds` are from
    the request of the page to the first picture, or to the sentence. `told` are the addresses in the candidates."""

    happened: str
    seconds: float
    sentence: str
    advice: str
    warnings: tuple[str, ...]
    told: tuple[str, ...]
    joins: int


def attempt(lab: Lab, case: Case, of_alice: Browser, of_bob: Browser) -> Outcome:
    """Prepares the lab, starts the server, and lets alice join."""
    lab.prepare(case)
    with together(lab, case, of_alice, of_bob) as (server, *others, alice):
        eventually(lambda: _saw(alice, "picture" if case.calls else "sentence"), case.about, PATIENCE_S)
        for bob in others if case.calls else ():
            alice.sees(bob)
        return _outcome(alice, server)


@contextlib.contextmanager
def together(lab: Lab, case: Case, of_alice: Browser, of_bob: Browser) -> Iterator[Any]:
    """The server of the case; bob, unless there is nothing that he could see or send; and alice, who comes last."""
    with lab.serving(case) as server, contextlib.ExitStack() as kept:
        try:
            others = [_person(kept, of_bob, server, case, "bob")] if case.others or case.calls else []
            for bob in others if case.others else ():
                eventually(lambda: bob.page.evaluate("window.room.connected"), "bob's media flows", PATIENCE_S)  # noqa: B023 -- at once
            yield server, *others, _person(kept, of_alice, server, case, "alice")
        except BaseException:
            print(server.output)
            raise


def _person(kept: contextlib.ExitStack, browser: Browser, server: ServerOn, case: Case, name: str) -> Person:
    context = browser.new_context(permissions=["camera", "microphone"], ignore_https_errors=True)
    kept.callback(context.close)
    context.add_init_script(camera_script())
    context.add_init_script(f"({_WATCH_JS})()")
    if name != "bob":
        context.add_init_script(QUIET_JS)  # one picture shows a way, and costs half as much as two
    return Person(context, server, name).join(ROOM, host=case.page)


def _saw(alice: Person, what: str) -> float:
    """The time in seconds, 0 before."""
    try:
        return float(alice.page.evaluate("(what) => window.saw?.[what] ?? 0", what)) / 1e3
    except Error:  # the page is being loaded
        return 0.0


def _outcome(alice: Person, server: ServerOn) -> Outcome:
    told = re.findall(r"a=candidate:\d+ 1 udp \d+ (\S+) ", alice.page.evaluate(_TOLD_JS))
    warnings = tuple(line for line in server.output.splitlines() if "level=WARNING" in line)
    joins = sum(" joined room=" in line and "name='alice'" in line for line in server.output.splitlines())
    common: dict[str, Any] = {"warnings": warnings, "told": tuple(dict.fromkeys(told)), "joins": joins}
    if picture_s := _saw(alice, "picture"):
        way = eventually(lambda: alice.page.evaluate(_PATH_JS), "the path is known")
        return Outcome(way, picture_s, "", "", **common)
    said = " ".join(alice.page.locator("#banner").inner_text().removesuffix("Try now").split())
    sentence, found, advice = said.partition("For the ")
    cause = alice.page.evaluate("window.room.unreached.cause")
    return Outcome(cause, _saw(alice, "sentence"), sentence.strip(), found + advice, **common)
