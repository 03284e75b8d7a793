"""Secrets and signatures of webhooks, as Standard Webhooks 1.0 (standardwebhooks.com) describes them. Pure."""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Iterable
from datetime import datetime

from sfu.tenancy.keys import Secret

SECRET_BYTES = 32
PREFIX = "whsec_"


def new_secret() -> Secret[bytes]:
    return Secret(secrets.token_bytes(SECRET_BYTES))


def shown(secret: Secret[bytes]) -> Secret[str]:
    """A secret as its receiver gets it: `whsec_` and base64."""
    return Secret(PREFIX + base64.b64encode(secret.reveal()).decode())


def headers(message_id: str, at: datetime, body: bytes, signing: Iterable[Secret[bytes]]) -> dict[str, str]:
    """The headers of a message that is sent now: its id, the time, and a signature with each of the secrets."""
    timestamp = str(int(at.timestamp()))
    signed = f"{message_id}.{timestamp}.".encode() + body
    codes = (hmac.digest(secret.reveal(), signed, "sha256") for secret in signing)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{base64.b64encode(code).decode()}" for code in codes),
    }
