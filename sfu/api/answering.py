"""From what a handler returns to an HTTP response: JSON or CSV, entity tags, compression.

An ETag names the answer as it was sent, so that a reader who has it gets 304 instead of it again. That of a room begins
with the room's version, which If-Match looks at (handlers/rooms.py): who else is in the room does not matter for that.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import brotli
import trio
from quart import Response, request

from sfu.api import tables
from sfu.api.handlers import ApiResponse
from sfu.api.routes import Route
from sfu.api.schemas import DEFINITIONS

PACKED_BYTES = 1024
"""Shorter answers are not compressed: it would save nothing that a packet does not cost anyway."""
THREAD_BYTES = 1 << 15
"""Longer answers are compressed in a thread, so that nobody in a call waits for it."""
BROTLI_QUALITY = 4
"""Smaller than gzip at its usual level, in a third of the time. Higher ones take many times as long."""
_TAG = re.compile(r'"([\x21\x23-\x7e]*?)(?:-br|-gzip)?"')


async def respond(route: Route, query: Mapping[str, Any], answer: ApiResponse) -> Response:
    """The response to a request that was carried out."""
    status = answer.status or route.status
    response = Response("", status)
    if answer.body is None:
        response.headers.pop("Content-Type", None)
    else:
        text = _text(route, query, answer.body, response)
        await _finish(response, text.encode(), str(answer.headers.get("ETag", "")))
    response.headers["Cache-Control"] = "private, no-cache" if request.method in ("GET", "HEAD") else "no-store"
    if answer.body is not None and (cursor := answer.body.get("next")):
        more = {name: value for name, value in request.args.items() if name != "cursor"}
        response.headers["Link"] = f'<?{urlencode(more | {"cursor": cursor})}>; rel="next"'
    for name, value in answer.headers.items():
        if name != "ETag" or request.method not in ("GET", "HEAD"):
            response.headers[name] = _located(value) if name == "Location" else value
    return response


def _text(route: Route, query: Mapping[str, Any], body: Mapping[str, Any], response: Response) -> str:
    if route.rows:
        response.vary.add("Accept")
    if route.rows and _wants_csv(query):
        response.headers["Content-Type"] = "text/csv; charset=utf-8"
        response.headers["Content-Disposition"] = f'attachment; filename="{route.name.removeprefix("list_")}.csv"'
        return tables.to_csv(list(DEFINITIONS[route.rows]["properties"]), body["items"])
    response.headers["Content-Type"] = "application/json"
    return json.dumps(body, ensure_ascii=False) + "\n"


async def respond_fixed(route: Route, text: str) -> Response:
    """The response with a text that is always the same."""
    response = Response("", route.status, content_type=route.content_type)
    await _finish(response, text.encode(), "")
    return response


async def _finish(response: Response, content: bytes, version: str) -> None:
    """Sets the body, or for a reader who has it 304. Answers to requests that change something are never compressed:
    they may hold a token beside what others chose, and the length of compressed text tells about both."""
    if request.method not in ("GET", "HEAD") or response.status_code != 200:
        response.set_data(content)
        return
    tag = f"{version[1:-1]}.{_digest(content)}" if version else _digest(content)
    coding = _coding() if len(content) >= PACKED_BYTES else ""
    if len(content) >= PACKED_BYTES:
        response.vary.add("Accept-Encoding")
    response.headers["ETag"] = f'"{tag}-{coding}"' if coding else f'"{tag}"'
    known = ",".join(request.headers.getlist("If-None-Match"))
    if known.strip() == "*" or tag in _TAG.findall(known):  # weak comparison (RFC 9110 section 13.1.2)
        response.status_code = 304
        response.set_data(b"")
        for name in ("Content-Type", "Content-Length", "Content-Disposition"):
            response.headers.pop(name, None)
        return
    if coding:
        packed = await trio.to_thread.run_sync(_pack, coding, content) if len(content) > THREAD_BYTES else None
        content = packed or _pack(coding, content)
        response.headers["Content-Encoding"] = coding
    response.set_data(content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _coding() -> str:
    """The content coding that the client prefers, ours if it has no preference; empty for none."""
    accepted = request.accept_encodings
    best = max(("br", "gzip"), key=lambda name: accepted[name])
    return best if accepted[best] > 0 else ""


def _pack(coding: str, content: bytes) -> bytes:
    if coding == "br":
        return bytes(brotli.compress(content, mode=brotli.MODE_TEXT, quality=BROTLI_QUALITY))
    return gzip.compress(content, 6, mtime=0)


def _located(location: str) -> str:
    """A Location, which is relative to the path of the request, for a path with a slash at its end, too."""
    return f"../{location}" if request.path.endswith("/") else location


def _wants_csv(query: Mapping[str, Any]) -> bool:
    asked = query.get("format")
    if asked is not None:
        return bool(asked == "csv")
    return request.accept_mimetypes.best_match(["application/json", "text/csv"]) == "text/csv"
