"""Monitoring: `/health`, `/livez` and `/readyz` for probes, `/metrics` for Prometheus."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address

from quart import Blueprint, Response, abort, request

from sfu.bridge import Stats
from sfu.calls.rooms import Rooms
from sfu.process.lifecycle import Lifecycle
from sfu.process.metrics import Counters, family
from sfu.refusals import Refusal
from sfu.settings.config import Config
from sfu.settings.values import ANY_HOST
from sfu.store import Store
from sfu.web.certificate import Certificate
from sfu.workers.workers import Workers

MESSAGES = {
    "ok": "The server accepts calls.",
    "refused": "The database refuses statements, as the log says. Ongoing calls are not affected, joins may fail.",
    "away": "The database is unavailable. Ongoing calls are not affected, but nobody can join until it is back.",
    "starting": "The media workers are starting.",
    "draining": "The server restarts soon. Ongoing calls go on until then and can be joined; no others begin.",
    "stopping": "The server is stopping.",
}
"""The message of each phase of the server and, while it is ready, of each state of its database."""
FORWARDED = (
    "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via", "CF-Connecting-IP",
)  # fmt: skip
"""Headers of requests that came through a proxy: they are not this machine's own."""


class MetricsClosed(Refusal):
    code, status = "metrics_closed", 403
    default = (
        "/metrics answers only requests from this machine. Set SFU_METRICS_TOKEN to ask from elsewhere with a bearer "
        "token, or SFU_METRICS to serve it on an address of its own."
    )


class MetricsElsewhere(Refusal):
    code, status = "metrics_elsewhere", 404
    default = "/metrics is on the address of SFU_METRICS."


class MetricsToken(Refusal):
    code, status = "metrics_token", 401
    default = "/metrics needs the token of SFU_METRICS_TOKEN, as `Authorization: Bearer …`."


class Status:
    """What there is to tell about this server. Without `store` there is no database to tell about, and without
    `certificate`, which is asked each time, none of https."""

    def __init__(
        self,
        rooms: Rooms,
        workers: Workers,
        counters: Counters,
        life: Lifecycle,
        store: Store | None = None,
        certificate: Callable[[], Certificate | None] = lambda: None,
    ) -> None:
        self.rooms, self.workers, self.counters, self.life, self.store = rooms, workers, counters, life, store
        self.certificate = certificate

    @property
    def phase(self) -> str:
        """The phase, `starting` also while no media worker is up; `ok` for a server that is ready."""
        ended = self.life.phase in ("draining", "stopping")
        return self.life.phase if ended else "ok" if self.workers.ready else "starting"

    @property
    def database(self) -> str:
        return "ok" if self.store is None else self.store.database.state

    @property
    def message(self) -> str:
        return MESSAGES[self.database if self.phase == "ok" else self.phase]


def create_status(status: Status) -> Blueprint:
    """The blueprint for the probes: whether the process lives, whether it takes calls, and how it is."""
    routes = Blueprint("status", __name__)

    @routes.get("/livez")
    async def live() -> Response:
        return _json({"status": "ok"})

    @routes.get("/readyz")
    async def ready() -> Response:
        reason = status.phase if status.phase != "ok" else f"database_{status.database}"
        joinable = reason == "database_ok"
        body = {"status": "ok" if joinable else reason, "message": status.message}
        return _json(body, 200 if joinable else 503)

    @routes.get("/health")
    async def health() -> Response:
        body = {
            "status": status.phase,
            "message": status.message,
            "timestamp": _now(),
            "peers": len(status.rooms.peers),
            "database": status.database,
        }
        return _json(body, 503 if status.phase == "starting" else 200)

    return routes


