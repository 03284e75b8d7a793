"""Nothing a client sends gets past `decode` unchecked."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.errors import BadCandidate, BadMessage, BadSource, ChatTooLong, UnknownEvent
from sfu.protocol.client_messages import CLIENT_EVENTS, Chat, ClientMessage, decode
from sfu.protocol.shared import Candidate

DECODE_ERRORS = (BadMessage, UnknownEvent, BadCandidate, BadSource, ChatTooLong)

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
        '{"event":"\\ud800","data":{}}',
        '{"event":"mute","data":{"source":"camera","muted":NaN}}',
    ],
    ids=lambda text: text[:60],
)
def test_what_is_no_message(text: str) -> None:
    with pytest.raises(BadMessage):
        decode(text)


@pytest.mark.parametrize("event", ["welcome", "Chat", "", None, 1, ["chat"], {"chat": 1}, "x" * 10_000])
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
    assert decode(json.dumps(frame)) == Candidate(candidate, "0", None)


def test_chat_is_counted_in_bytes() -> None:
    assert decode(json.dumps({"event": "chat", "data": {"text": "x" * 4096}})) == Chat("x" * 4096)
    with pytest.raises(ChatTooLong):
        decode(json.dumps({"event": "chat", "data": {"text": "ä" * 2049}}))
