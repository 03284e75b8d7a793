"""Counters and histograms, and the Prometheus text format (version 0.0.4). Plain synchronous state.

Every combination of name and labels is kept for the life of the process, so label values must come from a closed set
(an error code, an HTTP status, a kind), never from a client.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import accumulate

HELP = {
    "sfu_refused_total": "Requests and joins refused, by error code.",
    "sfu_errors_total": "Error events sent to peers, by error code.",
    "sfu_connections_total": "TCP connections accepted.",
    "sfu_http_requests_total": "HTTP responses, by status.",
    "sfu_connection_failures_total": "TCP connections that failed or were closed early, by kind.",
    "sfu_task_failures_total": "Failed runs of background tasks, which are retried, by task.",
    "sfu_worker_restarts_total": "Media workers restarted after they died.",
    "sfu_webhook_deliveries_total": "Attempts to send to a webhook, by result: delivered, retry, failed, paused.",
    "sfu_quality_causes_total": "Reports to peers (every two seconds) that named a cause of bad quality, by kind.",
    "sfu_quality_score": "Call quality, 1 to 4.4: each peer's score in each report (every two seconds).",
    "sfu_quality_loss_ratio": "Fraction of packets lost between a peer and the server, retransmitted or not.",
    "sfu_quality_jitter_seconds": "Jitter between a peer and the server.",
    "sfu_quality_round_trip_seconds": "Round-trip time between a peer and the server.",
    "sfu_quality_bitrate_bps": "Bitrate between a peer and the server.",
}

UNLABELLED = ("sfu_connections_total", "sfu_worker_restarts_total")
"""Counters that are there from the start, at 0: Prometheus sees no increase in a counter that appears with 1."""

Labels = tuple[tuple[str, str], ...]


class Counters:
    """Counters and histograms since start."""

    def __init__(self) -> None:
        self._values: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {}

    def declare(self) -> None:
        """Makes every family of HELP, so that whoever looks at the metrics finds their names before the first event."""
        for name in HELP:
            if name.endswith("_total"):
                self._values.setdefault(name, {(): 0.0} if name in UNLABELLED else {})
            else:
                self._histograms.setdefault(name, {})

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Adds `value` to a counter; the first use of a name and its labels creates it."""
        samples = self._values.setdefault(name, {})
        key = tuple(sorted(labels.items()))
        samples[key] = samples.get(key, 0) + value

    def observe(self, name: str, value: float, bounds: tuple[float, ...], **labels: str) -> None:
        """Adds a value to a histogram. `bounds` are the upper bounds of its buckets, fixed by the first call."""
        histograms, key = self._histograms.setdefault(name, {}), tuple(sorted(labels.items()))
        if key not in histograms:
            histograms[key] = _Histogram(bounds)
        histograms[key].add(value)

    def get(self, name: str, **labels: str) -> float:
        """The value of the counter with exactly these labels; 0 if it does not exist."""
        return self._values.get(name, {}).get(tuple(sorted(labels.items())), 0)

    def render(self) -> str:
        """All counters and histograms as Prometheus text, in a stable order."""
        families = ((name, sorted(samples.items())) for name, samples in sorted(self._values.items()))
        counters = "".join(
            family(name, "counter", HELP.get(name, name), [(dict(labels), value) for labels, value in samples])
            for name, samples in families
        )
        return counters + "".join(
            _head(name, "histogram", HELP.get(name, name))
            + "".join(found.render(name, dict(labels)) for labels, found in sorted(histograms.items()))
            for name, histograms in sorted(self._histograms.items())
        )


class _Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def render(self, name: str, labels: Mapping[str, str]) -> str:
        """Buckets are cumulative: each includes the counts of those before it."""
        ends = [*self._bounds, math.inf]
        buckets = zip(ends, accumulate(self._counts), strict=True)
        lines = [_line(f"{name}_bucket", {**labels, "le": _number(end)}, count) for end, count in buckets]
        return "".join(
            [*lines, _line(f"{name}_sum", labels, self._sum), _line(f"{name}_count", labels, sum(self._counts))]
        )


def family(name: str, kind: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> str:
    """One metric family: `# HELP`, `# TYPE`, and a line per (labels, value). `kind` is counter or gauge."""
    return _head(name, kind, text) + "".join(_line(name, labels, value) for labels, value in samples)


def _head(name: str, kind: str, text: str) -> str:
    return f"# HELP {name} {_escape(text)}\n# TYPE {name} {kind}\n"


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escape(label, quote=True)}"' for key, label in labels.items())
    return f"{name}{{{inside}}} {_number(value)}\n" if inside else f"{name} {_number(value)}\n"


def _escape(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def _number(value: float) -> str:
    """Whole numbers with all digits (`repr` would write 1e+16); NaN and infinities as the text format spells them."""
    if math.isfinite(value):
        return str(int(value)) if value == int(value) else repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
