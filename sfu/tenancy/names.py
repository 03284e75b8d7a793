"""Display names of people and rooms. Pure."""

from __future__ import annotations

import unicodedata

from sfu.errors import BadName

NAME_CHARACTERS = 64


def clean_name(text: str, what: str = "name") -> str:
    """NFC, without control, format (bidi) and surrogate characters, white space folded; 1 to 64 characters or
    BadName."""
    kept = "".join(
        c
        for c in unicodedata.normalize("NFC", text[: 16 * NAME_CHARACTERS])
        if c.isspace() or unicodedata.category(c)[0] != "C"
    )
    name = " ".join(kept.split())
    if not name:
        raise BadName(f"The {what} is empty.")
    if len(name) > NAME_CHARACTERS:
        raise BadName(f"The {what} is longer than {NAME_CHARACTERS} characters.")
    return name


def is_clean(text: str) -> bool:
    """Whether it is a name as it stands: rooms made over REST may be called what no link can say."""
    try:
        return clean_name(text) == text
    except BadName:
        return False
