"""How commands print: tables, times and JSON."""

from __future__ import annotations

import argparse
import json
import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any

_DURATION = re.compile(r"([0-9]{1,6})(s|min|m|h|d)?", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def add_room(parser: argparse.ArgumentParser) -> None:
    """Adds the argument ROOM."""
    parser.add_argument(
        "room", metavar="ROOM", type=text, help="the room's name, COMPANY/ROOM for a company's, or a link into the room"
    )


def text(argument: str) -> str:
    """An argument as it is. Refuses bytes that are no text, which a name would lose."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("it is not UTF-8") from None
    return argument


def duration(argument: str) -> int:
    """A duration in seconds: a number with s, m, h or d after it."""
    found = _DURATION.fullmatch(argument.strip())
    if not found:
        raise argparse.ArgumentTypeError("it must be a time such as 90s, 15m, 8h or 1d")
    return int(found[1]) * _SECONDS[found[2] or ""]


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(rows: Sequence[Sequence[str]], indent: str = "") -> None:
    """Prints rows, the first of which is the head, in columns."""
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        print(indent + "  ".join(cells).rstrip())


def _width(text: str) -> int:
    """The number of columns that a terminal gives the text."""
    marks = ("Mn", "Me", "Cf")
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.category(character) in marks for character in text)


def moment(text: str) -> datetime:
    """The time in a server's answer."""
    return datetime.fromisoformat(text)


def shown_time(time: datetime) -> str:
    """The time in UTC, as the log has it, without fractions."""
    return f"{time:%Y-%m-%d %H:%M:%S}"


def shown_duration(seconds: float) -> str:
    """The two largest units of a duration: `3 d 4 h`, `2 h 5 min`, `5 min 7 s`, `7 s`."""
    left, parts = max(0, int(seconds)), list[str]()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def shown_share(share: float | None) -> str:
    """A fraction in percent; `-` if it is unknown."""
    return "-" if share is None else f"{share:.1%}"


def count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
