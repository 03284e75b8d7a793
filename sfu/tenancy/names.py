"""Names of rooms, people and companies, as every way in spells them: links, REST, tokens, the command line. Pure.

Names are compared as text, so each has one spelling, its canonical one. It keeps whatever people write with: every
script, joiners (U+200C, U+200D), direction marks, emoji, punctuation. The server stores and compares no other spelling.
"""

from __future__ import annotations

import re
import unicodedata

from sfu.errors import BadName

NAME_CHARACTERS = 255
"""Most characters (code points) of a canonical name."""

CONTROLS = r"\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""Characters that no name contains, as part of a pattern: controls, line ends, and those that reorder the text around
them (embeddings, overrides, isolates; UAX 9)."""

_DROPPED = re.compile(f"(?!\\s)[{CONTROLS}\ufeff\ud800-\udfff]")
"""Characters that names lose besides controls: byte order marks (copying adds them) and surrogates (not storable)."""

INVISIBLE = (
    rf"\s{CONTROLS}\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u206f\u2800\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
)
"""Characters that show nothing by themselves, as part of a pattern (Default_Ignorable_Code_Point, and blanks)."""

_VISIBLE = re.compile(f"[^{INVISIBLE}\ud800-\udfff\U000e0000-\U000e0fff]")


def spelled(text: str) -> str:
    """The text in NFC, without characters that are never part of a name, and with single blanks. It may be empty."""
    return " ".join(unicodedata.normalize("NFC", _DROPPED.sub("", text)).split())


def canonical(text: str, what: str = "name") -> str:
    """The canonical spelling of a name.

    Raises BadName, with `what` as the name of the field, if that leaves nothing visible or more than 255 characters.
    """
    name = spelled(text[: 16 * NAME_CHARACTERS])
    if not _VISIBLE.search(name):
        raise BadName(f"The {what} is empty.")
    if len(name) > NAME_CHARACTERS:
        raise BadName(f"The {what} is longer than {NAME_CHARACTERS} characters.")
    return name


def sought(text: str) -> str:
    """The canonical spelling of a name to look up. Text that is no name stays as it is: nothing has such a name."""
    try:
        return canonical(text)
    except BadName:
        return text
