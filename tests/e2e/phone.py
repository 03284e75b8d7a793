"""How long a phone waits for the page: `python -m tests.e2e.phone [times] [path]` prints medians for each network.

Usable is when the button to go in is drawn and a press of it is answered: with no name given, by asking for one. Times
are from the start of the navigation, with an empty cache and a new profile.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from people import FAKE_DEVICES, launch  # noqa: E402
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright  # noqa: E402
from support.process import Server  # noqa: E402

PHONE: dict[str, Any] = {
    "viewport": {"width": 412, "height": 823},
    "device_scale_factor": 1.75,
    "has_touch": True,
    "is_mobile": True,
    "permissions": ["camera", "microphone"],
    "locale": "en",
}
SLOWDOWN = 4
"""Of the processor, as Lighthouse and WebPageTest take for a phone of the middle class."""
NETWORKS: dict[str, tuple[float, float]] = {
    "none": (0, 0),
    "4G": (9, 60),
    "fast 4G of DevTools": (8.1, 165),
    "slow 4G of Lighthouse": (1.6, 150),
}
"""Mbit/s down and ms from a request to its response."""

USABLE_JS = """
window.usable = new Promise((resolve) => {
    const press = () => {
        document.getElementById('join-button').click();
        if (document.querySelector('#name-input[aria-invalid=true]')) resolve(performance.now());
        else look();
    };
    const look = () => {
        const seen = document.querySelector('main:not([hidden]) #join-button:not(:empty)')?.offsetHeight;
        if (seen) requestAnimationFrame(() => setTimeout(press)); // it is drawn
        else setTimeout(look, 10);
    };
    look();
});
"""


def throttle(page: Page, mbps: float, ms: float, slowdown: float = SLOWDOWN) -> CDPSession:
    """Slows a page's processor and network down (0: not)."""
    cdp = page.context.new_cdp_session(page)
    cdp.send("Emulation.setCPUThrottlingRate", {"rate": slowdown})
    cdp.send("Network.enable")
    down = mbps * 1e6 / 8 or -1
    conditions = {"offline": False, "latency": ms, "downloadThroughput": down, "uploadThroughput": down}
    cdp.send("Network.emulateNetworkConditions", conditions)
    return cdp


def usable_ms(browser: Browser, url: str, mbps: float, ms: float, slowdown: float) -> float:
    """Of one visit with a profile of its own."""
    context = browser.new_context(**PHONE)
    try:
        page = context.new_page()
        page.add_init_script(USABLE_JS)
        throttle(page, mbps, ms, slowdown)
        page.goto(url)
        found: float = page.evaluate("window.usable")
        return found
    finally:
        context.close()


def main(times: str = "9", path: str = "/?room=Design review") -> None:
    server = Server().start()
    try:
        with sync_playwright() as playwright, launch(playwright, FAKE_DEVICES) as browser:
            for name, (mbps, ms) in NETWORKS.items():
                for slowdown in (1, SLOWDOWN):
                    took = [usable_ms(browser, server.url + path, mbps, ms, slowdown) for _ in range(int(times))]
                    spread = f"{min(took):.0f} to {max(took):.0f}"
                    print(f"{name}, processor / {slowdown}: {median(took):.0f} ms ({spread})", flush=True)
    finally:
        server.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
