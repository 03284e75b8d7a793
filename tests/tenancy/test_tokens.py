from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.errors import BadName
from sfu.refusals import BadValue, TokenError, TokenMalformed, TokenRevoked
from sfu.tenancy import tokens
from sfu.tenancy.keys import new_api_key
from sfu.tenancy.names import canonical, sought
from sfu.tenancy.tokens import Permissions

NOW = datetime(2025, 10, 21, 17, 21, 27, 900000, UTC)
COMPANY = "6f1c2a52-7a6e-4a83-9a4e-0c7c1e6d8b11"
STRANGER = "0b0e7f9a-3c56-4b52-8ddc-3b1e9f5a2c22"
NOBODY = "4d3c9b52-93e4-4f0f-8a35-f2d9f3b0c933"
SECRET = bytes(range(32))
OTHER_SECRET = bytes(range(1, 33))


def make(**changes: Any) -> tokens.Grant:
    settings = {"company_id": COMPANY, "room_id": "team-meeting", "user_name": "alice", "duration_s": 3600, "now": NOW}
    return tokens.grant(**(settings | changes))


def signed(
    changes: dict[str, Any] | None = None,
    *,
    without: str = "",
    secret: bytes | None = SECRET,
    algorithm: str = "HS256",
    **header: Any,
) -> str:
    """A token as no code of ours would make it. A header field of None is left out."""
    claims = jwt.decode(tokens.encode(make(), SECRET), options={"verify_signature": False}) | (changes or {})
    claims.pop(without, None)
    headers = {key: value for key, value in ({"kid": COMPANY} | header).items() if value is not None}
    return jwt.encode(claims, secret, algorithm, headers=headers)


def seconds(offset: int) -> int:
    return int(NOW.timestamp()) + offset


def test_a_grant_comes_back_from_its_token() -> None:
    grant = make(permissions=Permissions(publish=False, moderate=True))
    token = tokens.encode(grant, SECRET)
    assert tokens.peek(token) == COMPANY
    assert tokens.decode(token, SECRET, NOW) == grant
    assert grant.expires_at == datetime(2025, 10, 21, 18, 21, 27, tzinfo=UTC)


def test_a_token_has_the_claims_of_the_specification() -> None:
    grant = make()
    token = tokens.encode(grant, SECRET)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT", "kid": COMPANY}
    assert jwt.decode(token, options={"verify_signature": False}) == {
        "iss": "sfu",
        "aud": "webrtc",
        "sub": "alice",
        "jti": grant.id,
        "company_id": COMPANY,
        "room_id": "team-meeting",
        "user_name": "alice",
        "permissions": {"publish": True, "subscribe": True, "chat": True, "moderate": False},
        "iat": seconds(0),
        "nbf": seconds(0),
        "exp": seconds(3600),
    }


def test_every_token_has_an_id_of_its_own() -> None:
    assert len({make().id for _ in range(100)}) == 100


