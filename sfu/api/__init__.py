"""REST under /api/v1: a Quart blueprint built from the table of routes."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import trio
from quart import Blueprint, Response, g, request
from werkzeug.routing import BaseConverter

from sfu.api import openapi
from sfu.api.answering import respond, respond_fixed
from sfu.api.auth import Auth, Caller
from sfu.api.handlers import ApiRequest, Calls, Handler, handlers_of
from sfu.api.manners import add_manners, key_is
from sfu.api.once import Once
from sfu.api.refusals import BadBody, BadField, BodyNotJson
from sfu.api.routes import PREFIX, ROUTES, Route
from sfu.api.schemas import DEFINITIONS
from sfu.api.validation import check, from_text
from sfu.errors import BadRequest
from sfu.limits.rates import failures
from sfu.limits.windows import Windows
from sfu.logs import AUDIT, line, quoted
from sfu.process.metrics import Counters
from sfu.refusals import Refusal
from sfu.settings.config import Config
from sfu.store import Store
from sfu.tenancy.names import sought
from sfu.web.app import PROBLEM_TYPE, problem, public_dir
from sfu.web.bodies import ENCODED_SLASH

__all__ = ["Calls", "create_api"]

audit = logging.getLogger(AUDIT)


class _Name(BaseConverter):
    """One segment of a path, with any name in it. Blanks around a name are ignored, as everywhere: clients and proxies
    that resolve `.` and `..` send `%20.` and `%20..` unchanged."""

    def to_python(self, value: str) -> str:
        return sought(value.replace(ENCODED_SLASH, "/"))


CONVERTERS = {"room_id": "name:", "token_id": "uuid:", "user_name": "name:", "webhook_id": "uuid:"}


def _now() -> datetime:
    return datetime.now(UTC)


def create_api(
    config: Config, store: Store, calls: Calls, counters: Counters, clock: Callable[[], datetime] = _now
) -> Blueprint:
    """The blueprint of the REST API. Requests that affect a call act on `calls`.

    It has no state except for the addresses with recent authentication failures, and how many requests keys have sent.
    """
    api = Blueprint("api", __name__, url_prefix=PREFIX)
    auth = Auth(store, clock, failures(trio.current_time) if config.limits else None)
    windows = Windows(trio.current_time) if config.limits else None
    handlers = handlers_of(store, calls, clock, config.max_peers, allow_private=config.webhook_allow_private)
    once = Once(store)
    fixed = _fixed()
    api.record_once(lambda state: state.app.url_map.converters.update(name=_Name))

    def limit(caller: Caller) -> None:
        """Counts a request. Raises TooManyRequests. The response says what is left, also if it is a refusal."""
        if windows is not None:
            left = windows.take(caller.author.id, config.key_requests)
            g.rate = left.headers
            left.check()

    @api.after_request
    async def tell_rate(response: Response) -> Response:
        response.headers.update(g.get("rate", {}))
        return response

    for route in ROUTES:
        view = (
            _fixed_view(route, fixed[route.name])
            if route.name in fixed
            else _view(route, auth, handlers[route.name], once, limit)
        )
        rule = re.sub(r"{(\w+)}", lambda found: f"<{CONVERTERS.get(found[1], '')}{found[1]}>", route.path)
        methods = [route.method, "OPTIONS"]  # HEAD goes with GET; Quart answers OPTIONS with all methods of the path
        api.add_url_rule(rule, route.name, view, methods=methods, provide_automatic_options=True, strict_slashes=False)
    add_manners(api, config)

    @api.app_errorhandler(Refusal)
    async def refused(refusal: Refusal) -> Response:
        counters.add("sfu_refused_total", code=refusal.code)
        return _refuse(refusal)

    return api


@cache
def _fixed() -> Mapping[str, str]:
    """The answers that are always the same, by the name of their route. Made once per process."""
    return {"openapi": json.dumps(openapi.document()) + "\n", "docs": (public_dir() / "docs.html").read_text("utf-8")}


def _view(
    route: Route, auth: Auth, handle: Handler, once: Once, limit: Callable[[Caller], None]
) -> Callable[..., Awaitable[Response]]:
    async def view(**parts: object) -> Response:
        _check_utf8(request.scope.get("raw_path", b""), "path")
        _check_utf8(request.query_string, "query")
        path = {name: str(part) for name, part in parts.items()}
        headers = request.headers
        address = request.remote_addr or ""
        caller = await auth.caller(route, headers.get("Authorization"), address, path.get("room_id"))
        key_is(caller.by.get("key") or caller.author.id)
        limit(caller)
        query = _query(route)
        body = check(DEFINITIONS[route.body], await _body(route)) if route.body else await _no_body()
        if_match = ",".join(headers.getlist("If-Match")) or None if route.if_match else None
        asked = ApiRequest(caller.company, caller.author, path, query, body, if_match, scopes=caller.scopes)
        answer = await once.handle(route, asked, handle, headers.getlist("Idempotency-Key"))
        if route.changes and answer.changed:
            audit.info(
                "%s", line(route.name, **_object(caller, path, body), **answer.about, **caller.by, client=address)
            )
        return await respond(route, query, answer)

    return view


def _check_utf8(raw: bytes, part: str) -> None:
    """Raises BadRequest for a path or a query whose names are no text: they would be taken for other names."""
    try:
        unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise BadRequest(f"The {part} is not UTF-8.") from None


def _object(caller: Caller, path: Mapping[str, str], body: Mapping[str, Any]) -> dict[str, str]:
    """What a request changed, for the log: the room, and the ids in the path. `key` is the one that asks."""
    ids = {name if name == "key_id" else name.removesuffix("_id"): path[name] for name in path if name != "room_id"}
    room_id = path.get("room_id") or body.get("room_id")
    return ({"room": quoted(f"{caller.company.id}/{room_id}")} if room_id else {}) | ids


def _fixed_view(route: Route, text: str) -> Callable[..., Awaitable[Response]]:
    async def view() -> Response:
        _query(route)
        return await respond_fixed(route, text)

    return view


def _query(route: Route) -> dict[str, Any]:
    """The validated query parameters. Raises BadField for one that is invalid, unknown or repeated."""
    found = {name: schema["default"] for name, schema in route.query.items() if "default" in schema}
    for name, values in request.args.lists():
        if name not in route.query:
            raise BadField(name, "is not a parameter of this request")
        if len(values) > 1:
            raise BadField(name, "may be given once")
        found[name] = from_text(route.query[name], values[0], name)
    return found


async def _body(route: Route) -> Any:
    """The parsed JSON body. Raises BadBody or BodyNotJson, or answers 413 beyond `config.body_bytes`."""
    raw = cast(bytes, await request.get_data(cache=False))
    if not raw and not request.mimetype and not DEFINITIONS[route.body].get("required"):
        return {}  # every field has a default
    if request.mimetype not in route.body_types:
        raise BodyNotJson

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    def once(members: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object. Of a name that is there twice, whoever looks at the request before may read the other one."""
        found = dict(members)
        if len(found) < len(members):
            names = [name for name, _ in members]
            raise BadField(next(name for name in names if names.count(name) > 1), "may be given once")
        return found

    try:
        return json.loads(raw.decode("utf-8"), parse_constant=refuse, object_pairs_hook=once)
    except (ValueError, RecursionError):  # Python accepts NaN, JSON does not
        raise BadBody from None


async def _no_body() -> dict[str, Any]:
    """Raises BadField if there is one: whoever sends fields to a request that takes none means something."""
    raw = cast(bytes, await request.get_data(cache=False))
    if raw.strip() not in (b"", b"{}", b"null"):
        raise BadField("body", "must be empty: this request takes its parameters in the query")
    return {}


def _refuse(refusal: Refusal) -> Response:
    body = json.loads(problem(refusal.status, str(refusal), refusal.code))
    body.update(refusal.members)
    response = Response(json.dumps(body) + "\n", refusal.status, content_type=PROBLEM_TYPE)
    response.headers["Cache-Control"] = "no-store"
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="sfu"'  # RFC 9110 section 15.5.2
    if refusal.retry_after_s is not None:
        response.headers["Retry-After"] = str(refusal.retry_after_s)
    return response