def create_metrics(config: Config, status: Status, *, own: bool = False) -> Blueprint:
    """The blueprint for `/metrics`, on an address of its `own` or on that of the page."""
    routes = Blueprint("metrics", __name__)

    @routes.get("/metrics")
    async def metrics() -> Response:
        if config.metrics_token:
            _check_token(config.metrics_token)
        elif not (own or _from_here()):
            raise MetricsClosed
        # text/plain comes first, so that it answers `*/*` and the list of types that Prometheus sends
        if request.accept_mimetypes.best_match(["text/plain", "application/json"]) == "application/json":
            return _json(
                {
                    "active_connections": len(status.rooms.peers),
                    "total_connections_created": status.rooms.created,
                    "rooms_active": len(status.rooms.rooms),
                    "timestamp": _now(),
                }
            )
        certificate = status.certificate()
        text = _state_text(status) + (certificate.metrics() if certificate else "")
        text += status.counters.render() + _worker_text(status.workers.stats)
        return Response(text, content_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


def create_metrics_sign(address: tuple[str, int]) -> Blueprint:
    """The blueprint for `/metrics` beside the page when it has an `address` of its own: it tells this machine where.
    Others learn nothing."""
    routes = Blueprint("metrics_sign", __name__)
    host, port = address
    at = "127.0.0.1" if host == ANY_HOST else f"[{host}]" if ":" in host else host

    @routes.get("/metrics")
    async def sign() -> Response:
        if not _from_here():
            abort(404)
        raise MetricsElsewhere(f"/metrics is at http://{at}:{port}/metrics, as SFU_METRICS says.")

    return routes


def _check_token(token: str) -> None:
    """Raises MetricsToken unless the request has this token."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise MetricsToken


def _from_here() -> bool:
    """Whether the request comes from this machine, and from no proxy on it."""
    forwarded = any(name in request.headers for name in FORWARDED)
    return not forwarded and ip_address(request.remote_addr or "::").is_loopback


def _state_text(status: Status) -> str:
    rooms, workers, store, capacity = status.rooms, status.workers, status.store, status.workers.capacity
    rows: list[tuple[str, str, str, float]] = [
        ("sfu_peers", "gauge", "Peers in rooms now.", len(rooms.peers)),
        ("sfu_rooms", "gauge", "Rooms with at least one peer.", len(rooms.rooms)),
        ("sfu_peers_created_total", "counter", "Peers that joined a room since start.", rooms.created),
        ("sfu_ready", "gauge", "1 when peers can join: a media worker is ready.", int(workers.ready)),
        ("sfu_draining", "gauge", "1 while calls go on but none begins.", int(status.life.draining)),
        ("sfu_control_lag_seconds", "gauge", "Lasting lag of the control plane's event loop.", capacity.control_lag_s),
        ("sfu_cpu_steal_ratio", "gauge", "Lasting share of processor time that the hypervisor takes.", capacity.steal),
    ]
    if store is not None:
        up, unwritten = int(store.database.state == "ok"), store.sessions.unwritten
        rows.append(("sfu_database_up", "gauge", "1 when the database is reachable and refuses no statement.", up))
        lines = len(store.lines)
        rows.append(("sfu_lines_unwritten", "gauge", "Chat lines not yet written to the database.", lines))
        backlog = store.sending.backlog
        rows.append(("sfu_webhook_waiting", "gauge", "Events that wait to be sent to webhooks.", backlog.waiting))
        oldest = "How long the oldest of them has waited."
        rows.append(("sfu_webhook_oldest_seconds", "gauge", oldest, backlog.oldest_s))
        rows.append(("sfu_leaves_unwritten", "gauge", "Leaves not yet written to the database.", unwritten))
    return "".join(family(name, kind, text, [({}, value)]) for name, kind, text, value in rows)


def _worker_text(stats: Iterable[Stats]) -> str:
    """The workers' counters and gauges: one metric family per name, one line per worker."""
    metrics: dict[tuple[str, str], list[tuple[dict[str, str], float]]] = {}
    for worker, report in enumerate(stats):
        named = [(f"{name}_total", "counter", value) for name, value in report.counters.items()]
        for name, kind, value in named + [(name, "gauge", value) for name, value in report.gauges.items()]:
            metrics.setdefault((f"sfu_worker_{name}", kind), []).append(({"worker": str(worker)}, value))
    return "".join(
        family(name, kind, f"Per media worker: {name.removeprefix('sfu_worker_').replace('_', ' ')}.", samples)
        for (name, kind), samples in sorted(metrics.items())
    )


def _json(body: Mapping[str, object], status: int = 200) -> Response:
    return Response(json.dumps(body) + "\n", status, content_type="application/json")


def _now() -> str:
    """The time in UTC to the second (RFC 3339)."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