HEADER, CLAIMS, SIGNATURE = signed().split(".")
TAMPERED = ".".join((HEADER, signed({"user_name": "bob", "sub": "bob"}).split(".")[1], SIGNATURE))
UNSIGNED = signed(algorithm="none", secret=None)
REFUSED = {
    "empty": ("", "token_malformed"),
    "no JWT": ("pk_live_key", "token_malformed"),
    "three empty parts": ("..", "token_malformed"),
    "not ASCII": (signed() + "é", "token_malformed"),
    "half a character": ("\ud800", "token_malformed"),
    "a NUL": (signed() + "\0", "token_malformed"),
    "too long": (signed({"x": "x" * 9000}), "token_malformed"),
    "in quotes": (f'"{signed()}"', "token_malformed"),
    "cut off": (f"{HEADER}.{CLAIMS}", "token_malformed"),
    "header is a list": ("W10.e30.AAAA", "token_malformed"),
    "deep header": (base64.urlsafe_b64encode(b"[" * 4000).decode().rstrip("=") + ".e30.AAAA", "token_malformed"),
    "no kid": (signed(kid=None), "token_malformed"),
    "kid no UUID": (signed(kid="../../etc/passwd"), "token_malformed"),
    "kid in another spelling": (signed(kid=COMPANY.upper()), "token_malformed"),
    "unknown critical header": (signed(crit=["x"], x=1), "token_malformed"),
    "detached payload": (signed(b64=False), "token_malformed"),
    "alg none": (UNSIGNED, "token_algorithm"),
    "alg HS512": (signed(algorithm="HS512", secret=SECRET * 2), "token_algorithm"),
    "alg HS384": (signed(algorithm="HS384", secret=SECRET * 2), "token_algorithm"),
    "tampered": (TAMPERED, "token_signature"),
    "no signature": (f"{HEADER}.{CLAIMS}.", "token_signature"),
    "short signature": (f"{HEADER}.{CLAIMS}.{SIGNATURE[4:]}", "token_signature"),
    "other secret": (signed(secret=OTHER_SECRET), "token_signature"),
    "other tenant's kid": (signed(kid=STRANGER), "token_signature"),
    "kid of nobody": (signed(kid=NOBODY), "token_signature"),
    "other audience": (signed({"aud": "mail"}), "token_audience"),
    "audience in a list": (signed({"aud": ["webrtc"]}), "token_audience"),
    "no audience": (signed(without="aud"), "token_audience"),
    "other issuer": (signed({"iss": "acme"}), "token_audience"),
    "no issuer": (signed(without="iss"), "token_audience"),
    "other company": (signed({"company_id": STRANGER}), "token_company"),
    "another company's signature": (signed(kid=STRANGER, secret=OTHER_SECRET), "token_company"),
    "expired": (signed({"iat": seconds(-3600), "nbf": seconds(-3600), "exp": seconds(-61)}), "token_expired"),
    "not yet valid": (signed({"nbf": seconds(120)}), "token_not_yet_valid"),
    "issued in the future": (signed({"iat": seconds(120), "nbf": seconds(0)}), "token_not_yet_valid"),
    "lives too long": (signed({"exp": seconds(24 * 3600 + 1)}), "token_lifetime"),
    "lives too long, issued late": (signed({"nbf": seconds(-90000), "exp": seconds(10)}), "token_lifetime"),
    "sub is not user_name": (signed({"sub": "bob"}), "token_claim"),
    "unknown permission": (signed({"permissions": {"admin": True}}), "token_claim"),
    "permission is a number": (signed({"permissions": {"publish": 1}}), "token_claim"),
    "permissions are a list": (signed({"permissions": ["publish"]}), "token_claim"),
    "room is empty": (signed({"room_id": ""}), "token_claim"),
    "room is a number": (signed({"room_id": 5}), "token_claim"),
    "name of nothing visible": (signed({"user_name": "\u202e\u200b", "sub": "\u202e\u200b"}), "token_claim"),
    "name too long": (signed({"user_name": "a" * 256, "sub": "a" * 256}), "token_claim"),
    "jti no UUID": (signed({"jti": "1"}), "token_claim"),
    "exp is text": (signed({"exp": "4000000000"}), "token_claim"),
    "exp is a fraction": (signed({"exp": seconds(60) + 0.5}), "token_claim"),
    "exp is true": (signed({"exp": True}), "token_claim"),
    "exp is negative": (signed({"exp": -1}), "token_claim"),
    "exp is after the year 9999": (signed({"exp": 10**18}), "token_claim"),
    "exp is null": (signed({"exp": None}), "token_claim"),
} | {
    f"no {claim}": (signed(without=claim), "token_claim")
    for claim in ("sub", "jti", "company_id", "room_id", "user_name", "permissions", "iat", "nbf", "exp")
}


@pytest.mark.parametrize("around", ["{}", " {}\n"])
def test_an_api_key_in_place_of_a_token_is_called_one(around: str) -> None:
    key = new_api_key().reveal()
    with pytest.raises(TokenMalformed, match="This is an API key, not a token") as refused:
        tokens.peek(around.format(key))
    assert key not in str(refused.value)
    assert "API key" in tokens.inspect(key, SECRET, NOW).message


