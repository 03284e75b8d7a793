"""The order of the folders, and the picture of it: `python docs/house.py` writes docs/house.svg.

tests/test_layers.py holds the code to the order, and the picture to the code.
"""

from __future__ import annotations

import ast
import os.path
import re
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "house.svg"

Layers = list[tuple[str, ...]]
"""From the ground up. A module imports from layers below its own, and from its own layer."""

SHARED = (
    "sfu", "sfu.errors", "sfu.refusals", "sfu.bridge", "sfu.connections", "sfu.buckets", "sfu.flood", "sfu.logs",
    "sfu.stun",
)  # fmt: skip
"""What both planes import: of the files at the top of sfu/, all but those that start, watch and stop a server."""
CONTROL: Layers = [
    SHARED,
    ("sfu.process", "sfu.limits", "sfu.network"),
    ("sfu.settings",),
    ("sfu.tenancy",),
    ("sfu.protocol",),
    ("sfu.store",),
    ("sfu.web", "sfu.webhooks"),
    ("sfu.workers",),
    ("sfu.calls",),
    ("sfu.api",),
    ("sfu.operator", "sfu.serving"),
    ("sfu.doctor",),
    ("sfu.server",),
    ("sfu.commands",),
    ("sfu.__main__",),
]
MEDIA: Layers = [
    SHARED,
    ("sfu.media", "sfu.media.rtp"),
    ("sfu.media.transport",),
    ("sfu.media.bandwidth",),
    ("sfu.media.streams",),
    ("sfu.media.peer",),
    ("sfu.media.listening", "sfu.media.priority", "sfu.media.worker", "sfu.media.probe"),
]
PAGE: Layers = [
    ("lang", "before", "late"),
    ("base", "client"),
    ("i18n", "protocol"),
    ("devices", "ui"),
    ("app",),
    ("stage", "panels", "prejoin", "phone"),
    ("call",),
    ("launch",),
    ("main", "docs", "embed"),
    ("boot",),
]


def python_modules() -> dict[str, Path]:
    """Every module of the server by its dotted name."""
    parts = ((path, path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "sfu").rglob("*.py"))
    return {".".join(names).removesuffix(".__init__"): path for path, names in parts}


def page_modules() -> dict[str, Path]:
    """Every module of the page, its path in public/ with dots."""
    public = ROOT / "public"
    return {".".join(path.relative_to(public).with_suffix("").parts): path for path in public.rglob("*.js")}


def python_imports(path: Path, modules: Iterable[str]) -> set[str]:
    """All that a file names in imports, wherever in it, for types only too: modules of ours, or libraries."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else str(node.module) for name in named}
    return found


def page_imports(path: Path) -> set[str]:
    """The modules that one of the page imports, at once or later. A language is chosen when it runs."""
    public, found = ROOT / "public", set()
    for target in re.findall(r"\b(?:from|import)\s?\(?['`](\.\.?/[^'`$]+)\.js['`]", path.read_text()):
        folder = path.relative_to(public).parent.as_posix()
        found.add(os.path.normpath(os.path.join(folder, target)).replace("/", "."))
    return found


def floor_of(name: str, layers: Layers) -> int:
    """The layer of a module, by the longest name that is its own or a package's around it. -1: it has none."""
    while name:
        for floor, layer in enumerate(layers):
            if name in layer:
                return floor
        name = name.rpartition(".")[0]
    return -1


# --- the picture ------------------------------------------------------------------------------------------------------

WIDTH, GAP, LINE, PAD, CHARACTER = 380, 24, 16, 10, 6.6
STYLE = """
text { font: 12px ui-sans-serif, system-ui, sans-serif; fill: #26312c }
.title { font-size: 17px; font-weight: 600 } .name { font-weight: 600 } .small { fill: #57635d }
rect { fill: #f6f8f6; stroke: #b9c4bd; rx: 7px } .room { fill: #ffffff }
"""


class Column(NamedTuple):
    title: str
    text: str
    layers: Layers
    modules: dict[str, Path]
    prefix: str


