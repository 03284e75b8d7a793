"""API keys, company secrets, and the server key that encrypts those secrets at rest. Pure except for the key file."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path
from typing import Generic, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sfu.errors import ConfigError

T = TypeVar("T", str, bytes)

KEY_BYTES = 32
"""Of an API key, a company's secret and the server key: what HS256 (RFC 7518 section 3.2) and AES-256 ask for."""

PREFIX_CHARACTERS = 11
"""`pk_` and 48 bits: enough to recognise a key by, far from enough to guess it."""

_API_KEY = re.compile(r"pk_[A-Za-z0-9_-]{43}", re.ASCII)
_NO_PREFIX = "pk_" + 8 * "."
_NO_HASH = 64 * "0"
_NONCE_BYTES = 12
_VERSION = "1."


class Secret(Generic[T]):
    """A value that no log, repr, f-string or JSON shows. `reveal` it where it is used, at the last moment."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value: T = value

    def reveal(self) -> T:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"


def new_api_key() -> Secret[str]:
    return Secret("pk_" + secrets.token_urlsafe(KEY_BYTES))


def new_signing_secret() -> Secret[bytes]:
    return Secret(secrets.token_bytes(KEY_BYTES))


def visible_prefix(api_key: str) -> str:
    """What the database keeps in clear to find the key by; for text that is no key, one that no key has."""
    return api_key[:PREFIX_CHARACTERS] if _API_KEY.fullmatch(api_key) else _NO_PREFIX


def digest(text: str) -> str:
    """SHA-256, in hex. Keys and tokens hold 256 random bits, so neither salt nor a slow hash would add anything."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def matching(api_key: str, hashes: list[str]) -> str | None:
    """The one of `hashes` that is the key's. Takes as long for a key nobody has as for a wrong one."""
    presented, found = digest(api_key), None
    for candidate in hashes or [_NO_HASH]:
        if hmac.compare_digest(presented, candidate):
            found = candidate
    return found


class ServerKey:
    """Seals companies' secrets with AES-256-GCM. Lose it and every company needs a new secret (`rotate-secret`)."""

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ConfigError(f"The server key must be {KEY_BYTES} bytes, in base64 or hex; it has {len(raw)}.")
        self._cipher = AESGCM(raw)

    @classmethod
    def from_text(cls, text: str) -> ServerKey:
        """From base64 (either alphabet) or hex. Raises ConfigError, which never repeats the text."""
        text = text.strip()
        try:
            if len(text) == 2 * KEY_BYTES:
                return cls(bytes.fromhex(text))
            padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
            return cls(base64.b64decode(padded, altchars=b"-_" if {"-", "_"} & set(text) else None, validate=True))
        except (ValueError, binascii.Error):
            raise ConfigError(f"The server key must be {KEY_BYTES} bytes, in base64 or hex.") from None

    @classmethod
    def from_file(cls, path: Path) -> ServerKey:
        """Reads the key, or makes one that only this user can read. Safe with several starts at once."""
        try:
            if not path.exists():
                _create(path, base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
            text = path.read_text("ascii")
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"The server key file {path} cannot be used: {error}") from error
        try:
            return cls.from_text(text)
        except ConfigError as error:
            raise ConfigError(f"{error} (file {path})") from None

    def seal(self, secret: Secret[bytes], owner: str) -> str:
        """Ciphertext as text. `owner` is bound to it: moved to another company's row, it does not open."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, secret.reveal(), owner.encode())
        return _VERSION + base64.urlsafe_b64encode(sealed).decode()

    def unseal(self, sealed: str, owner: str) -> Secret[bytes]:
        """Raises ConfigError when it was sealed with another key or for another owner, or was changed."""
        try:
            raw = base64.urlsafe_b64decode(sealed.removeprefix(_VERSION))
            return Secret(self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], owner.encode()))
        except (InvalidTag, ValueError):
            raise ConfigError(
                "The server key does not fit this database: a company's secret does not open with it. "
                "Set the key the database was made with, or give the company a new secret."
            ) from None


def _create(path: Path, content: bytes) -> None:
    """Whole or not at all, so that nobody reads half a key; the first of several wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
