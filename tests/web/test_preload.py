"""What is told to be loaded with the page: what the files import, for the view that the link leads to."""

from __future__ import annotations

import pytest

from sfu.web.preload import IMPORT, Preloads, language_of, reachable, view_of


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import './a.js';", ["./a.js"]),
        ("import { a, b as c } from './a.js'; // why", ["./a.js"]),
        ("import * as a from './a.js';", ["./a.js"]),
        ("import {\n  a,\n  b,\n} from './lang/a.js';", ["./lang/a.js"]),
        ("import '../a.js';", ["../a.js"]),
        ("export { a } from './a.js';", ["./a.js"]),
        ("export const a = async () => (await import('./a.js')).a;", []),
        ("import('./a.js');", []),
        ("  import './a.js';", []),
        ("import a from 'https://elsewhere.example/a.js';", []),
    ],
)
def test_what_a_line_imports(line: str, found: list[str]) -> None:
    assert IMPORT.findall(f"/** import './no.js' */\n{line}\n") == found


def test_imports_follow_who_imports_them_and_come_once() -> None:
    texts = {
        "a.js": "import './b.js';\nimport './x/c.js';",
        "b.js": "import './y/d.js';",
        "x/c.js": "import '../a.js';\nimport '../y/d.js';",
        "y/d.js": "",
        "e.css": "",
    }
    assert reachable(["e.css", "a.js"], texts) == ["e.css", "a.js", "b.js", "y/d.js", "x/c.js"]


@pytest.mark.parametrize(
    ("query", "view"),
    [
        ({}, "join"),
        ({"room": "team"}, "join"),
        ({"username": "alice"}, "join"),
        ({"room": "team", "username": " "}, "join"),
        ({"room": "team", "username": "alice"}, "call"),
        ({"token": "x"}, "join"),
        ({"token": "x", "room": "team", "username": "alice"}, "join"),
        ({"token": "x", "preview": "off"}, "call"),
    ],
)
def test_the_view_that_a_link_leads_to(query: dict[str, str], view: str) -> None:
    assert view_of(query, framed=False) == view
    assert view_of(query, framed=True) is None


@pytest.mark.parametrize(
    ("wanted", "language"),
    [((), "en"), (("de-AT", "en"), "de"), (("nl", "AR-eg", "de"), "ar"), (("nl", "*"), "en"), (("../x",), "en")],
)
def test_the_language_that_a_reader_prefers(wanted: tuple[str, ...], language: str) -> None:
    assert language_of(wanted, {"ar", "de", "en"}) == language


def test_the_header() -> None:
    names = (
        "style.css",
        "launch.js",
        "boot.js",
        "i18n/texts.js",
        "main.js",
        "before.css",
        "prejoin/join.js",
        "prejoin/preview.js",
        "call/call.js",
    )
    preloads = Preloads(dict.fromkeys((*names, "lang/de.js", "lang/en.js"), ""))
    assert preloads.header({"room": "team", "username": "alice"}, ["de"], framed=False) == (
        "<lang/de.js>; rel=modulepreload, <style.css>; rel=preload; as=style, <launch.js>; rel=modulepreload, "
        "<boot.js>; rel=modulepreload, <i18n/texts.js>; rel=modulepreload, <main.js>; rel=modulepreload, "
        "<call/call.js>; rel=modulepreload"
    )