@pytest.mark.parametrize(("token", "code"), REFUSED.values(), ids=REFUSED)
def test_a_refused_token_tells_why(token: str, code: str) -> None:
    secrets = {COMPANY: SECRET, STRANGER: OTHER_SECRET}
    with pytest.raises(TokenError) as refused:
        tokens.decode(token, secrets.get(tokens.peek(token)), NOW)
    assert refused.value.code == code


def test_a_missing_claim_is_named() -> None:
    with pytest.raises(TokenError, match="`exp`"):
        tokens.decode(signed(without="exp"), SECRET, NOW)


@pytest.mark.parametrize(
    ("offset", "accepted"),
    [(-62, False), (-61, False), (-60, True), (0, True), (3599, True), (3659, True), (3660, False), (3661, False)],
)
def test_clocks_may_differ_by_a_minute(offset: int, accepted: bool) -> None:
    token, now = tokens.encode(make(), SECRET), NOW.replace(microsecond=0) + timedelta(seconds=offset)
    if accepted:
        tokens.decode(token, SECRET, now)
    else:
        with pytest.raises(TokenError, match=re.escape(f"server's time is {now:%Y-%m-%dT%H:%M:%SZ}")):
            tokens.decode(token, SECRET, now)


def test_a_company_that_does_not_exist_is_refused_like_a_wrong_signature() -> None:
    with pytest.raises(TokenError) as unknown:
        tokens.decode(signed(kid=STRANGER, secret=OTHER_SECRET), None, NOW)
    with pytest.raises(TokenError) as wrong:
        tokens.decode(signed(kid=STRANGER, secret=OTHER_SECRET), SECRET, NOW)
    assert (unknown.value.code, str(unknown.value)) == (wrong.value.code, str(wrong.value))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"duration_s": 0}, "duration"),
        ({"duration_s": 86401}, "duration"),
        ({"room_id": ""}, "room_id"),
        ({"room_id": " \u202e"}, "room_id"),
        ({"user_name": "x" * 256}, "user_name"),
        ({"user_name": "\ud800"}, "user_name"),
    ],
)
def test_a_grant_that_no_token_may_carry_is_not_made(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadValue, match=words):
        make(**changes)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, Permissions()),
        ({"moderate": True}, Permissions(moderate=True)),
        ({"publish": False, "subscribe": True, "chat": False}, Permissions(publish=False, chat=False)),
    ],
)
def test_permissions_left_out_have_their_default(value: object, expected: Permissions) -> None:
    assert Permissions.of(value) == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "an object"),
        (None, "an object"),
        ({"publish": "yes"}, "publish"),
        ({"kick": True}, "kick"),
        ({5: True}, "5"),
    ],
)
def test_bad_permissions_are_named(value: object, words: str) -> None:
    with pytest.raises(BadValue, match=f"^permissions.*{words}"):
        Permissions.of(value)


# --- explained to people ---------------------------------------------------------------------------------------------


def test_a_valid_token_is_explained() -> None:
    found = tokens.inspect(tokens.encode(make(), SECRET), SECRET, NOW)
    assert found.valid
    assert found.code == "valid"
    assert found.message == (
        "alice may enter room team-meeting until 2025-10-21T18:21:27Z, 59 minutes from now, "
        "and may publish, subscribe and chat there."
    )
    assert found.claims is not None
    assert found.claims["room_id"] == "team-meeting"
    late = tokens.inspect(tokens.encode(make(), SECRET), SECRET, NOW + timedelta(hours=1, seconds=20))
    assert late.valid
    assert "for 39 seconds more, though the token has expired" in late.message


@pytest.mark.parametrize(
    ("token", "code", "message"),
    [
        (
            signed({"iat": seconds(-9000), "nbf": seconds(-9000), "exp": seconds(-7200)}),
            "token_expired",
            "The token expired 2 hours ago, at 2025-10-21T15:21:27Z. The server's time is 2025-10-21T17:21:27Z.",
        ),
        (
            signed({"nbf": seconds(240), "exp": seconds(900)}),
            "token_not_yet_valid",
            (
                "The token is valid from 2025-10-21T17:25:27Z on, 3 minutes from now. "
                "The server's time is 2025-10-21T17:21:27Z."
            ),
        ),
        (
            signed(algorithm="HS512", secret=SECRET * 2),
            "token_algorithm",
            "The token is signed with 'HS512', not with HS256.",
        ),
    ],
    ids=["expired", "early", "algorithm"],  # a token has a random name, and xdist wants the same ids everywhere
)
def test_a_refused_token_is_explained(token: str, code: str, message: str) -> None:
    found = tokens.inspect(token, SECRET, NOW)
    assert (found.valid, found.code, found.message) == (False, code, message)
    assert found.advice
    assert found.claims is not None


