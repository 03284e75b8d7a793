"""What holds for all responses under /api/v1, refusals included: CORS, and a line each in the access log.

CORS (Fetch standard, section 3.2): pages of the sites in SFU_ALLOWED_ORIGINS may ask. That grants nothing by itself,
since the API knows no cookies: such a page still needs a key or a token, and a key belongs on no page.
"""

from __future__ import annotations

import logging

import trio
from quart import Blueprint, Response, g, request

from sfu.api.routes import PREFIX
from sfu.logs import line, quoted, request_id
from sfu.settings.config import Config
from sfu.web.origins import origin_of

ALLOWED = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-Request-Id"
"""Headers that pages may send."""
EXPOSED = "ETag, Idempotent-Replayed, Link, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id"
"""Headers of responses that pages may read."""
PREFLIGHT_S = 600
"""How long a browser may remember that a page may ask."""

log = logging.getLogger("sfu.access")


def add_manners(api: Blueprint, config: Config) -> None:
    @api.before_app_request
    async def begin() -> None:
        g.began_s = trio.current_time()

    @api.after_app_request
    async def finish(response: Response) -> Response:
        if request.path.startswith(PREFIX + "/"):
            _share(response, config)
            if config.access_log:
                _note(response)
        return response


def key_is(prefix: str) -> None:
    """Tells the access log the visible start of the key that asks, or the id of the token."""
    g.key = prefix


def _share(response: Response, config: Config) -> None:
    response.vary.add("Origin")
    text = request.headers.get("Origin", "")
    origin = origin_of(text) if text else None
    if origin is None or origin not in map(origin_of, config.allowed_origins):
        return
    response.headers["Access-Control-Allow-Origin"] = text
    response.headers["Access-Control-Expose-Headers"] = EXPOSED
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        response.headers["Access-Control-Allow-Methods"] = response.headers.get("Allow", "")
        response.headers["Access-Control-Allow-Headers"] = ALLOWED
        response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_S)


def _note(response: Response) -> None:
    """One line. Not the query: it may hold what a person is called, or a credential that somebody put there."""
    size = 0 if request.method == "HEAD" else response.content_length
    took_ms = round(1000 * (trio.current_time() - g.get("began_s", trio.current_time())), 1)
    about = {"method": quoted(request.method, 10), "path": quoted(request.path), "status": response.status_code}
    named = {"key": g.get("key", ""), "client": request.remote_addr, "request_id": request_id()}
    log.info("%s", line("request", **about, ms=took_ms, bytes=size, **named))
