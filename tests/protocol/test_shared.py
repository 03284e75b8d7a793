"""The protocol: the document says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from sfu.errors import REJOIN_CLOSE_CODES, BadMessage, SfuError, all_codes
from sfu.protocol.client_messages import CLIENT_EVENTS, ClientMessage, LayerSize, Shown, decode
from sfu.protocol.server_messages import (
    SERVER_EVENTS,
    Cause,
    ChatLine,
    Direction,
    FileInfo,
    IceServer,
    Limits,
    Participant,
    Remote,
    RoomState,
    ServerMessage,
    TrackInfo,
    Waiter,
)
from sfu.refusals import Refusal
from sfu.tenancy.tokens import Permissions

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def chapter(title: str, level: str = "##") -> str:
    """The text under a heading, up to the next one of its level or above."""
    found = re.search(rf"^{level} {re.escape(title)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", DOCUMENT, re.M | re.S)
    assert found, f"no chapter {title!r}"
    return found[1]


def table(text: str) -> list[list[str]]:
    """The rows of the first table in `text`, without its head."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def documented(title: str) -> dict[str, dict[str, str]]:
    """name → field → type, for each table under the third-level headings of a chapter."""
    parts = re.split(r"^### `?(\w+)`?\n", chapter(title), flags=re.M)[1:]
    return {
        name: {field.strip("`"): kind for field, kind, _ in table(text)}
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def type_text(hint: Any) -> str:
    """A field's type as the document writes it."""
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return " or ".join(f'"{choice}"' for choice in arguments)
    if isinstance(hint, UnionType):
        return " or ".join(type_text(choice) for choice in arguments)
    if get_origin(hint) is tuple:
        return f"array of {type_text(arguments[0])}"
    if get_origin(hint) is dict:
        return f"map of {type_text(arguments[0])} to {type_text(arguments[1])}"
    names = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", Any: "any JSON"}
    return names.get(hint) or str(hint.__name__)


def coded(events: dict[str, type]) -> dict[str, dict[str, str]]:
    return {
        event: {name: type_text(hint) for name, hint in get_type_hints(cls).items()} for event, cls in events.items()
    }


def test_the_document_has_every_client_event() -> None:
    assert documented("Events from the client") == coded(CLIENT_EVENTS)


def test_the_document_has_every_server_event() -> None:
    assert documented("Events from the server") == coded(SERVER_EVENTS)


def test_the_document_has_every_object() -> None:
    classes = (
        Participant, TrackInfo, Remote, Shown, Limits, Permissions, Direction, Cause, RoomState, Waiter, ChatLine,
        FileInfo, IceServer, LayerSize,
    )  # fmt: skip
    assert documented("Objects") == coded({cls.__name__: cls for cls in classes})


def test_every_message_class_has_an_event() -> None:
    assert set(CLIENT_EVENTS.values()) == set(get_args(ClientMessage))
    assert set(SERVER_EVENTS.values()) == set(get_args(ServerMessage))


def test_the_document_has_every_code() -> None:
    ends = {row[0].strip("`") for row in table(chapter("Refusals and ends", "###"))}
    events = {row[0].strip("`") for row in table(chapter("In `error` events", "###"))}
    assert not ends & events
    others = {code for code, cls in all_codes().items() if issubclass(cls, Refusal) and not own(cls, "close_code")}
    others |= {"bad_config"}  # that one stops the server before anybody connects; the rest are REST's
    assert ends | events == all_codes().keys() - others


def own(cls: type[SfuError], name: str) -> bool:
    """Whether the class, or a kind of refusals it belongs to, has a number of its own."""
    return any(name in vars(base) for base in cls.__mro__ if base not in (SfuError, Refusal))


@pytest.mark.parametrize("row", table(chapter("Refusals and ends", "###")), ids=lambda row: row[0].strip("`"))
def test_the_document_has_the_numbers_of_a_code(row: list[str]) -> None:
    code, status, close_code, _ = row
    cls = all_codes()[code.strip("`")]
    assert status in ("", str(cls.status))
    assert close_code in ("", str(cls.close_code))
    assert (status == "") == (cls is not SfuError and not own(cls, "status"))
    if cls is not SfuError:
        assert (close_code == "") == (not own(cls, "close_code"))


def test_the_document_has_every_close_code() -> None:
    listed = {int(row[0]) for row in table(chapter("Close codes", "###"))}
    ending = {int(row[2]) for row in table(chapter("Refusals and ends", "###")) if row[2]}
    assert listed == ending | {1000, BadMessage.close_code}
    promise = re.search(r"`rejoin` in `bye` is true for ([\d, and]+)\.", chapter("Close codes", "###"))
    assert promise
    assert {int(code) for code in re.findall(r"\d+", promise[1])} == REJOIN_CLOSE_CODES


def test_the_example_is_of_the_protocol() -> None:
    frames = re.findall(r"^([←→]) (\{.*?\})$(?=\n[←→`])", chapter("An example"), re.M | re.S)
    assert len(frames) > 10
    for arrow, text in frames:
        frame = json.loads(re.sub(r"\n +", " ", text))
        if arrow == "→":
            decode(json.dumps(frame))
        else:
            data = json.loads(frame["data"]) if isinstance(frame["data"], str) else frame["data"]
            assert list(data) == list(get_type_hints(SERVER_EVENTS[frame["event"]]))
