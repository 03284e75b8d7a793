"""What the page and the server have to know alike: events, codes and reactions."""

from __future__ import annotations

import re
from typing import get_args, get_type_hints

import pytest
from support.process import ROOT

from sfu import refusals
from sfu.errors import SfuError
from sfu.protocol.client_messages import CLIENT_EVENTS, Moderate, Reaction
from sfu.protocol.server_messages import SERVER_EVENTS

PUBLIC = ROOT / "public"
PROTOCOL = ("protocol.js", "client/connection.js")
"""The modules that know the server; the others know what these pass on."""
OWN_CODES = {"left", "bad_name", "no_webrtc", "unreachable", "uninvited", "stopped", "lobby_left", "moved", "other_tab"}
"""Reasons that the page finds itself."""

texts = {path.relative_to(PUBLIC).as_posix(): path.read_text() for path in PUBLIC.rglob("*.js")}
page = "".join(text for name, text in texts.items() if name not in PROTOCOL)


def quoted(text: str) -> set[str]:
    return set(re.findall(r"'(\w+)'", text))


def constant(module: str, name: str) -> str:
    """The text of a constant, to the bracket that closes it at the beginning of a line or before a semicolon."""
    found = re.search(rf"const {name} = (.*?[\]}})])\)?;\n", texts[module], re.DOTALL)
    assert found, f"{module} has no {name}"
    return found[1]


def codes() -> set[str]:
    found, left = {SfuError.code}, [SfuError]
    while left:
        left += (classes := left.pop().__subclasses__())
        found |= {cls.code for cls in classes}
    return found


@pytest.mark.parametrize("event", SERVER_EVENTS)
def test_every_event_of_the_server_has_a_receiver(event: str) -> None:
    modules = "".join(texts[name] for name in PROTOCOL)
    if event in quoted(constant("protocol.js", "PASSED_ON")):
        assert event in quoted(constant("call/call.js", "NEWS")), f"the page passes no {event} on"
        assert re.search(rf"(follow|addEventListener)\('{event}'", page), f"nobody in the page listens for {event}"
    else:
        assert re.search(rf"event === '{event}'", modules), f"no module of the protocol reads {event}"


def test_the_page_passes_on_what_the_server_says() -> None:
    assert quoted(constant("protocol.js", "PASSED_ON")) <= SERVER_EVENTS.keys()


def test_the_page_sends_what_the_server_knows() -> None:
    sent = set(re.findall(r"[.?]send\('(\w+)'", "".join(texts.values())))
    assert sent == CLIENT_EVENTS.keys(), sent ^ CLIENT_EVENTS.keys()


def test_the_page_has_every_reaction() -> None:
    assert quoted(constant("call/reactions.js", "REACTIONS")) == set(get_args(get_type_hints(Reaction)["reaction"]))


@pytest.mark.parametrize("name", ["WAITING", "ENDS"])
def test_the_page_explains_codes_that_there_are(name: str) -> None:
    assert issubclass(refusals.Refusal, SfuError)  # the module's codes count only once it is imported
    named = set(re.findall(r"^  (\w+):", constant("i18n/reasons.js", name), re.MULTILINE))
    assert named
    assert named <= codes() | OWN_CODES, named - codes() - OWN_CODES


def test_the_page_moderates_as_the_server_allows() -> None:
    actions = set(re.findall(r"act\('(\w+)'", page))
    assert actions
    assert actions <= set(get_args(get_type_hints(Moderate)["action"])), actions