def test_what_the_database_holds_against_a_token_is_explained() -> None:
    found = tokens.inspect(tokens.encode(make(), SECRET), SECRET, NOW, TokenRevoked())
    assert (found.valid, found.code) == (False, "token_revoked")


def test_a_bad_token_is_not_made_better_by_its_record() -> None:
    assert tokens.inspect(signed(secret=OTHER_SECRET), SECRET, NOW, TokenRevoked()).code == "token_signature"


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é", "x" * 10000])
def test_what_is_no_token_is_explained_too(token: str) -> None:
    found = tokens.inspect(token, None, NOW)
    assert (found.code, found.header, found.claims) == ("token_malformed", None, None)


def test_every_refusal_has_a_code_and_advice_of_its_own() -> None:
    kinds = TokenError.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(kind.advice and kind.code.startswith("token_") for kind in kinds)


# --- whatever comes --------------------------------------------------------------------------------------------------

names = st.text(min_size=1, max_size=255).filter(lambda text: sought(text) == text and is_name(text)) | st.just(
    "👩" * 255
)


def is_name(text: str) -> bool:
    try:
        return bool(canonical(text))
    except BadName:
        return False


def test_a_claim_is_a_name_in_any_spelling() -> None:
    found = tokens.decode(
        signed({"room_id": " a  e\u0301", "user_name": "می\u200cخواهم ", "sub": "می\u200cخواهم"}), SECRET, NOW
    )
    assert (found.room_id, found.user_name) == ("a é", "می\u200cخواهم")


@given(room=names, name=names, duration=st.integers(1, 86400), flags=st.tuples(*[st.booleans()] * 4))
def test_every_grant_survives(room: str, name: str, duration: int, flags: tuple[bool, ...]) -> None:
    grant = make(room_id=room, user_name=name, duration_s=duration, permissions=Permissions(*flags))
    assert tokens.decode(tokens.encode(grant, SECRET), SECRET, NOW) == grant


@given(st.data())
def test_a_token_changed_anywhere_is_refused(data: st.DataObject) -> None:
    token = signed()
    place = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from(sorted(set(map(chr, range(33, 127))) - {token[place]})))
    with pytest.raises(TokenError):
        tokens.decode(token[:place] + character + token[place + 1 :], SECRET, NOW)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    claim=st.sampled_from(["iss", "aud", "sub", "jti", "company_id", "room_id", "iat", "nbf", "exp"]), value=anything
)
def test_a_signed_claim_of_any_kind_is_a_grant_or_a_refusal(claim: str, value: object) -> None:
    try:
        token = signed({claim: value})
    except (TypeError, UnicodeError):
        return  # not even PyJWT signs that
    try:
        found = tokens.decode(token, SECRET, NOW)
    except TokenError:
        return
    assert isinstance(found, tokens.Grant)


@given(header=st.dictionaries(st.text(), anything, max_size=4), body=anything, signature=st.binary(max_size=40))
def test_any_three_parts_are_refused(header: dict[str, object], body: object, signature: bytes) -> None:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    for extra in ({}, {"alg": "HS256"}, {"alg": "HS256", "kid": COMPANY}):
        token = f"{part(header | extra)}.{part(body)}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
        with pytest.raises(TokenError):
            tokens.decode(token, SECRET, NOW)
        assert not tokens.inspect(token, SECRET, NOW).valid


@given(st.text(max_size=300))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(TokenError):
        tokens.decode(text, SECRET, NOW)
    assert not tokens.inspect(text, SECRET, NOW).valid
