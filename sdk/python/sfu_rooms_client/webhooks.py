"""Verification of webhooks, as Standard Webhooks describes them."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
import time
from collections.abc import Iterable, Mapping

from sfu_rooms_client.types import Event

TOLERANCE_S = 300


class WebhookError(ValueError):
    """The message does not come from the server, or is too old."""


def verify_webhook(
    secret: str | Iterable[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> Event:
    """The event in a message. `body` is what came, before it is parsed.

    One of the secrets must fit, if there are several. `now` is in seconds since 1970. Raises WebhookError unless the
    server made the message, at most `tolerance_s` ago.
    """
    found = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, at, signatures = (found[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as missing:
        raise WebhookError(f"The header {missing} is missing.") from None
    if not re.fullmatch(r"[0-9]{1,12}", at, re.ASCII):
        raise WebhookError("The time is not a number.")
    if abs((time.time() if now is None else now) - int(at)) > tolerance_s:
        raise WebhookError("The message is too old, or a clock is wrong.")
    signed = b".".join((message_id.encode("utf-8", "replace"), at.encode(), body))
    given = [one.encode("utf-8", "replace") for one in signatures.split(" ")]
    secrets = [secret] if isinstance(secret, str) else list(secret)
    right = [b"v1," + base64.b64encode(hmac.digest(_key(one), signed, "sha256")) for one in secrets]
    if not any(hmac.compare_digest(one, other) for one in right for other in given):
        raise WebhookError("The signature is wrong.")
    event: Event = json.loads(body)
    return event


def _key(secret: str) -> bytes:
    """Of the form `whsec_` and base64. Raises ValueError for another, which is a mistake in the receiver's settings."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("The secret of a webhook is `whsec_` and base64.")
    return key
