"""The HTTP application: the page's files, error responses, and headers that every response carries.

The files in `public/` are read once, at start, so no part of a request ever becomes a file path. ETags are hashes of
the content, since some installers give every file the same modification time.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from quart import Response, request
from quart.routing import QuartRule
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from sfu.errors import SfuError, UpgradeRequired
from sfu.logs import begin_request, request_id
from sfu.process.metrics import Counters
from sfu.web.bodies import StreamingConnection, StreamingRequest
from sfu.web.preload import Preloads

if TYPE_CHECKING:
    from sfu.settings.config import Config

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
"""Media types by suffix. Files in `public/` with another suffix are not served. (`mimetypes` varies by machine.)"""

SECURITY_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data: blob:",
            "media-src 'self' blob: mediastream:",
            "connect-src 'self'",  # includes ws: and wss: of the same host; Safari does that since 15.4 (2022)
            "font-src 'self'",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    ),
    "Permissions-Policy": ", ".join(
        f"{feature}=(self)"
        for feature in (
            *("camera", "microphone", "display-capture", "speaker-selection"),
            *("autoplay", "fullscreen", "picture-in-picture", "screen-wake-lock"),
        )
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Headers of every response, including the edge's own refusals. `page_headers` adds the sites that may embed pages."""

PACKED_GAIN_BYTES = 200
"""Least number of bytes that gzip must save to be worth the extra header and the browser's work."""

PROBLEM_TYPE = "application/problem+json"
CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    431: "head_too_large",
    500: "internal",
    505: "http_version",
}
"""Wire codes of HTTP errors that have no class in errors.py."""


def problem(status: int, detail: str, code: str = "") -> str:
    """The JSON body of a refusal: a problem (RFC 9457) with our wire code as an additional member."""
    title = HTTPStatus(status).phrase
    code = code or CODES.get(status, f"http_{status}")
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}) + "\n"


def page_headers(origins: Sequence[str]) -> dict[str, str]:
    """SECURITY_HEADERS, with a policy that lets `origins` embed the page in a frame (CSP 3, section 6.4.2.1)."""
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    if origins:
        policy = policy.replace("frame-ancestors 'none'", "frame-ancestors " + " ".join(origins))
    return SECURITY_HEADERS | {"Content-Security-Policy": policy}


def public_dir() -> Path:
    """The folder of the page's files: inside the package if installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    root = package if (package / "public").is_dir() else package.parent
    return root / "public"


def create_app(config: Config, counters: Counters, *, page: bool = True) -> QuartTrio:
    """The application for `edge.serve`: the error handlers and, unless there is to be no `page`, its files. Blueprints
    add the rest."""
    app = QuartTrio("sfu", static_folder=None)
    app.url_rule_class = _Rule
    app.request_class, app.asgi_http_class = StreamingRequest, StreamingConnection
    app.config["MAX_CONTENT_LENGTH"] = config.body_bytes
    app.config["BODY_TIMEOUT"] = config.send_s
    app.url_map.merge_slashes = False  # its redirects would repeat the client's Host header
    _add_errors(app, counters)
    if page:
        _add_page(app, config, counters)

    @app.before_request
    async def identify() -> None:
        begin_request(request.headers.get("X-Request-Id", ""))

    defaults = page_headers(config.allowed_origins) | {"Cache-Control": "no-cache"}

    @app.after_request
    async def protect(response: Response) -> Response:
        response.headers["X-Request-Id"] = request_id()
        there = {name.lower() for name, _ in response.headers}
        response.headers.extend((name, value) for name, value in defaults.items() if name.lower() not in there)
        return response

    return app


def _add_page(app: QuartTrio, config: Config, counters: Counters) -> None:
    _add_files(app, public_dir())
    if config.base_path:
        _add_redirect(app, config.base_path)

    @app.get("/ws")
    async def signaling() -> Response:
        """Refuses requests that are no WebSocket handshake; web/edge.py takes those that are.

        RFC 9110 section 15.5.22 asks for the headers.
        """
        counters.add("sfu_refused_total", code=UpgradeRequired.code)
        response = _refuse(UpgradeRequired())
        response.headers["Upgrade"] = "websocket"
        response.headers["Connection"] = "Upgrade"
        return response


class _Rule(QuartRule):
    """A rule that only matches. Werkzeug also compiles two functions a rule that build its URL, which takes most of the
    time that a rule takes, and which nothing here calls."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        def build(*_args: object, **_values: object) -> tuple[str, str]:
            raise NotImplementedError("nothing here builds URLs")

        return build


