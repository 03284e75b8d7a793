"""Preload links: name the modules that the page will import, so that the browser fetches them all at once.

Without a build step, a browser discovers modules level by level, with a round trip for each level. The imports are
parsed from the files at start, so the list is never stale. It is sent as a Link header (RFC 8288), which browsers act
on before they have parsed the page.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Mapping

IMPORT = re.compile(r"^(?:import|export)(?:\s[\w\s{},*$]*\bfrom)?\s*'(\.\.?/[^']+)'", re.MULTILINE)
"""A static import or re-export of another file, in the style of this project."""

ALWAYS = ("style.css", "launch.js", "boot.js", "i18n/texts.js", "main.js")
DEFAULT = "en"
VIEWS = {"join": ("before.css", "prejoin/join.js", "prejoin/preview.js"), "call": ("call/call.js",)}
"""The entry modules and styles of each view, the most urgent first. public/launch.js chooses between the views."""


def reachable(names: Iterable[str], texts: Mapping[str, str]) -> list[str]:
    """The named files that exist, each followed by its imports, recursively."""
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
    """The view that a link with this query leads to; None in a frame, where the embedding page chooses."""
    if framed:
        return None
    asked = {name: query.get(name, "").strip() for name in ("room", "username", "token", "preview")}
    straight = asked["preview"] == "off" if asked["token"] else asked["room"] and asked["username"]
    return "call" if straight else "join"


def language_of(wanted: Iterable[str], languages: Collection[str]) -> str:
    """The page's language for these preferences (BCP 47), best first, chosen as in public/i18n/texts.js."""
    bases = (one.lower().partition("-")[0] for one in wanted)
    return next((base for base in bases if base in languages), DEFAULT)


class Preloads:
    """The page's preload links. `texts` are the contents of its files by name."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        views = [(None, ()), *VIEWS.items()]
        self._links = {view: _links(reachable((*ALWAYS, *names), texts)) for view, names in views}
        self._languages = {name[5:-3] for name in texts if name.startswith("lang/")}

    def header(self, query: Mapping[str, str], wanted: Iterable[str], *, framed: bool) -> str:
        """The value of the Link header. Readers who chose another language on the page load one file in vain."""
        view, language = view_of(query, framed=framed), language_of(wanted, self._languages)
        texts = [f"{folder}/{language}.js" for folder in ("lang", "before") if folder == "lang" or view == "join"]
        return ", ".join((_links(texts), self._links[view]))


def _links(names: Iterable[str]) -> str:
    return ", ".join(
        f"<{name}>; rel={'preload; as=style' if name.endswith('.css') else 'modulepreload'}" for name in names
    )
