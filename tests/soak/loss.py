"""Two browsers in a call over a network that loses, doubles and reorders: what of it is seen and heard.

Every datagram of both browsers, up and down, meets the same chances, so what one says passes them twice before the
other hears it: at 10 % per direction, 19 % of the packets are lost at least once.
"""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from people import FAKE_DEVICES, launch
from playwright.sync_api import Browser, sync_playwright
from support.process import Server
from support.relay import HOST, Relay, Shape
from support.waiting import eventually

GOALS = {0.05: (0.5, 3.0), 0.1: (2.0, 6.0), 0.2: (8.0, 12.0)}
"""By loss: per cent of video still missing after all retransmission, and of sound that was made up."""
SETTLE_S = 5.0

_STATS_JS = """async () => {
    const found = {};
    for (const one of (await pc.getStats()).values()) if (one.type === 'inbound-rtp') found[one.kind] = one;
    return found;
}"""


def shape(loss: float) -> Shape:
    return Shape(loss=loss, duplicate=0.02, reorder=0.05, hold_s=0.03)


@contextmanager
def ours(origin: str) -> Iterator[str]:
    """This project's server; yields where it takes calls."""
    server = Server(allowed_origins=origin, public_ip=HOST, limits="off").start()
    try:
        yield f"ws://127.0.0.1:{server.port}/ws"
    finally:
        server.close()


def run(name: str, origin: str, url: str, losses: list[float], seconds: float, seed: int) -> list[dict[str, Any]]:
    """A row for each loss, the mean of both browsers."""
    port = urllib.parse.urlsplit(url).port
    assert port is not None
    with sync_playwright() as playwright, launch(playwright, FAKE_DEVICES) as browser:
        return [{"server": name} | _call(browser, origin, url, Relay(port, seed), loss, seconds) for loss in losses]


def _call(browser: Browser, origin: str, url: str, relay: Relay, loss: float, seconds: float) -> dict[str, Any]:
    context = browser.new_context(permissions=["camera", "microphone"])
    context.add_init_script(path=Path(__file__).parent / "relayed.js")
    context.expose_function("relayed", relay.listen)
    with relay:
        pages = [context.new_page() for _ in range(2)]
        for page, person in zip(pages, ("alice", "bob"), strict=True):
            page.goto(f"{origin}/?{urllib.parse.urlencode({'socket': f'{url}?room=loss-{loss}&username={person}'})}")
        for page in pages:
            eventually(lambda page=page: page.evaluate("min => window.shown?.()[0] >= min", 10), "pictures", 30)
        for direction in ("up", "down"):
            relay.shape(direction, shape(loss))
        pages[0].wait_for_timeout(SETTLE_S * 1e3)
        before, began_s = [page.evaluate(_STATS_JS) for page in pages], time.monotonic()
        pages[0].wait_for_timeout(seconds * 1e3)
        after, passed_s = [page.evaluate(_STATS_JS) for page in pages], time.monotonic() - began_s
        context.close()
        found = [_figures(_grown(a, b), passed_s) for a, b in zip(after, before, strict=True)]
        return {"loss": loss, "seconds": passed_s} | {key: (found[0][key] + found[1][key]) / 2 for key in found[0]}


def _grown(after: Any, before: Any) -> dict[str, dict[str, float]]:
    """What each counter of each kind counted meanwhile."""
    return {
        kind: {key: value - before[kind].get(key, 0) for key, value in report.items() if isinstance(value, int | float)}
        for kind, report in after.items()
    }


def _figures(grown: dict[str, dict[str, float]], seconds: float) -> dict[str, float]:
    """`packetsLost` (RFC 3550 section 6.4.1) counts what never came under its own SSRC; retransmissions on another one
    (RFC 4588) are counted apart. What the network doubled is in neither: SRTP drops it."""
    video, audio = grown["video"], grown["audio"]
    lost = video["packetsLost"] - video.get("retransmittedPacketsReceived", 0)
    return {
        "video_lost_pct": 100 * max(0.0, lost) / max(1.0, video["packetsReceived"] + max(0.0, lost)),
        "audio_concealed_pct": 100 * audio["concealedSamples"] / max(1.0, audio["totalSamplesReceived"]),
        "audio_lost_pct": 100 * audio["packetsLost"] / max(1.0, audio["packetsReceived"] + audio["packetsLost"]),
        "freezes_per_min": 60 * video["freezeCount"] / seconds,
        "frozen_pct": 100 * video["totalFreezesDuration"] / seconds,
        "frames_per_s": video["framesDecoded"] / seconds,
        "kbps": video["bytesReceived"] * 8 / 1e3 / seconds,
        "nacks_per_s": video["nackCount"] / seconds,
        "plis_per_min": 60 * video["pliCount"] / seconds,
        "audio_delay_ms": 1e3 * audio["jitterBufferDelay"] / max(1.0, audio["jitterBufferEmittedCount"]),
        "video_delay_ms": 1e3 * video["jitterBufferDelay"] / max(1.0, video["jitterBufferEmittedCount"]),
    }


def table(rows: list[dict[str, Any]]) -> str:
    columns = [key for key in rows[0] if key not in ("server", "loss", "seconds")]
    lines = [f"{'loss':>5} {'server':<10}" + "".join(f"{column:>20}" for column in columns)]
    for row in rows:
        lines.append(
            f"{row['loss']:>5.0%} {row['server']:<10}" + "".join(f"{row[column]:>20.2f}" for column in columns)
        )
        if row["server"] == "ours" and row["loss"] in GOALS:
            lines.append(f"{'':>5} {'goal':<10}" + "".join(f"{goal:>18.1f} ≤" for goal in GOALS[row["loss"]]))
    return "\n".join(lines)


def missed(rows: list[dict[str, Any]]) -> list[str]:
    found = []
    for row in rows:
        if row["server"] == "ours" and row["loss"] in GOALS:
            for key, goal in zip(("video_lost_pct", "audio_concealed_pct"), GOALS[row["loss"]], strict=True):
                if row[key] > goal:
                    found.append(f"{key} at {row['loss']:.0%} is {row[key]:.1f}, not {goal:g}")
    return found
