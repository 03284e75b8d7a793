"""Names: clean ones stay as they are, and what no name may hold is gone."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.errors import BadName
from sfu.tenancy.names import NAME_CHARACTERS, clean_name


@given(st.text(max_size=200))
def test_a_clean_name_is_clean(text: str) -> None:
    try:
        name = clean_name(text)
    except BadName:
        return
    assert 1 <= len(name) <= NAME_CHARACTERS
    assert all(unicodedata.category(c)[0] != "C" for c in name)  # no control, format (bidi), surrogate or private ones
    assert "  " not in name
    assert name == name.strip()
    assert clean_name(name) == name


@given(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=16))
def test_a_clean_name_is_normal(text: str) -> None:
    assert clean_name(text) == clean_name(unicodedata.normalize("NFD", text)) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("alice", "alice"),
        ("  team \t\r\n meeting ", "team meeting"),
        ("a\u0308", "ä"),
        ("\u202eevil\u202c", "evil"),
        ("\u2066a\u2069\u200b\ufeff", "a"),
        ("a\x00\x1b[31mb", "a[31mb"),
        ("\ud800x", "x"),
        ("<b>&amp;", "<b>&amp;"),
        ("x" * 64, "x" * 64),
        ("日本語", "日本語"),
    ],
)
def test_names(text: str, name: str) -> None:
    assert clean_name(text) == name


@pytest.mark.parametrize("text", ["", " ", "\u202e", "\x00\x01", "\ud800", "x" * 65, "x" * 1_000_000])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(BadName):
        clean_name(text)
