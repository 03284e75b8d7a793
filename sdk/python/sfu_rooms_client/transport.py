"""Requests, and when they are sent again."""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any

from sfu_rooms_client.errors import ApiError, Unreachable

AGAIN = (429, 502, 503, 504)
"""Statuses of requests that had no effect, or that may be repeated like those that got no answer."""
WAIT_S = 0.5
"""Before the second attempt; each further one waits twice as long."""
MOST_WAIT_S = 30.0
"""A server that asks for a longer wait than this is not asked again."""


@dataclass(frozen=True)
class Answer:
    body: Any
    headers: Message


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key to another server."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Transport:
    def __init__(self, base_url: str, key: str, timeout_s: float, attempts: int) -> None:
        if urllib.parse.urlsplit(base_url).scheme not in ("http", "https"):
            raise ValueError("The address of the server must begin with https:// or http://.")
        self.base_url = base_url.rstrip("/")
        self._key, self._timeout_s, self._attempts = key, timeout_s, attempts
        self._opener = urllib.request.build_opener(_NoRedirects)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        if_match: str = "",
        idempotency_key: str = "",
    ) -> Answer:
        """`path` is below /api/v1. Raises ApiError."""
        headers = {"Authorization": f"Bearer {self._key}", "Accept": "application/json"}
        if method == "POST":
            headers["Idempotency-Key"] = idempotency_key or str(uuid.uuid4())
        if if_match:
            headers["If-Match"] = if_match
        if body is not None:
            headers["Content-Type"] = "application/json"
        asked = urllib.parse.urlencode({name: value for name, value in (query or {}).items() if value is not None})
        url = f"{self.base_url}/api/v1{path}" + (f"?{asked}" if asked else "")
        data = None if body is None else json.dumps(body).encode()
        attempts = 1 if if_match else self._attempts  # after a change that succeeded, the version no longer fits
        lost = False
        for attempt in range(attempts):
            try:
                return self._once(urllib.request.Request(url, data, headers, method=method))
            except ApiError as error:
                if lost and method == "DELETE" and error.status == 404:
                    return Answer(None, Message())  # an earlier attempt deleted it
                wait_s = _wait_s(error, attempt)
                if wait_s is None or attempt == attempts - 1:
                    raise
                lost = lost or error.status != 429
            time.sleep(wait_s)
        raise AssertionError("there is at least one attempt")

    def pages(self, path: str, query: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """All items of a list, page by page."""
        asked = dict(query or {})
        while True:
            page = self.send("GET", path, query=asked).body
            yield from page["items"]
            if page.get("next") is None:
                return
            asked["cursor"] = page["next"]

    def _once(self, request: urllib.request.Request) -> Answer:
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                text = response.read()
                return Answer(json.loads(text) if text else None, response.headers)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(f"There was no answer: {error}") from error


def segment(name: str) -> str:
    """A name as a part of a path. Clients and proxies resolve dots, unless a blank precedes them."""
    quoted = urllib.parse.quote(name, safe="")
    return f"%20{quoted}" if quoted in (".", "..") else quoted


def _wait_s(error: ApiError, attempt: int) -> float | None:
    """How long to wait before the next attempt; None: there should be none."""
    if not (isinstance(error, Unreachable) or error.status in AGAIN or error.code == "idempotency_running"):
        return None
    if error.retry_after is not None:
        return error.retry_after if error.retry_after <= MOST_WAIT_S else None
    return WAIT_S * float(2**attempt) * random.uniform(0.75, 1.25)


def _refusal(error: urllib.error.HTTPError) -> ApiError:
    """What an answer says, also if it is a proxy's and no problem (RFC 9457)."""
    try:
        said = json.loads(error.read())
    except (OSError, http.client.HTTPException, ValueError):
        said = None
    said = said if isinstance(said, dict) else {}
    after = error.headers.get("Retry-After", "")
    return ApiError(
        error.code,
        str(said.get("code", "http_error")),
        str(said.get("detail", error.reason)),
        field=str(said.get("field", "")),
        request_id=error.headers.get("X-Request-Id", ""),
        retry_after=float(after) if after.isascii() and after.isdecimal() else None,
    )
