"""The page's languages say the same things: the same keys, placeholders and plural forms in every file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.node import run
from support.process import ROOT

from sfu.tenancy.names import NAME_CHARACTERS
from sfu.web.preload import ALWAYS, VIEWS, reachable

PUBLIC = ROOT / "public"
FOLDERS = ("lang", "before", "late", "phone")
LANGUAGES = sorted(path.stem for path in (PUBLIC / "lang").glob("*.js"))
MILLIONS = {"es", "fr"}
"""Languages whose plural form `many` is for millions only."""
_LOAD = """
const words = {};
for (const name of %s) {
    const plurals = new Intl.PluralRules(name).resolvedOptions().pluralCategories;
    const files = await Promise.all(%s.map((folder) => import(`./public/${folder}/${name}.js`)));
    const [lang, before, late, phone] = files.map((file) => file.default);
    const first = { join: { ...lang, ...before }, call: lang };
    words[name] = { plurals, first, texts: { ...lang, ...before, ...late, ...phone } };
}
out(words);
"""


@pytest.fixture(scope="module")
def words() -> Any:
    """What the files hold, by language."""
    return run(_LOAD % (json.dumps(LANGUAGES), json.dumps(FOLDERS)))


def placeholders(text: str | dict[str, str]) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text if isinstance(text, str) else text["other"]))


def test_there_are_five_and_the_page_offers_them() -> None:
    offered = re.search(r"LANGUAGES = \{(.*?)\}", (PUBLIC / "i18n/texts.js").read_text())
    assert offered
    assert sorted(re.findall(r"(\w+):", offered[1])) == LANGUAGES == ["ar", "de", "en", "es", "fr"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_every_text_and_placeholder(words: dict[str, Any], language: str) -> None:
    english, texts = words["en"]["texts"], words[language]["texts"]
    assert list(texts) == list(english), "the same keys in the same order"
    for key, text in texts.items():
        assert type(text) is type(english[key]), key
        assert placeholders(text) == placeholders(english[key]), key
        if isinstance(text, dict):
            forms = set(words[language]["plurals"])
            assert forms - ({"many"} if language in MILLIONS else set()) <= set(text) <= forms, key
        assert all(one.strip() for one in (text.values() if isinstance(text, dict) else [text])), key


def used(path: Path) -> set[str]:
    """Keys that a file names in full; those put together with `${…}` are not seen."""
    text = path.read_text()
    keys = re.findall(r"\bt\('([\w.]+)'", text) + re.findall(r"data-t(?:-[\w-]+)?=\"([\w.]+)\"", text)
    return set(keys)


@pytest.mark.parametrize(
    "path",
    sorted([*PUBLIC.glob("*.js"), *PUBLIC.glob("phone/*.js"), *PUBLIC.glob("*.html")]),
    ids=lambda path: path.name,
)
def test_every_text_that_is_named_exists(words: dict[str, Any], path: Path) -> None:
    assert used(path) <= set(words["en"]["texts"])


@pytest.mark.parametrize("view", VIEWS)
def test_what_loads_first_has_its_words(words: dict[str, Any], view: str) -> None:
    files = {path.relative_to(PUBLIC).as_posix(): path.read_text() for path in PUBLIC.rglob("*.js")}
    first = set(reachable((*ALWAYS, *VIEWS[view]), files))
    assert VIEWS[view][-1] in first
    named = {key for name in first - {"i18n/reasons.js"} for key in used(PUBLIC / name)}
    assert named <= set(words["en"]["first"][view])


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_longest_name_is_the_servers(words: dict[str, Any], language: str) -> None:
    assert re.findall(r"\d+", words[language]["texts"]["end.bad_name.text"]) == ["1", str(NAME_CHARACTERS)]
    assert "maxlength" not in (PUBLIC / "index.html").read_text().partition('id="name-input"')[2].partition(">")[0]
