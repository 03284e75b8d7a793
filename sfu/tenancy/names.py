"""Display names of people and rooms. Pure."""

from __future__ import annotations

import unicodedata

from sfu.errors import BadName

NAME_CHARACTERS = 64


def clean_name(text: str, what: str = "name") -> str:
    """Normalizes a name: NFC, no control, format (bidi) or surrogate characters, white space folded.

    Raises BadName, with `what` as the name of the field, if that leaves nothing or more than 64 characters.
    """
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
    """Whether `clean_name` keeps the name unchanged. Rooms made over REST may have names that no link can express."""
    try:
        return clean_name(text) == text
    except BadName:
        return False
