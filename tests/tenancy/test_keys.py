from __future__ import annotations

import base64
import json
import logging
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.errors import ConfigError
from sfu.tenancy.keys import (
    Secret,
    ServerKey,
    digest,
    is_api_key,
    matching,
    new_admin_key,
    new_api_key,
    new_signing_secret,
    seen,
    visible_prefix,
)

RAW = bytes(range(200, 232))


def test_api_keys_are_long_and_their_own() -> None:
    keys = {new_api_key().reveal() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("pk_") and len(key) == 46 for key in keys)
    assert len(new_signing_secret().reveal()) == 32


def test_an_admin_key_is_told_from_an_api_key_by_its_beginning() -> None:
    key = new_admin_key().reveal()
    assert key.startswith("ak_")
    assert is_api_key(key)
    assert visible_prefix(key) == key[:11]
    assert seen(key[:20]) == "only the beginning of an API key: it has 20 characters, and an API key has 46"


def test_a_prefix_shows_a_quarter_of_the_key_at_most() -> None:
    key = new_api_key().reveal()
    assert key.startswith(visible_prefix(key))
    assert len(visible_prefix(key)) == 11


@pytest.mark.parametrize(
    "text", ["", "pk_", "pk_" + "a" * 42, "pk_" + "a" * 44, "pk_" + "é" * 43, "pk_" + "a" * 43 + "\n"]
)
def test_what_is_no_key_has_a_prefix_that_no_key_has(text: str) -> None:
    assert visible_prefix(text) == "pk_........"


@given(st.text())
def test_any_text_is_compared(text: str) -> None:
    assert matching(text, []) is None
    assert matching(text, [digest(text)]) == digest(text)
    assert matching(text, [digest(text + "x"), digest(text)]) == digest(text)
    assert matching(text, [digest(text + "x")]) is None


def test_a_secret_does_not_show(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret("very secret")
    logging.getLogger("test").warning("%s %r", secret, [secret])
    shown = f"{secret} {secret!r} {[secret]} {caplog.text}"
    assert "very" not in shown
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert not hasattr(secret, "__dict__")
    assert secret.reveal() == "very secret"


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(RAW).decode(),
        base64.urlsafe_b64encode(RAW).decode(),
        base64.urlsafe_b64encode(RAW).decode().rstrip("=") + "\n",
        RAW.hex(),
        f"  {RAW.hex().upper()}\n",
    ],
)
def test_a_server_key_is_read_from_base64_and_hex(text: str) -> None:
    sealed = ServerKey(RAW).seal(Secret(b"secret"), "owner")
    assert ServerKey.from_text(text).unseal(sealed, "owner").reveal() == b"secret"


@pytest.mark.parametrize(
    "text", ["", "hunter2", "a" * 64 + "b", "zz" * 32, base64.b64encode(RAW[1:]).decode(), "é" * 43]
)
def test_a_bad_server_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError, match="32 bytes") as refused:
        ServerKey.from_text(text)
    assert not text or text not in str(refused.value)


@given(st.binary(max_size=100), st.text(max_size=40))
def test_what_is_sealed_opens_again(secret: bytes, owner: str) -> None:
    key = ServerKey(RAW)
    owner = owner.encode("utf-8", "replace").decode()
    sealed = key.seal(Secret(secret), owner)
    assert sealed != key.seal(Secret(secret), owner)
    assert key.unseal(sealed, owner).reveal() == secret
    with pytest.raises(ConfigError):
        key.unseal(sealed, owner + "x")
    with pytest.raises(ConfigError):
        ServerKey(RAW[::-1]).unseal(sealed, owner)


@given(st.text(max_size=100))
def test_what_was_not_sealed_does_not_open(text: str) -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        ServerKey(RAW).unseal(text, "owner")


def test_a_key_file_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "state" / "server.key"
    sealed = ServerKey.from_file(path).seal(Secret(b"secret"), "owner")
    assert ServerKey.from_file(path).unseal(sealed, "owner").reveal() == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["server.key"]


def test_several_starts_make_one_key(tmp_path: Path) -> None:
    path, sealed, together = tmp_path / "server.key", [], threading.Barrier(8)

    def start() -> None:
        together.wait()
        sealed.append(ServerKey.from_file(path).seal(Secret(b"secret"), "owner"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {ServerKey.from_file(path).unseal(text, "owner").reveal() for text in sealed} == {b"secret"}
    assert len(sealed) == 8


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe" * 16])
def test_a_bad_key_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "server.key"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)):
        ServerKey.from_file(path)
    with pytest.raises(ConfigError, match="cannot be used"):
        ServerKey.from_file(tmp_path)
