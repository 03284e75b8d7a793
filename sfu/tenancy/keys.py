"""API keys, company secrets, and the server key that encrypts those secrets at rest. Pure except for the key file."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from pathlib import Path
from typing import Generic, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sfu.errors import ConfigError
from sfu.process.private import create_private

T = TypeVar("T", str, bytes)

KEY_BYTES = 32
"""Length of API keys, companies' secrets and the server key, as HS256 (RFC 7518 section 3.2) and AES-256 require."""

KEY_CHARACTERS = 46
"""Length of a key as text: `pk_` (a company's API key) or `ak_` (an admin key), and KEY_BYTES in base64url."""

PREFIX_CHARACTERS = 11
"""`pk_` and 48 bits: enough to recognise a key, far too little to guess it."""

_API_KEY = re.compile(rf"[pa]k_[A-Za-z0-9_-]{{{KEY_CHARACTERS - 3}}}", re.ASCII)
_NO_PREFIX = "pk_" + 8 * "."
_NO_HASH = 64 * "0"
_NONCE_BYTES = 12
_VERSION = "1."


class Secret(Generic[T]):
    """A value that does not appear in logs, reprs, f-strings or JSON. Call `reveal` only where it is used."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value: T = value

    def reveal(self) -> T:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"


def new_api_key() -> Secret[str]:
    return Secret("pk_" + secrets.token_urlsafe(KEY_BYTES))


def new_admin_key() -> Secret[str]:
    return Secret("ak_" + secrets.token_urlsafe(KEY_BYTES))


def new_signing_secret() -> Secret[bytes]:
    return Secret(secrets.token_bytes(KEY_BYTES))


def is_api_key(text: str) -> bool:
    """Whether the text has the form of an API key, or of an admin key."""
    return _API_KEY.fullmatch(text) is not None


def seen(text: str) -> str:
    """The form of a text that is no API key, for whoever sent it. It contains nothing of the text but its length."""
    if {text[:1], text[-1:]} & {"'", '"', "`"}:
        return "in quotes; send it without them"
    if " " in text:
        return "more than one word"
    if not text.startswith(("pk_", "ak_")):
        return "an API key without its `pk_`" if is_api_key(f"pk_{text}") else "no API key: these begin with `pk_`"
    if len(text) == KEY_CHARACTERS:
        return "no API key: it has a character that none has"
    part = "only the beginning of an API key" if len(text) < KEY_CHARACTERS else "more than an API key"
    return f"{part}: it has {len(text)} characters, and an API key has {KEY_CHARACTERS}"


def visible_prefix(api_key: str) -> str:
    """The start of a key, which the database stores in clear to look it up. For invalid keys, a prefix no key has."""
    return api_key[:PREFIX_CHARACTERS] if is_api_key(api_key) else _NO_PREFIX


def digest(text: str) -> str:
    """SHA-256 in hex. Neither salt nor a slow hash would help, since keys and signing secrets have 256 random bits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def matching(api_key: str, hashes: list[str]) -> str | None:
    """The one of `hashes` that belongs to the key, or None. Takes as long for an unknown prefix as for a wrong key."""
    presented, found = digest(api_key), None
    for candidate in hashes or [_NO_HASH]:
        if hmac.compare_digest(presented, candidate):
            found = candidate
    return found


class ServerKey:
    """Encrypts companies' secrets with AES-256-GCM, and signs tickets.

    If it is lost, all companies need new secrets (`rotate-secret`), and tickets are no longer valid.
    """

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ConfigError(f"The server key must be {KEY_BYTES} bytes, in base64 or hex; it has {len(raw)} bytes.")
        self.raw = Secret(raw)
        """The key itself, for a backup."""
        self._cipher = AESGCM(raw)
        self._signing = Secret(hmac.digest(raw, b"tickets", "sha256"))

    @classmethod
    def from_text(cls, text: str) -> ServerKey:
        """Parses base64 (either alphabet) or hex. Raises ConfigError, whose message does not contain the text."""
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
        """Reads the key file, or creates it, readable by this user only. Safe if several servers start at once."""
        try:
            if not path.exists():
                create_private(path, base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
            text = path.read_text("ascii")
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"The server key file {path} cannot be used: {error}") from error
        try:
            return cls.from_text(text)
        except ConfigError as error:
            raise ConfigError(f"{error} (file {path})") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServerKey) and hmac.compare_digest(self.raw.reveal(), other.raw.reveal())

    __hash__ = None  # type: ignore[assignment]

    def write(self, path: Path) -> None:
        """Creates a key file, as `from_file` does. Raises OSError."""
        create_private(path, base64.urlsafe_b64encode(self.raw.reveal()) + b"\n")

    def sign(self, text: str) -> str:
        """A signature (HMAC-SHA256) of `text`, in URL-safe base64."""
        code = hmac.digest(self._signing.reveal(), text.encode("utf-8", "surrogatepass"), "sha256")
        return base64.urlsafe_b64encode(code).decode().rstrip("=")

    def signed(self, text: str, signature: str) -> bool:
        """Whether `sign` made the signature, compared in constant time."""
        return hmac.compare_digest(self.sign(text).encode(), signature.encode("utf-8", "surrogatepass"))

    def seal(self, secret: Secret[bytes], owner: str) -> str:
        """Encrypts a secret into text. `owner` is authenticated with it, so it is invalid in another company's row."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, secret.reveal(), owner.encode())
        return _VERSION + base64.urlsafe_b64encode(sealed).decode()

    def unseal(self, sealed: str, owner: str) -> Secret[bytes]:
        """Decrypts a sealed secret. Raises ConfigError if key or owner are not those of `seal`, or it was altered."""
        try:
            raw = base64.urlsafe_b64decode(sealed.removeprefix(_VERSION))
            return Secret(self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], owner.encode()))
        except (InvalidTag, ValueError):
            raise ConfigError(
                "The server key does not fit this database: it cannot decrypt a company's secret."
            ) from None