class _File:
    """A file, both plain and compressed with gzip. Each form has its own ETag (RFC 9110 section 8.8.3.3)."""

    def __init__(self, content: bytes, content_type: str) -> None:
        self.content = content
        self._type = content_type
        self._packed = gzip.compress(content, mtime=0)
        self._etags = {body: hashlib.sha256(body).hexdigest()[:32] for body in (content, self._packed)}
        self._worth_it = len(self._packed) < len(content) - PACKED_GAIN_BYTES

    async def respond(self) -> Response:
        zipped = self._worth_it and request.accept_encodings["gzip"] > 0
        body = self._packed if zipped else self.content
        response = Response(body, content_type=self._type)
        response.set_etag(self._etags[body])
        if self._worth_it:
            response.headers["Vary"] = "Accept-Encoding"
        if zipped:
            response.headers["Content-Encoding"] = "gzip"
        if self._type == TYPES[".js"]:
            response.headers["Access-Control-Allow-Origin"] = "*"  # pages of other sites import embed.js, protocol.js
        return await response.make_conditional(request)


@cache
def _files(root: Path) -> tuple[Mapping[str, _File], Preloads]:
    """The files below `root` by relative path, and the page's preload links. Read once per process."""
    paths = [path for path in sorted(root.rglob("*")) if path.suffix in TYPES and path.is_file()]
    files = {path.relative_to(root).as_posix(): _File(path.read_bytes(), TYPES[path.suffix]) for path in paths}
    texts = {name: file.content.decode() for name, file in files.items() if name.endswith((".js", ".css"))}
    return files, Preloads(texts)


def _add_files(app: QuartTrio, root: Path) -> None:
    """A route for all files, and `/` for index.html."""
    files, preloads = _files(root)

    class FileName(BaseConverter):
        """Matches the names of existing files only, so that routing can tell 404 from 405."""

        part_isolating = False
        regex = "|".join(map(re.escape, files))

    app.url_map.converters["file"] = FileName

    @app.get("/<file:name>")
    async def file(name: str) -> Response:
        return await files[name].respond()

    @app.get("/")
    async def page() -> Response:
        response = await files["index.html"].respond()
        framed = request.headers.get("Sec-Fetch-Dest") == "iframe"
        response.headers["Link"] = preloads.header(request.args, request.accept_languages.values(), framed=framed)
        response.vary.update(("Accept-Language", "Sec-Fetch-Dest"))
        return response


def _add_redirect(app: QuartTrio, base_path: str) -> None:
    """From the base path to the page: without the slash at its end, the page's relative links would lead elsewhere."""

    @app.get(base_path)
    async def slash() -> Response:
        query = request.query_string.decode("latin1")
        return Response("", 308, {"Location": f"{base_path}/" + (f"?{query}" if query else "")})


def _add_errors(app: QuartTrio, counters: Counters) -> None:
    @app.errorhandler(SfuError)
    async def refused(error: SfuError) -> Response:
        counters.add("sfu_refused_total", code=error.code)
        return _refuse(error)

    @app.errorhandler(HTTPException)
    async def failed(error: HTTPException) -> Response:
        status = error.code or 500
        detail = SfuError.default if status >= 500 else error.description or ""
        response = Response(problem(status, detail), status, content_type=PROBLEM_TYPE)
        for name, value in error.get_headers():
            if name.lower() != "content-type":
                response.headers[name] = value  # such as Allow
        return response


def _refuse(error: SfuError) -> Response:
    response = Response(problem(error.status, str(error), error.code), error.status, content_type=PROBLEM_TYPE)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="sfu"'  # RFC 9110 section 15.5.2
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response
