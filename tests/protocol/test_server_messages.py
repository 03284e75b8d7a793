"""What the server says comes out of its frames as it was put in."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sfu.protocol.orders import Data
from sfu.protocol.server_messages import SERVER_EVENTS, Offer, Remote, ServerMessage, encode
from sfu.protocol.shared import BARE_EVENTS

data = st.dictionaries(st.text(), st.none() | st.integers(-(2**53), 2**53) | st.lists(st.text()))
server_messages = st.one_of([st.builds(cls) for cls in SERVER_EVENTS.values() if cls is not Data])
server_messages |= st.builds(Data, topic=st.text(), data=data)


def tuples_as_lists(value: Any) -> Any:
    """What JSON makes of a dataclass."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
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
    offer = Offer("offer", "v=0", {"0": "camera"}, {"1": Remote("p", "camera")})
    frame = json.loads(encode(offer, full=False))
    assert frame["event"] == "offer"
    assert json.loads(frame["data"]) == {"type": "offer", "sdp": "v=0"}
