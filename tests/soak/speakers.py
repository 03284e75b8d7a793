"""Twelve pages in a room where each gets four videos: how many come, and how soon who begins to speak is seen."""

from __future__ import annotations

import urllib.parse
from pathlib import Path
from typing import Any

from people import launch
from playwright.sync_api import Page, sync_playwright
from process import Server, eventually

PEERS, LAST_N, TURNS = 12, 4, 4
SEEN_MS = 1000
"""Goal: from the first loud sample to a picture, in everybody's browser."""
WATCH_MS = 2000


def run(origin: str) -> dict[str, Any]:
    server = Server(allowed_origins=origin, last_n=str(LAST_N)).start()
    try:
        with sync_playwright() as playwright, launch(playwright) as browser:
            context = browser.new_context()
            context.add_init_script(path=Path(__file__).parent / "light.js")
            pages = [context.new_page() for _ in range(PEERS)]
            for number, page in enumerate(pages):
                socket = f"ws://127.0.0.1:{server.port}/ws?room=team&username=p{number}"
                page.goto(f"{origin}/?{urllib.parse.urlencode({'socket': socket})}")
            for page in pages:
                eventually(lambda page=page: len(page.evaluate("frames_by_peer()")) == PEERS - 1, "all are brought", 60)
            return _measure(pages)
    finally:
        server.close()


def _measure(pages: list[Page]) -> dict[str, Any]:
    everybody = set().union(*(page.evaluate("frames_by_peer()") for page in pages))
    after_ms, most = [], _coming(pages)
    for speaker in pages[-1 : -1 - TURNS : -1]:  # those who came last, whom nobody gets before they speak
        (peer,) = everybody - set(speaker.evaluate("frames_by_peer()"))
        others = [page for page in pages if page is not speaker]
        for page in others:
            page.evaluate("(peer) => void watch(peer)", peer)
        began_ms = speaker.evaluate("speak(true)")
        seen_ms = [eventually(lambda page=page: page.evaluate("seen"), "who speaks is seen") for page in others]
        after_ms += [ms - began_ms for ms in seen_ms]
        most = max(most, _coming(pages))
        speaker.evaluate("speak(false)")
        speaker.wait_for_timeout(WATCH_MS)
    after_ms.sort()
    return {"videos_most": most, "seen_ms_median": after_ms[len(after_ms) // 2], "seen_ms_worst": after_ms[-1]}


def _coming(pages: list[Page]) -> int:
    """The most videos of which any page gets new frames."""
    before = [page.evaluate("frames_by_peer()") for page in pages]
    pages[0].wait_for_timeout(WATCH_MS)
    after = [page.evaluate("frames_by_peer()") for page in pages]
    return max(sum(b[peer] > a[peer] for peer in a) for a, b in zip(before, after, strict=True))


def missed(row: dict[str, Any]) -> list[str]:
    found = [f"{row['videos_most']} videos came, not {LAST_N}"] if row["videos_most"] > LAST_N else []
    if row["seen_ms_worst"] > SEEN_MS:
        found.append(f"who spoke was seen after {row['seen_ms_worst']} ms")
    return found
