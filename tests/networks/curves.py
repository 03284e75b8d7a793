"""Rate over time in four networks, drawn for docs/networks.md: what the link can carry, what was sent onto it, how long
packets waited, and which picture was shown."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from support.process import ROOT

from networks.cases import CASES, Case

PICTURE = ROOT / "docs" / "networks.svg"
DRAWN = ("step-300", "1500k", "250k", "loss-10")
WIDTH, HEIGHT, LEFT, RIGHT, TOP = 460, 190, 46, 14, 34
GAP_X, GAP_Y = 24, 92
BAND = 12
"""Of the strip below each diagram that shows the picture."""
STILL, PAUSED = "#444441", "#b4b2a9"
SHADES = {90: "#f5c4b3", 180: "#f0997b", 360: "#5dcaa5", 720: "#1d9e75"}
"""By lines of the picture, a larger one darker."""
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #444441 } .name { font-weight: 600; font-size: 13px }
.small { font-size: 11px; fill: #5f5e5a } .grid { stroke: #d3d1c7; stroke-width: 1 }
.link { fill: none; stroke: #a32d2d; stroke-width: 1.5; stroke-dasharray: 5 3 }
.sent { fill: none; stroke: #185fa5; stroke-width: 1.5 } .came { fill: #185fa5; opacity: .18 }
"""


def draw(rows: Iterable[dict[str, Any]], path: Path = PICTURE) -> None:
    """Writes the picture of the last try of each case in DRAWN. It stays as it is if one was not tried."""
    by_case = {row["case"]: row["curves"] for row in rows if "curves" in row}
    if lacking := [name for name in DRAWN if name not in by_case]:
        print(f"{path} stays as it is, for want of {', '.join(lacking)}.")
        return
    width, height = 2 * WIDTH + GAP_X, 2 * (HEIGHT + GAP_Y) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"',
        ' aria-label="Rate over time in four networks">',
        f'<style>{STYLE}</style><rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for i, name in enumerate(DRAWN):
        case = next(case for case in CASES if case.name == name)
        parts += [
            f'<g transform="translate({i % 2 * (WIDTH + GAP_X)} {i // 2 * (HEIGHT + GAP_Y)})">',
            *_diagram(case, by_case[name]),
            "</g>",
        ]
    parts += [*_legend(height - 16), "</svg>\n"]
    path.write_text("\n".join(parts))


def _diagram(case: Case, found: dict[str, list[list[float]]]) -> Iterable[str]:
    seconds = case.seconds
    top = _ceiling(max([kbps for _, kbps in found["offered"]] + [500.0]))
    if found["rate"]:
        top = min(top, _ceiling(2 * max(rate for _, rate in found["rate"])))  # what is sent onto it for a moment is cut

    def x(at: float) -> float:
        return round(LEFT + at / seconds * (WIDTH - LEFT - RIGHT), 1)

    def y(kbps: float) -> float:
        return round(TOP + (1 - min(kbps, top) / top) * (HEIGHT - TOP), 1)

    yield f'<text class="name" x="{LEFT}" y="18">{escape(case.about[0].upper() + case.about[1:])}</text>'
    for share in (0, 0.5, 1):
        line = y(share * top)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{line}" y2="{line}"/>'
        yield f'<text class="small" x="{LEFT - 6}" y="{line + 4}" text-anchor="end">{share * top / 1e3:g}</text>'
    came = " ".join(f"{x(at + 0.5)},{y(kbps)}" for at, kbps in found["delivered"])
    yield f'<polygon class="came" points="{x(0.5)},{y(0)} {came} {x(seconds - 0.5)},{y(0)}"/>'
    sent = " ".join(f"{x(at + 0.5)},{y(kbps)}" for at, kbps in found["offered"])
    yield f'<polyline class="sent" points="{sent}"/>'
    if found["rate"]:
        yield f'<polyline class="link" points="{_stairs(found["rate"], seconds, x, y)}"/>'
    yield from _strip(found, seconds, x)
    for at in range(0, int(seconds) + 1, 15):
        yield f'<text class="small" x="{x(at)}" y="{HEIGHT + BAND + 24}" text-anchor="middle">{at} s</text>'


def _ceiling(kbps: float) -> float:
    """A round number above."""
    return 500.0 * math.ceil(kbps / 500.0)


def _stairs(steps: list[list[float]], end: float, x: Any, y: Any) -> str:
    points = []
    for (at, rate), (until, _) in zip(steps, [*steps[1:], [end, 0.0]], strict=True):
        points += [f"{x(at)},{y(rate)}", f"{x(until)},{y(rate)}"]
    return " ".join(points)


def _strip(found: dict[str, list[list[float]]], seconds: float, x: Any) -> Iterable[str]:
    """The lines of the picture over time, and where it stood still or was paused."""
    heights, still, paused = (
        next((spans for name, spans in found.items() if name.startswith(f"{what} ")), [])
        for what in ("height", "still", "paused")
    )
    spans = [
        (at, until, SHADES.get(int(height), "#888780"))
        for (at, height), (until, _) in zip(heights, [*heights[1:], [seconds, 0.0]], strict=True)
    ]
    for at, until, shade in [*spans, *((*span, STILL) for span in still), *((*span, PAUSED) for span in paused)]:
        width = round(max(0.5, x(until) - x(at)), 1)
        yield f'<rect x="{x(at)}" y="{HEIGHT + 6}" width="{width}" height="{BAND}" fill="{shade}"/>'


def _legend(line: float) -> Iterable[str]:
    yield f'<g transform="translate({LEFT} {line})">'
    at = 0
    for kind, text in (("link", "link, Mbps"), ("sent", "sent onto it"), ("came", "delivered")):
        if kind == "came":
            yield f'<rect class="came" x="{at}" y="-9" width="24" height="10"/>'
        else:
            yield f'<line class="{kind}" x1="{at}" x2="{at + 24}" y1="-4" y2="-4"/>'
        yield f'<text x="{at + 30}" y="0">{text}</text>'
        at += 130
    for text, shade in (
        *((f"{lines}p", shade) for lines, shade in SHADES.items()),
        ("still", STILL),
        ("paused", PAUSED),
    ):
        yield f'<rect x="{at}" y="-10" width="14" height="12" fill="{shade}"/>'
        yield f'<text x="{at + 20}" y="0">{text}</text>'
        at += 70
    yield "</g>"
