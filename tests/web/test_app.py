from __future__ import annotations

import gzip
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.serving import Reply, Server, local, serving
from support.waiting import until

from sfu.bridge import Stats
from sfu.errors import RoomFull
from sfu.web import app

PUBLIC = Path(__file__).parents[2] / "public"
CHILD = str(Path(__file__).parents[1] / "support" / "worker_child.py")
JSON = ("Accept", "application/json")
PROMETHEUS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
METRIC = re.compile(r"[a-z_]+(\{[a-z]+=\"[^\"]*\"(,[a-z]+=\"[^\"]*\")*\})? (NaN|[+-]Inf|-?[0-9.e+-]+)\Z")


def is_now(timestamp: str) -> bool:
    """Whether it is RFC 3339 in UTC, and not long ago."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", timestamp)
    return abs(datetime.now(UTC) - datetime.fromisoformat(timestamp)) < timedelta(seconds=30)


def join(server: Server, room: str, name: str) -> None:
    server.rooms.join(room, name, full=True, pick=lambda: 0)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/", "/?room=team-meeting&username=alice", "/index.html"])
async def test_the_page(target: str) -> None:
    async with serving() as server:
        reply = await server.fetch("GET", target)
    assert (reply.status, reply.body) == (200, (PUBLIC / "index.html").read_bytes())
    assert reply.headers["content-type"] == "text/html; charset=utf-8"


async def test_every_file_of_the_page_is_served() -> None:
    async with serving() as server:
        for path in PUBLIC.rglob("*"):
            if path.is_file():
                reply = await server.fetch("GET", "/" + path.relative_to(PUBLIC).as_posix())
                assert (reply.status, reply.body) == (200, path.read_bytes()), path
                assert reply.headers["content-type"] == app.TYPES[path.suffix]
                assert reply.headers["cache-control"] == "no-cache"


async def test_an_unchanged_file_is_not_sent_again() -> None:
    async with serving() as server:
        first = await server.fetch("GET", "/")
        etag = first.headers["etag"]
        same = await server.fetch("GET", "/", ("If-None-Match", etag))
        other = await server.fetch("GET", "/", ("If-None-Match", '"other"'))
    assert re.fullmatch(r'"[0-9a-f]{32}"', etag)
    assert (same.status, same.body, same.headers["etag"]) == (304, b"", etag)
    assert (other.status, other.body) == (200, first.body)


async def test_a_file_is_packed_for_who_can_unpack_it() -> None:
    async with serving() as server:
        plain = await server.fetch("GET", "/style.css", ("Accept-Encoding", "br, gzip;q=0"))
        packed = await server.fetch("GET", "/style.css", ("Accept-Encoding", "gzip, deflate, br"))
        etag = packed.headers["etag"]
        same = await server.fetch("GET", "/style.css", ("Accept-Encoding", "gzip"), ("If-None-Match", etag))
        other = await server.fetch("GET", "/style.css", ("If-None-Match", etag))
        short = await server.fetch("GET", "/icon.svg", ("Accept-Encoding", "gzip"))
    content = (PUBLIC / "style.css").read_bytes()
    assert "content-encoding" not in plain.headers | other.headers | short.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.body == other.body == gzip.decompress(packed.body) == content
    assert plain.headers["etag"] == other.headers["etag"] != etag
    assert len(packed.body) == int(packed.headers["content-length"]) < len(content) / 3
    assert plain.headers["vary"] == packed.headers["vary"] == same.headers["vary"] == "Accept-Encoding"
    assert (same.status, same.body) == (304, b"")


async def test_the_page_says_what_it_will_need() -> None:
    async with serving() as server:
        join = await server.fetch("GET", "/?room=team", ("Accept-Language", "nl, ar;q=0.3, de;q=0.5"))
        call = await server.fetch("GET", "/?room=team&username=alice", ("Accept-Encoding", "gzip"))
        frame = await server.fetch("GET", "/", ("Sec-Fetch-Dest", "iframe"))
    early = [re.findall("<([^>]+)>", reply.headers["link"]) for reply in (join, call, frame)]
    assert [names[0] for names in early] == ["lang/de.js", "lang/en.js", "lang/en.js"]
    assert [[name for name in ("prejoin/join.js", "call/call.js") if name in names] for names in early] == [
        ["prejoin/join.js"],
        ["call/call.js"],
        [],
    ]
    assert all((PUBLIC / name).is_file() for names in early for name in names)
    assert {"Accept-Encoding", "Accept-Language"} < set(re.split(", *", call.headers["vary"]))


async def test_head_of_a_file() -> None:
    async with serving() as server:
        reply = await server.fetch("HEAD", "/")
    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.headers["content-length"]) == (PUBLIC / "index.html").stat().st_size


def test_public_dir_is_beside_the_package_or_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert app.public_dir() == PUBLIC
    package = tmp_path / "site-packages" / "sfu"
    (package / "public").mkdir(parents=True)
    monkeypatch.setattr(app, "__file__", str(package / "web/app.py"))
    assert app.public_dir() == package / "public"


async def test_only_known_kinds_of_files_are_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("index.html", "sub/page.js", "notes.py", ".hidden", "key.pem"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    monkeypatch.setattr(app, "public_dir", lambda: tmp_path)
    async with serving() as server:
        for name in ("notes.py", ".hidden", "key.pem", "sub", "sub/", "sub/page"):
            assert (await server.fetch("GET", "/" + name)).status == 404
        assert (await server.fetch("GET", "/sub/page.js")).body == b"sub/page.js"


# --- state ------------------------------------------------------------------------------------------------------------


async def test_health_before_and_after_a_worker_is_ready(tmp_path: Path) -> None:
    async with serving() as server:
        starting = await server.fetch("GET", "/health")
    async with serving(worker=(sys.executable, CHILD, "ready", str(tmp_path / "starts"))) as server:
        join(server, "a", "alice")
        ready = await server.fetch("GET", "/health")
    assert (starting.status, ready.status) == (503, 200)
    before, after = json.loads(starting.body), json.loads(ready.body)
    assert (before["status"], before["peers"]) == ("starting", 0)
    assert (after["status"], after["peers"]) == ("ok", 1)
    for body in (before, after):
        assert set(body) == {"status", "message", "timestamp", "peers", "database"}
        assert body["message"]
        assert is_now(body["timestamp"])


async def test_metrics_as_json() -> None:
    async with serving() as server:
        for room, name in (("a", "alice"), ("a", "bob"), ("b", "carol")):
            join(server, room, name)
        server.rooms.leave(next(iter(server.rooms.peers.values())), "left")
        reply = await server.fetch("GET", "/metrics", JSON)
    body = json.loads(reply.body)
    assert reply.headers["content-type"] == "application/json"
    assert is_now(body.pop("timestamp"))
    assert body == {"active_connections": 2, "total_connections_created": 3, "rooms_active": 2}


@pytest.mark.parametrize("accept", [None, "*/*", "text/plain", PROMETHEUS, BROWSER, "image/png", "nonsense;;,"])
async def test_metrics_are_text_for_everyone_else(accept: str | None) -> None:
    async with serving() as server:
        reply = await server.fetch("GET", "/metrics", *([("Accept", accept)] if accept else []))
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def samples(reply: Reply) -> dict[str, float]:
    """Checks the text format line by line: help, type, then the lines of that metric, each metric once."""
    found: dict[str, float] = {}
    current, seen = "", set()
    text = reply.body.decode()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            current = line.split()[2]
            assert current not in seen
            seen.add(current)
        elif line.startswith("# TYPE "):
            assert line in (f"# TYPE {current} counter", f"# TYPE {current} gauge")
            assert line.endswith("counter") == current.endswith("_total")
        else:
            assert METRIC.match(line), line
            name, value = line.rsplit(" ", 1)
            assert name.partition("{")[0] == current
            found[name] = float(value)
    return found


async def test_metrics_for_prometheus() -> None:
    async with serving(local(workers=2)) as server:
        server.workers.stats[:] = [Stats({"packets_in": 5}), Stats({"packets_in": 6}, {"load": 0.5})]
        join(server, "a", "alice")
        server.counters.add("sfu_errors_total", code="bad_message")
        await server.fetch("GET", "/no-such")
        found = samples(await server.fetch("GET", "/metrics"))
    assert found["sfu_peers"] == found["sfu_rooms"] == found["sfu_peers_created_total"] == 1
    assert found["sfu_ready"] == 0
    assert found['sfu_errors_total{code="bad_message"}'] == 1
    assert found['sfu_http_requests_total{status="404"}'] == 1
    assert found["sfu_connections_total"] == 2
    assert [found[f'sfu_worker_packets_in_total{{worker="{index}"}}'] for index in (0, 1)] == [5, 6]
    assert found['sfu_worker_load{worker="1"}'] == 0.5


async def test_metrics_hold_what_workers_report(tmp_path: Path) -> None:
    worker = (sys.executable, CHILD, "ready", str(tmp_path / "starts"))
    async with serving(local(workers=1), worker=worker) as server:
        await until(lambda: server.workers.stats[0].gauges)
        found = samples(await server.fetch("GET", "/metrics"))
    assert found["sfu_ready"] == 1
    assert found['sfu_worker_commands{worker="0"}'] == 1


# --- refusals ---------------------------------------------------------------------------------------------------------


def check_problem(reply: Reply, status: int, code: str) -> None:
    body = json.loads(reply.body)
    assert (reply.status, body["status"], body["code"]) == (status, status, code)
    assert reply.headers["content-type"] == "application/problem+json"
    assert set(body) == {"type", "title", "status", "detail", "code"}
    assert body["type"] == "about:blank"
    assert body["title"]
    assert body["detail"]


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/no-such", 404, "not_found"),
        ("POST", "/no-such", 404, "not_found"),
        ("GET", "/%00", 404, "not_found"),
        ("GET", "/..%2fsfu%2fweb.py", 404, "not_found"),
        ("GET", "/lang", 404, "not_found"),
        ("GET", "/main.js/", 404, "not_found"),
        ("GET", "/main.jsx", 404, "not_found"),
        ("GET", "/main-js", 404, "not_found"),
        ("POST", "/", 405, "method_not_allowed"),
        ("PUT", "/main.js", 405, "method_not_allowed"),
        ("POST", "/lang/de.js", 405, "method_not_allowed"),
        ("DELETE", "/health", 405, "method_not_allowed"),
        ("POST", "/ws", 405, "method_not_allowed"),
        ("GET", "/ws", 426, "upgrade_required"),
        ("GET", "/ws?room=a&username=b", 426, "upgrade_required"),
        ("GET", "/bug", 500, "internal"),
    ],
)
async def test_refusals_are_problems(method: str, target: str, status: int, code: str) -> None:
    async with serving() as server:
        check_problem(await server.fetch(method, target), status, code)


@pytest.mark.parametrize("target", ["/", "/main.js"])
async def test_405_says_what_is_allowed(target: str) -> None:
    async with serving() as server:
        reply = await server.fetch("POST", target)
    assert {method.strip() for method in reply.headers["allow"].split(",")} == {"GET", "HEAD", "OPTIONS"}


async def test_426_names_the_protocol() -> None:
    async with serving() as server:
        reply = await server.fetch("GET", "/ws")
        assert server.counters.get("sfu_refused_total", code="upgrade_required") == 1
    assert reply.headers["upgrade"] == "websocket"


async def test_our_own_errors_are_problems_and_counted() -> None:
    async with serving() as server:

        @server.app.get("/full")
        async def full() -> str:
            raise RoomFull("The room a is full.")

        reply = await server.fetch("GET", "/full")
        check_problem(reply, 403, "room_full")
        assert json.loads(reply.body)["detail"] == "The room a is full."
        assert server.counters.get("sfu_refused_total", code="room_full") == 1


async def test_a_bug_tells_nothing_of_itself() -> None:
    async with serving() as server:
        reply = await server.fetch("GET", "/bug")
    assert b"a bug" not in reply.body
    assert b"Runtime" not in reply.body


# --- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/", "/main.js", "/health", "/metrics", "/ws", "/no-such", "/bug"])
async def test_security_headers_are_on_every_response(target: str) -> None:
    async with serving() as server:
        headers = (await server.fetch("GET", target)).headers
    for name, value in app.SECURITY_HEADERS.items():
        assert headers[name.lower()] == value
    assert headers["cache-control"] == "no-cache"
    assert "server" not in headers


def test_the_content_security_policy() -> None:
    policy = dict(part.split(" ", 1) for part in app.SECURITY_HEADERS["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in "".join(policy.values())


async def test_only_allowed_origins_may_embed_the_page() -> None:
    friends = ("https://friend.example", "http://[2001:db8::1]:81")
    async with serving(local(allowed_origins=friends)) as server:
        headers = (await server.fetch("GET", "/")).headers
    own = app.SECURITY_HEADERS["Content-Security-Policy"]
    expected = own.replace("frame-ancestors 'none'", "frame-ancestors https://friend.example http://[2001:db8::1]:81")
    assert headers["content-security-policy"] == expected != own


async def test_any_page_may_import_the_scripts_and_read_nothing_else() -> None:
    async with serving() as server:
        replies = {name: await server.fetch("GET", name) for name in ("/embed.js", "/protocol.js", "/", "/health")}
    allowed = {name for name, reply in replies.items() if reply.headers.get("access-control-allow-origin") == "*"}
    assert allowed == {"/embed.js", "/protocol.js"}


def test_the_page_needs_nothing_the_policy_forbids() -> None:
    page = (PUBLIC / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|https?://", page)


async def test_unchanged_also_has_the_headers() -> None:
    async with serving() as server:
        etag = (await server.fetch("GET", "/")).headers["etag"]
        headers = (await server.fetch("GET", "/", ("If-None-Match", etag))).headers
    assert headers["content-security-policy"] == app.SECURITY_HEADERS["Content-Security-Policy"]