def columns() -> list[Column]:
    server, page = python_modules(), page_modules()
    control = {name: path for name, path in server.items() if not name.startswith("sfu.media")}
    media = {name: path for name, path in server.items() if name.startswith("sfu.media")}
    return [
        Column("Control plane", "one process, trio: HTTP, WebSocket, SQL", CONTROL[1:], control, "sfu."),
        Column("Media plane", "one process a core, asyncio: UDP", MEDIA[1:], media, "sfu.media."),
        Column("Page", "ES modules, no build step", PAGE, page, ""),
    ]


def wrapped(words: Iterable[str], characters: int) -> Iterator[str]:
    line = ""
    for word in words:
        if line and len(line) + len(word) + 3 > characters:
            yield line
            line = word
        else:
            line = f"{line} · {word}" if line else word
    if line:
        yield line


def rooms(column: Column, layer: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """What a layer has: each package with its modules, and the files beside each other as one."""
    files: list[str] = []
    found: list[tuple[str, list[str]]] = []
    for name in layer:
        inside = sorted(other.removeprefix(f"{name}.") for other in column.modules if other.startswith(f"{name}."))
        if name == "sfu.media":
            continue
        shown = name.removeprefix(column.prefix)
        if inside:
            found.append((f"{shown}/", inside))
        elif name in column.modules:
            files.append(name.removeprefix(column.prefix))
    if files:
        found.append((" · ".join(files), []))
    return found


def draw_box(x: int, y: int, width: int, height: int, lines: Iterable[tuple[str, str]]) -> list[str]:
    """SVG elements of a box and its lines, each a style and a text."""
    out = [f'<rect class="room" x="{x}" y="{y}" width="{width}" height="{height}"/>']
    for row, (style, line) in enumerate(lines):
        out.append(f'<text class="{style}" x="{x + PAD}" y="{y + PAD + 10 + row * LINE}">{escape(line)}</text>')
    return out


def draw_column(column: Column, x: int) -> tuple[list[str], int]:
    """SVG elements, and how far down they reach. The highest layer is on top."""
    out = [f'<text class="title" x="{x}" y="30">{escape(column.title)}</text>']
    out.append(f'<text class="small" x="{x}" y="50">{escape(column.text)}</text>')
    y = 64
    for layer in reversed(column.layers):
        beside = rooms(column, layer)
        if not beside:
            continue
        width = (WIDTH - 8 * (len(beside) - 1)) // len(beside)
        characters = int((width - 2 * PAD) / CHARACTER)
        texts = [
            [("name", line) for line in wrapped(name.split(" · "), int(characters * 0.9))]
            + [("small", line) for line in wrapped(inside, characters)]
            for name, inside in beside
        ]
        height = 2 * PAD + LINE * max(map(len, texts)) - 3
        for i, lines in enumerate(texts):
            out += draw_box(x + i * (width + 8), y, width, height, lines)
        y += height + 8
    return out, y


def draw() -> str:
    """The whole picture as SVG text; the same for the same tree."""
    parts: list[str] = []
    ends: list[int] = []
    for i, column in enumerate(columns()):
        drawn, y = draw_column(column, GAP + i * (WIDTH + GAP))
        parts += drawn
        ends.append(y)
    shared = [("name", "Both planes"), ("small", " · ".join(name.removeprefix("sfu.") for name in SHARED[1:]))]
    ground_y, ground_height = max(ends[:2]), 2 * PAD + LINE * len(shared) - 3
    parts += draw_box(GAP, ground_y, 2 * WIDTH + GAP, ground_height, shared)
    width, height = 3 * (WIDTH + GAP) + GAP, max(*ends, ground_y + ground_height + 8) + 34
    note = "A module imports from its own box and from those below it."
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    ground = f'<rect width="{width}" height="{height}"/>'
    last = f'<text class="small" x="{GAP}" y="{height - 16}">{escape(note)}</text>'
    return "\n".join([head, f"<style>{STYLE}</style>", ground, *parts, last, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw())
