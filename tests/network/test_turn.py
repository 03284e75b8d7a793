"""TURN URLs and credentials."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.network.turn import CREDENTIALS_S, TurnUrl, credentials, parse_url


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("turn:turn.example.org", TurnUrl("turn", "turn.example.org", 3478)),
        ("turns:turn.example.org", TurnUrl("turns", "turn.example.org", 5349)),
        ("turns:turn.example.org:443?transport=tcp", TurnUrl("turns", "turn.example.org", 443)),
        ("turn:192.0.2.7:80?transport=udp", TurnUrl("turn", "192.0.2.7", 80)),
        ("turn:[2001:db8::1]:443", TurnUrl("turn", "2001:db8::1", 443)),
        ("turn:localhost", TurnUrl("turn", "localhost", 3478)),
    ],
)
def test_a_url_has_a_scheme_a_host_and_a_port(url: str, parts: TurnUrl) -> None:
    assert parse_url(url) == parts


@given(st.text())
def test_no_text_raises_anything_but_its_reason(text: str) -> None:
    for wrong in (text, f"turn:{text}", f"turn:[{text}]", f"turns:example.org:{text}"):
        try:
            parse_url(wrong)
        except ValueError as error:
            assert str(error).startswith(("is ", "has "))  # noqa: PT017 -- most texts are wrong, a few are right


def test_credentials_are_those_that_coturn_expects() -> None:
    """As `printf %s "$username" | openssl dgst -sha1 -hmac "$secret" -binary | base64` has them."""
    username = "1735776000:dT1Q9xLrW0aF"
    now_s = 1_735_776_000 - CREDENTIALS_S
    found = credentials("north-by-northwest", "dT1Q9xLrW0aF", now_s)
    assert found == (username, "j/pFLmxEYPaogZjEQ03Pn40n5h8=")
    assert credentials("north-by-northwest", "dT1Q9xLrW0aF", now_s + 1)[1] != found[1]
    assert credentials("north-by-northeast", "dT1Q9xLrW0aF", now_s)[1] != found[1]
