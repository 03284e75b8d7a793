"""The protocol: the document says what the code does, and nothing a client sends gets past `decode` unchecked."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu import messages
from sfu.errors import (
    BadCandidate,
    BadMessage,
    BadName,
    BadSource,
    ChatTooLong,
    SfuError,
    UnknownEvent,
    all_codes,
)
from sfu.messages import (
    BARE_EVENTS,
    CLIENT_EVENTS,
    NAME_CHARACTERS,
    SERVER_EVENTS,
    ClientMessage,
    ServerMessage,
    clean_name,
    decode,
    encode,
)
from sfu.refusals import Refusal
from sfu.session import REJOIN_CLOSE_CODES
from sfu.tokens import Permissions

DOCUMENT = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text(encoding="utf-8")
DECODE_ERRORS = (BadMessage, UnknownEvent, BadCandidate, BadSource, ChatTooLong)

# --- the document -----------------------------------------------------------------------------------------------------


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
    names = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    return names.get(hint) or str(hint.__name__)


def coded(events: dict[str, type]) -> dict[str, dict[str, str]]:
    return {
        name: {field.name: type_text(get_type_hints(cls)[field.name]) for field in fields(cls)}
        for name, cls in events.items()
    }


def test_the_document_has_every_client_event() -> None:
    assert documented("Events from the client") == coded(CLIENT_EVENTS)


def test_the_document_has_every_server_event() -> None:
    assert documented("Events from the server") == coded(SERVER_EVENTS)


def test_the_document_has_every_object() -> None:
    classes = (
        messages.Participant, messages.TrackInfo, messages.Remote, messages.Shown, messages.Limits, Permissions,
        messages.Direction, messages.Cause, messages.RoomState, messages.Waiter, messages.ChatLine, messages.FileInfo,
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
            assert list(data) == [field.name for field in fields(SERVER_EVENTS[frame["event"]])]


# --- decode -----------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
field_names = st.sampled_from(sorted({field.name for cls in CLIENT_EVENTS.values() for field in fields(cls)}))
likely = ["answer", "audio", "video", "camera", "candidate:1", "\ud800", "x" * 5000]
likely_values = json_values | st.sampled_from(likely)
bodies = st.dictionaries(field_names, likely_values) | json_values
frames = st.fixed_dictionaries(
    {"event": st.sampled_from([*CLIENT_EVENTS, "welcome", ""]) | json_values},
    optional={"data": bodies | bodies.map(json.dumps) | st.text()},
)


@given(st.text() | frames.map(json.dumps) | json_values.map(json.dumps))
def test_decode_raises_nothing_but_what_it_says(text: str) -> None:
    try:
        message = decode(text)
    except DECODE_ERRORS:
        return
    assert isinstance(message, ClientMessage)
    json.dumps(asdict(message), ensure_ascii=False).encode()  # whoever it goes on to can have it as UTF-8


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"chat"',
        "[" * 100_000,
        '{"event":"chat","data":' + "[" * 100_000,
        "1" * 10_000,
        '{"event":"chat","data":' + "1" * 10_000 + "}",
        '{"event":"chat"}',
        '{"event":"chat","data":{"text":" "}}',
        '{"event":"chat","data":{"text":null}}',
        '{"event":"chat","data":{"text":"\\ud800"}}',
        '{"event":"chat","data":"{\\"text\\": \\"not an object\\"}"}',
        '{"event":"answer","data":{"type":"answer","sdp":"not a string"}}',
        '{"event":"answer","data":"{\\"type\\":\\"offer\\",\\"sdp\\":\\"\\"}"}',
        '{"event":"answer","data":"' + "[" * 100_000 + '"}',
        '{"event":"candidate","data":"{\\"candidate\\":\\"\\",\\"sdpMLineIndex\\":true}"}',
        '{"event":"mute","data":{"source":"camera","muted":1}}',
        '{"event":"publish","data":{"source":"camera","kind":"smell"}}',
        '{"event":"leave","data":[]}',
    ],
    ids=lambda text: text[:60],
)
def test_what_is_no_message(text: str) -> None:
    with pytest.raises(BadMessage):
        decode(text)


@pytest.mark.parametrize("event", ["welcome", "Chat", "", None, 1, ["chat"], {"chat": 1}, "\ud800", "x" * 10_000])
def test_an_event_nobody_knows(event: object) -> None:
    with pytest.raises(UnknownEvent) as caught:
        decode(json.dumps({"event": event, "data": {}}))
    str(caught.value).encode()  # it goes back to the client
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("source", ["", "Camera", "1st", "a" * 33, "a b", "käse", "camera\n", "-a"])
@pytest.mark.parametrize("event", ["publish", "unpublish", "mute"])
def test_a_source_has_an_alphabet(event: str, source: str) -> None:
    with pytest.raises(BadSource):
        decode(json.dumps({"event": event, "data": {"source": source, "kind": "audio", "muted": True}}))


@pytest.mark.parametrize("candidate", ["x", "CANDIDATE:1", "candidate:" + "1" * 1024])
def test_what_is_no_candidate(candidate: str) -> None:
    with pytest.raises(BadCandidate):
        decode(json.dumps({"event": "candidate", "data": json.dumps({"candidate": candidate})}))


@pytest.mark.parametrize("candidate", ["", "candidate:1 1 udp 1 127.0.0.1 9 typ host", "a=candidate:1"])
def test_what_is_a_candidate(candidate: str) -> None:
    frame = {"event": "candidate", "data": json.dumps({"candidate": candidate, "usernameFragment": "x", "sdpMid": "0"})}
    assert decode(json.dumps(frame)) == messages.Candidate(candidate, "0", None)


def test_chat_is_counted_in_bytes() -> None:
    assert decode(json.dumps({"event": "chat", "data": {"text": "x" * 4096}})) == messages.Chat("x" * 4096)
    with pytest.raises(ChatTooLong):
        decode(json.dumps({"event": "chat", "data": {"text": "ä" * 2049}}))


# --- encode -----------------------------------------------------------------------------------------------------------

server_messages = st.one_of([st.builds(cls) for cls in SERVER_EVENTS.values()])


def tuples_as_lists(value: Any) -> Any:
    """What JSON makes of a dataclass."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: tuples_as_lists(inner) for key, inner in value.items()}
    return [tuples_as_lists(inner) for inner in value] if isinstance(value, (tuple, list)) else value


@given(server_messages)
def test_encode_and_back(message: ServerMessage) -> None:
    frame = json.loads(encode(message))
    assert SERVER_EVENTS[frame["event"]] is type(message)
    data = json.loads(frame["data"]) if frame["event"] in BARE_EVENTS else frame["data"]
    assert data == tuples_as_lists(message)


def test_a_bare_offer_is_what_pion_sends() -> None:
    offer = messages.Offer("offer", "v=0", {"0": "camera"}, {"1": messages.Remote("p", "camera")})
    frame = json.loads(encode(offer, full=False))
    assert frame["event"] == "offer"
    assert json.loads(frame["data"]) == {"type": "offer", "sdp": "v=0"}


# --- clean_name -------------------------------------------------------------------------------------------------------


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
