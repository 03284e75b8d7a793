"""What happened how often, and the Prometheus text format (version 0.0.4). Plain synchronous state.

Every combination of name and labels is kept for ever, so a label's value comes from a closed set (an error code, an
HTTP status, a kind), never from a client.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

HELP = {
    "sfu_refused_total": "Requests and joins refused, by error code.",
    "sfu_errors_total": "Error events sent to peers, by error code.",
    "sfu_connections_total": "TCP connections accepted.",
    "sfu_http_requests_total": "HTTP responses, by status.",
    "sfu_connection_failures_total": "TCP connections that ended badly, by kind.",
    "sfu_worker_restarts_total": "Media workers started again because they had died.",
}

Labels = tuple[tuple[str, str], ...]


class Counters:
    """Counters since start."""

    def __init__(self) -> None:
        self._values: dict[str, dict[Labels, float]] = {}

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Counts `value` more; the first use of a name and its labels makes the counter."""
        samples = self._values.setdefault(name, {})
        key = tuple(sorted(labels.items()))
        samples[key] = samples.get(key, 0) + value

    def get(self, name: str, **labels: str) -> float:
        """The count under exactly these labels; 0 when nothing was counted."""
        return self._values.get(name, {}).get(tuple(sorted(labels.items())), 0)

    def render(self) -> str:
        """Every counter as Prometheus text, in a stable order."""
        families = ((name, sorted(samples.items())) for name, samples in sorted(self._values.items()))
        return "".join(
            family(name, "counter", HELP.get(name, name), [(dict(labels), value) for labels, value in samples])
            for name, samples in families
        )


def family(name: str, kind: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> str:
    """One metric: its `# HELP` and `# TYPE`, and a line for each (labels, value). `kind` is counter or gauge."""
    lines = [f"# HELP {name} {_escape(text)}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escape(label, quote=True)}"' for key, label in labels.items())
        lines.append(f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}")
    return "\n".join(lines) + "\n"


def _escape(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def _number(value: float) -> str:
    """Whole numbers in full, as `repr` turns large ones into 1e+16; the format's own names for what is not finite."""
    if math.isfinite(value):
        return str(int(value)) if value == int(value) else repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
