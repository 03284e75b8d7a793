"""Preload links: names the modules that a page will import, so that the browser fetches them at once.

Without a build step a browser finds the modules out level by level, a round trip each. What they import is read out of
them at start, so no list can be stale; it goes out as a Link header (RFC 8288), which browsers act on before they have
read the page.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Mapping

IMPORT = re.compile(r"^(?:import|export)(?:\s[\w\s{},*$]*\bfrom)?\s*'(\.\.?/[^']+)'", re.MULTILINE)
"""A static import or re-export of another of our files, as this project writes them."""

ALWAYS = ("style.css", "launch.js", "i18n/texts.js", "main.js")
DEFAULT = "en"
VIEWS = {"join": ("before.css", "prejoin/join.js", "prejoin/preview.js"), "call": ("call/call.js",)}
"""Where each way in begins, what is waited for first: see public/launch.js, which chooses."""


def reachable(names: Iterable[str], texts: Mapping[str, str]) -> list[str]:
    """These files as far as there are such, each followed by what it imports, and so on."""
    found: list[str] = []
    waiting = [*names][::-1]
    while waiting:
        name = waiting.pop()
        if name in texts and name not in found:
            found.append(name)
            folder = posixpath.dirname(name)
            waiting += [posixpath.normpath(posixpath.join(folder, path)) for path in IMPORT.findall(texts[name])[::-1]]
    return found


def view_of(query: Mapping[str, str], *, framed: bool) -> str | None:
    """The view that a link leads to, by its query; None where an embedding page is going to say."""
    if framed:
        return None
    asked = {name: query.get(name, "").strip() for name in ("room", "username", "token", "preview")}
    straight = asked["preview"] == "off" if asked["token"] else asked["room"] and asked["username"]
    return "call" if straight else "join"


def language_of(wanted: Iterable[str], languages: Collection[str]) -> str:
    """The page's language for a reader who prefers these (BCP 47), best first; as public/i18n/texts.js chooses it."""
    bases = (one.lower().partition("-")[0] for one in wanted)
    return next((base for base in bases if base in languages), DEFAULT)


class Preloads:
    """What goes out with the page; `texts` are its files by name."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        views = [(None, ()), *VIEWS.items()]
        self._links = {view: _links(reachable((*ALWAYS, *names), texts)) for view, names in views}
        self._languages = {name[5:-3] for name in texts if name.startswith("lang/")}

    def header(self, query: Mapping[str, str], wanted: Iterable[str], *, framed: bool) -> str:
        """The value of the Link header. Who has chosen another language than the browser's gets one file in vain."""
        language = f"lang/{language_of(wanted, self._languages)}.js"
        return ", ".join((_links([language]), self._links[view_of(query, framed=framed)]))


def _links(names: Iterable[str]) -> str:
    return ", ".join(
        f"</{name}>; rel={'preload; as=style' if name.endswith('.css') else 'modulepreload'}" for name in names
    )
