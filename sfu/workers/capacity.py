"""Whether a media worker can take one more peer without harm to the calls it has. The clock is an argument.

A worker's load tells little before it is too late: the media of people who just joined is not in it yet, and a machine
whose processor others use delays packets at any load. So these count as well:

- peers who joined within JOIN_S, each by less the longer ago that was,
- the time that the hypervisor gives to other machines ("steal"), which is missing from each core,
- how late the event loops of the control plane and of the worker run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import trio

from sfu.settings.config import Config

JOIN_S = 10.0
"""How long a join counts: media begins within seconds, and a worker's load covers about five."""
PEER_LOAD = 0.01
"""What a peer in a room of six costs, in cores (docs/sizing.md). An average of the worker's own peers would count the
work of joining as if it went on."""
LASTING = 5
"""A measurement counts once this many in a row are as bad: a single pause or a burst of joins passes."""
LOOK_S = 1.0
"""Time between two measurements of steal and of the control plane's lag; workers report theirs as often."""
WORKER_LATE_S = 0.2
"""Lag of a worker's event loop that participants hear."""
CONTROL_LATE_S = 0.5
"""Lag of the control plane with which joins take seconds."""
PROC_STAT = Path("/proc/stat")


class Lasting:
    """The least of the last LASTING values; 0 until there are as many."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=LASTING)

    def add(self, value: float) -> None:
        self._values.append(value)

    @property
    def value(self) -> float:
        return min(self._values) if len(self._values) == LASTING else 0.0


class _Worker:
    def __init__(self) -> None:
        self.load = 0.0
        self.lag = Lasting()
        self.joined_at: dict[str, float] = {}  # by peer, in order


class Capacity:
    """Judges all workers of one server; each is named by its index."""

    def __init__(self, config: Config, clock: Callable[[], float]) -> None:
        self._config, self._clock = config, clock
        self._workers = [_Worker() for _ in range(config.workers)]
        self._control_lag, self._steal = Lasting(), Lasting()

    @property
    def steal(self) -> float:
        """The lasting fraction of each core that the hypervisor gives to other machines."""
        return self._steal.value

    @property
    def control_lag_s(self) -> float:
        """By how much the control plane's event loop is late, lastingly."""
        return self._control_lag.value

    def load(self, worker: int) -> float:
        """The worker's load in cores, as it last reported."""
        return self._workers[worker].load

    def worker_reported(self, worker: int, load: float, lag_s: float) -> None:
        """A worker's report, once a second: its load in cores, and the most that its event loop was late."""
        self._workers[worker].load = load
        self._workers[worker].lag.add(lag_s)

    def measured(self, lag_s: float, steal: float) -> None:
        """How late the control plane ran, and the stolen fraction of the processors' time since the last call."""
        self._control_lag.add(lag_s)
        self._steal.add(steal)

    def joined(self, worker: int, peer: str) -> None:
        """A peer was placed on the worker."""
        self._workers[worker].joined_at[peer] = self._clock()

    def left(self, worker: int, peer: str) -> None:
        self._workers[worker].joined_at.pop(peer, None)

    def restarted(self, worker: int) -> None:
        """The worker's process ended, and its peers with it."""
        self._workers[worker] = _Worker()

    def expected_load(self, worker: int) -> float:
        """The worker's load with the media of those who just joined."""
        one, now = self._workers[worker], self._clock()
        one.joined_at = {peer: at for peer, at in one.joined_at.items() if at > now - JOIN_S}
        return one.load + PEER_LOAD * sum(1 - (now - at) / JOIN_S for at in one.joined_at.values())

    def objection(self, worker: int) -> str:
        """Why the worker cannot take one more peer, for the log; empty if it can."""
        if not self._config.limits:
            return ""
        if (load := self.expected_load(worker)) > (most := self._config.max_load * (1 - self.steal)):
            return f"load={load:.2f} most={most:.2f} steal={self.steal:.2f}"
        if (lag_s := self._workers[worker].lag.value) > WORKER_LATE_S:
            return f"worker_lag_s={lag_s:.2f} most={WORKER_LATE_S}"
        if (lag_s := self.control_lag_s) > CONTROL_LATE_S:
            return f"control_lag_s={lag_s:.2f} most={CONTROL_LATE_S}"
        return ""

    async def measure(self, proc_stat: Path = PROC_STAT) -> None:
        """Measures the control plane's lag and the stolen time until cancelled."""
        before = read_cpu(proc_stat)
        while True:
            due = time.monotonic() + LOOK_S
            await trio.sleep(LOOK_S)
            lag_s, now = time.monotonic() - due, read_cpu(proc_stat)
            self.measured(max(0.0, lag_s), stolen(before, now))
            before = now


def read_cpu(proc_stat: Path) -> tuple[int, int]:
    """The stolen and the whole time of all processors in clock ticks (proc_stat(5)); zeros where neither is known."""
    try:
        fields = proc_stat.read_text().partition("\n")[0].split()
        ticks = [int(field) for field in fields[1:9]]  # user to steal; guest time is in user's already
    except (OSError, ValueError):
        ticks = []
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else (0, 0)


def stolen(before: tuple[int, int], now: tuple[int, int]) -> float:
    """The stolen fraction of the time between two readings."""
    passed = now[1] - before[1]
    return min(1.0, max(0, now[0] - before[0]) / passed) if passed > 0 else 0.0
