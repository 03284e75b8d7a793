"""Monitoring: `/health` for probes, `/metrics` for Prometheus."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from quart import Blueprint, Response, request

from sfu.bridge import Stats
from sfu.calls.rooms import Rooms
from sfu.metrics import Counters, family
from sfu.store import Store
from sfu.web.certificate import Certificate
from sfu.workers import Workers

MESSAGES = {
    "ok": "The server accepts calls.",
    "refused": "The database refuses statements, as the log says. Ongoing calls are not affected, joins may fail.",
    "away": "The database is unavailable. Ongoing calls are not affected, but nobody can join until it is back.",
}
"""The message of a server that is ready, by the state of its database."""


def create_status(
    rooms: Rooms,
    workers: Workers,
    counters: Counters,
    store: Store | None = None,
    certificate: Certificate | None = None,
) -> Blueprint:
    """The blueprint for `/health` and `/metrics`."""
    routes = Blueprint("status", __name__)

    @routes.get("/health")
    async def health() -> Response:
        ready, database = workers.ready, "ok" if store is None else store.database.state
        body = {
            "status": "ok" if ready else "starting",
            "message": MESSAGES[database] if ready else "The media workers are starting.",
            "timestamp": _now(),
            "peers": len(rooms.peers),
            "database": database,
        }
        return _json(body, 200 if ready else 503)

    @routes.get("/metrics")
    async def metrics() -> Response:
        # text/plain comes first, so that it answers `*/*` and the list of types that Prometheus sends
        if request.accept_mimetypes.best_match(["text/plain", "application/json"]) == "application/json":
            return _json(
                {
                    "active_connections": len(rooms.peers),
                    "total_connections_created": rooms.created,
                    "rooms_active": len(rooms.rooms),
                    "timestamp": _now(),
                }
            )
        text = _state_text(rooms, workers, store) + (certificate.metrics() if certificate else "")
        text += counters.render() + _worker_text(workers.stats)
        return Response(text, content_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


def _state_text(rooms: Rooms, workers: Workers, store: Store | None) -> str:
    rows = [
        ("sfu_peers", "gauge", "Peers in rooms now.", len(rooms.peers)),
        ("sfu_rooms", "gauge", "Rooms with at least one peer.", len(rooms.rooms)),
        ("sfu_peers_created_total", "counter", "Peers that joined a room since start.", rooms.created),
        ("sfu_ready", "gauge", "1 when peers can join: a media worker is ready.", int(workers.ready)),
    ]
    if store is not None:
        up, unwritten = int(store.database.state == "ok"), store.sessions.unwritten
        rows.append(("sfu_database_up", "gauge", "1 when the database is reachable and refuses no statement.", up))
        lines = len(store.lines)
        rows.append(("sfu_lines_unwritten", "gauge", "Chat lines not yet written to the database.", lines))
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
