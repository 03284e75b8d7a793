"""Names: clean ones stay as they are, and what no name may hold is gone."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.errors import BadName
from sfu.tenancy.names import CONTROLS, NAME_CHARACTERS, canonical, sought

ANYTHING = st.text(
    st.characters() | st.sampled_from(" \u0301\u200c\u200d\u202e\u2067\ufeff\ud800\x00\u3000\x1f"), max_size=300
)


@given(ANYTHING)
def test_a_canonical_name_is_canonical(text: str) -> None:
    try:
        name = canonical(text)
    except BadName:
        assert sought(text) == text
        return
    assert 1 <= len(name) <= NAME_CHARACTERS
    assert not re.search(f"[{CONTROLS}\ufeff\ud800-\udfff]", name)
    assert "  " not in name
    assert name == name.strip()
    assert canonical(name) == sought(text) == name
    name.encode()


@given(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=16).filter(str.isprintable))
def test_a_canonical_name_is_normal(text: str) -> None:
    try:
        assert canonical(text) == canonical(unicodedata.normalize("NFD", text)) == unicodedata.normalize("NFC", text)
    except BadName:
        assert not set(text) - set("\u115f\u1160\u3164\uffa0")  # letters that show nothing


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("alice", "alice"),
        ("  team \t\r\n meeting ", "team meeting"),
        ("a\u0308", "ä"),
        ("\u202eevil\u202c", "evil"),
        ("\u2066a\u2069\ufeff", "a"),
        ("a\x00\x1b[31mb", "a[31mb"),
        ("\ud800x", "x"),
        ("<b>&amp;", "<b>&amp;"),
        ("x" * 255, "x" * 255),
        ("e\u0301" * 255, "é" * 255),
        ("日本語", "日本語"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👩\u200d👩\u200d👧 🏴\U000e0067\U000e0062\U000e007f", "👩\u200d👩\u200d👧 🏴\U000e0067\U000e0062\U000e007f"),
        ("\u200fעברית\u200e ไทย\u200bไทย Ｆｕｌｌ　ｗｉｄｔｈ", "\u200fעברית\u200e ไทย\u200bไทย Ｆｕｌｌ ｗｉｄｔｈ"),
        ("a\u0300\u0323\u0489", "ạ\u0300\u0489"),
        (". / .. % ? # \\", ". / .. % ? # \\"),
        ("\U0001fae9\U000f0000", "\U0001fae9\U000f0000"),  # newer than some Pythons, and of one's own
    ],
)
def test_names(text: str, name: str) -> None:
    assert canonical(text) == name


@pytest.mark.parametrize(
    "text", ["", " ", "\u202e", "\x00\x01", "\ud800", "\u200b\u3164", "\ufe0f", "x" * 256, "x" * 10**6]
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(BadName):
        canonical(text)
