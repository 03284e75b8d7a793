"""Workers: real child processes that start, work, hang, die and end, with nothing left of them."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from support.control import DEADLINE_S, child, open_files, settings
from support.variants import variants
from support.waiting import until
from support.worker_child import TAKEN

from sfu import bridge
from sfu.errors import ConfigError, MediaUnavailable, ServerFull
from sfu.process.metrics import Counters
from sfu.settings import config
from sfu.settings.config import Config
from sfu.workers import workers
from sfu.workers.workers import COMMAND, Workers


class Watched(Workers):
    """Workers that write down what they report."""

    def __init__(self, config: Config, command: tuple[str, ...]) -> None:
        self.counters = Counters()
        super().__init__(config, self.counters, command)
        self.events: list[tuple[int, bridge.Event]] = []
        self.deaths: list[int] = []
        self.on_event = lambda worker, event: self.events.append((worker, event))
        self.on_death = self.deaths.append

    @property
    def pids(self) -> list[int]:
        """Of the processes; worker_child.py advertises them."""
        return [int(pid) for pid in self.advertised]


@asynccontextmanager
async def running(
    folder: Path, plan: str = "ready", *, command: tuple[str, ...] = (), **changes: Any
) -> AsyncIterator[Watched]:
    found = Watched(settings(**changes), command or child(folder, plan))
    async with trio.open_nursery() as nursery:
        await nursery.start(found.run)
        yield found
        nursery.cancel_scope.cancel()


def is_gone(pid: int) -> bool:
    """No process, and no zombie either."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def has_ended(pid: int) -> bool:
    """No process, or a zombie: who adopts an orphan may never ask for its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_events_come_up_and_commands_go_down(tmp_path: Path) -> None:
    async with running(tmp_path) as found:
        found.send(0, bridge.Join("p1", "team", True, True, True))
        await until(lambda: found.events)
        worker, event = found.events[0]
        assert worker == 0
        assert isinstance(event, bridge.Offer)
        assert event.peer == "p1"
        await until(lambda: found.stats[0].gauges.get("commands") == 2)  # Configure and Join


async def test_each_worker_is_told_where_to_listen_and_the_limits(tmp_path: Path) -> None:
    async with running(tmp_path, workers=2, public_ip=("192.0.2.1",), max_tracks=5, last_n=7) as found:
        for index in range(2):
            told = await configured(found, index)
            assert (told["hosts"], told["advertise"]) == (["127.0.0.1"], ["192.0.2.1"])
            assert (told["max_tracks"], told["last_n"]) == (5, 7)


async def configured(found: Watched, index: int) -> dict[str, Any]:
    """What a worker was told first."""
    found.events.clear()
    found.send(index, bridge.Join("p1", "team", True, True, True))
    found.send(index, bridge.Answer("p1", "do:commands"))
    await until(lambda: len(found.events) == 2)
    _, event = found.events[-1]
    assert isinstance(event, bridge.Offer)
    (name, told), *_ = json.loads(event.sdp)
    assert name == "Configure"
    assert isinstance(told, dict)
    return told


async def restarted(found: Watched, index: int) -> None:
    deaths = len(found.deaths)
    os.kill(found.pids[index], signal.SIGKILL)
    await until(lambda: len(found.deaths) > deaths)
    await until(lambda: found.is_ready(index))


@pytest.mark.parametrize("port", [0, *variants(7000)])
async def test_workers_share_a_port(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first takes it, and the others whatever that was; started again, each joins, with the pairs that there
    were."""
    monkeypatch.setattr(config, "SHARED_UDP", True)
    async with running(tmp_path, workers=3, port=port) as found:
        first, *others = [await configured(found, index) for index in range(3)]
        assert (first["port"], first["index"], first["joins"]) == (port, 0, False)
        assert len(set(first["handovers"])) == 2
        taken = port or TAKEN
        for index, told in enumerate(others, 1):
            assert (told["port"], told["index"], told["joins"], len(told["handovers"])) == (taken, index, True, 1)
        for index, before in enumerate([first, *others]):
            await restarted(found, index)
            assert await configured(found, index) == before | {"port": taken, "joins": True}


async def test_a_worker_that_is_alone_shares_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, port=7000) as found:
        for _ in range(2):
            told = await configured(found, 0)
            assert (told["port"], told["index"], told["handovers"], told["joins"]) == (7000, 0, [], False)
            await restarted(found, 0)


@pytest.mark.parametrize("port", [0, 7000])
async def test_where_they_cannot_share_each_has_its_port(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "SHARED_UDP", False)
    async with running(tmp_path, workers=2, port=port) as found:
        for index in range(2):
            told = await configured(found, index)
            assert (told["port"], told["handovers"], told["joins"]) == (port and port + index, [], False)


async def test_a_new_room_goes_to_the_worker_with_the_fewest_peers(tmp_path: Path) -> None:
    async with running(tmp_path, workers=2) as found:
        first = found.pick()
        found.place(first, "a")
        assert found.pick() == 1 - first
        found.place(1 - first, "b")
        found.place(1 - first, "c")
        assert found.pick() == first
        found.release(1 - first, "b")
        found.release(1 - first, "c")
        assert found.pick() == 1 - first


async def test_a_dead_worker_is_told_and_replaced_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, workers=2) as found:
        pids = found.pids
        assert len(set(pids)) == 2
        os.kill(pids[1], signal.SIGKILL)
        await until(lambda: found.deaths == [1])
        assert not found.is_ready(1)
        assert found.pick() == 0
        found.send(1, bridge.Leave("p1"))  # to nobody: ignored
        await until(lambda: found.is_ready(1))
        assert found.pids[0] == pids[0]
        assert found.pids[1] != pids[1]
        assert is_gone(pids[1])
        assert found.counters.get("sfu_worker_restarts_total") == 1


async def test_without_a_worker_nobody_can_be_placed(tmp_path: Path) -> None:
    async with running(tmp_path) as found:
        assert found.ready
        os.kill(found.pids[0], signal.SIGKILL)
        await until(lambda: found.deaths)
        assert not found.ready
        with pytest.raises(MediaUnavailable):
            found.pick()


async def test_a_worker_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SILENCE_S", 0.5)
    async with running(tmp_path) as found:
        pid = found.pids[0]
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: found.deaths == [0])
        await until(lambda: found.ready)
        assert is_gone(pid)


async def test_a_worker_that_reports_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SILENCE_S", 0.5)
    async with running(tmp_path) as found:
        silent_since = trio.current_time()
        await until(lambda: trio.current_time() > silent_since + 1)
        assert found.deaths == []


async def test_silence_after_ready_is_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SILENCE_S", 0.2)
    async with running(tmp_path, "silent,ready") as found:
        await until(lambda: found.deaths == [0])


async def test_a_worker_that_does_not_read_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "COMMAND_QUEUE", 10)
    async with running(tmp_path) as found:
        pid = found.pids[0]
        os.kill(pid, signal.SIGSTOP)
        for _ in range(12):  # the first fills the socket, ten wait, and there is one too many
            found.send(0, bridge.Answer("p1", "x" * (1 << 20)))
            await trio.testing.wait_all_tasks_blocked()
        await until(lambda: found.deaths == [0])
        await until(lambda: found.ready)
        assert is_gone(pid)


async def test_a_worker_that_talks_nonsense_is_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, "garbled,ready") as found:
        pid = found.pids[0]
        found.send(0, bridge.Join("p1", "team", True, True, True))
        await until(lambda: found.deaths == [0])
        await until(lambda: found.ready)
        assert is_gone(pid)
    assert "worker_garbled worker=0" in caplog.text


@pytest.mark.parametrize(
    ("plan", "message"),
    [("fatal", "UDP port 8080 is taken"), ("crash", "ended with status 3"), ("ready,crash", "ended with status 3")],
)
async def test_a_first_start_that_fails_is_an_error(tmp_path: Path, plan: str, message: str) -> None:
    files = open_files()
    found = Watched(settings(workers=plan.count(",") + 1), child(tmp_path, plan))
    with trio.fail_after(DEADLINE_S), pytest.raises(ConfigError, match=message):
        await found.run()
    assert not found.ready
    assert open_files() == files


async def test_a_program_that_is_missing_is_an_error() -> None:
    files = open_files()
    with pytest.raises(ConfigError, match="cannot be started"):
        await Watched(settings(), ("/nowhere/python",)).run()
    assert open_files() == files


async def test_a_first_start_that_takes_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "START_S", 0.1)
    with trio.fail_after(DEADLINE_S), pytest.raises(ConfigError, match="stopped answering"):
        await Watched(settings(), ("sleep", "60")).run()


async def test_a_restart_that_fails_is_tried_again_ever_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, "ready,fatal,crash,crash,ready") as found:
        os.kill(found.pids[0], signal.SIGKILL)
        await until(lambda: found.deaths)
        await until(lambda: found.ready)
        assert (tmp_path / "starts").stat().st_size == 5
    died = [record.getMessage() for record in caplog.records if "worker_died" in record.getMessage()]
    assert [message.rsplit("=")[-1] for message in died] == ["0.0", "0.1", "0.2", "0.4"]
    assert "UDP port 8080 is taken" in died[1]
    assert found.deaths == [0], "one that never was ready has no peers"


async def test_one_that_lived_long_is_started_again_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "STABLE_S", 0.0)
    async with running(tmp_path) as found:
        for death in range(1, 4):
            os.kill(found.pids[0], signal.SIGKILL)
            await until(partial(lambda n: len(found.deaths) == n, death))
            await until(lambda: found.ready)
    assert caplog.text.count("retry_s=0.0") == 3


async def test_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    files = open_files()
    async with running(tmp_path, workers=2) as found:
        pids = found.pids
    assert all(map(is_gone, pids))
    assert found.deaths == [], "a server that stops does not tell its peers to rejoin"
    await until(lambda: open_files() == files)


async def test_one_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "EXIT_S", 0.2)
    async with running(tmp_path, "stubborn") as found:
        pids = found.pids
    assert all(map(is_gone, pids))


async def test_a_worker_does_not_outlive_a_killed_server(tmp_path: Path) -> None:
    """The bridge ends with the process that held it."""
    script = (
        "import os, signal, sys, trio\n"
        "from sfu.process.metrics import Counters; from sfu.settings.config import Config\n"
        "from sfu.workers.workers import Workers\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        workers = Workers(Config(host='127.0.0.1', port=0, workers=1), Counters(), sys.argv[1:])\n"
        "        await nursery.start(workers.run)\n"
        "        print(workers.advertised[0], flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "trio.run(main)\n"
    )
    command = [sys.executable, "-c", script, *child(tmp_path)]
    done = await trio.run_process(command, capture_stdout=True, check=False)
    assert done.returncode == -signal.SIGKILL
    await until(lambda: has_ended(int(done.stdout)))


async def test_the_real_worker(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(Path(), command=COMMAND) as found:
        assert found.advertised == ["127.0.0.1"]
        found.send(0, bridge.Join("p1", "team", True, True, True))
        await until(lambda: found.events)
        _, event = found.events[0]
        assert isinstance(event, bridge.Offer)
        assert event.send == {"0": "microphone", "1": "camera"}
        assert event.sdp.count("m=") == 2
        await until(lambda: found.stats[0].gauges.get("peers") == 1)
    assert "worker_ready worker=0" in caplog.text


def loaded(found: Workers, *loads: float, lag_s: float = 0.0) -> None:
    """The workers report these loads, once each."""
    for worker, load in enumerate(loads):
        found._handle(found._workers[worker], bridge.Stats({}, {"load": load, "loop_lag_us_max": lag_s * 1e6}))


async def test_a_new_room_goes_where_the_least_is_done(caplog: pytest.LogCaptureFixture) -> None:
    workers = Workers(Config(workers=3, max_load=0.8), Counters())
    for worker in workers._workers:
        worker.ready = True
    loaded(workers, 0.5, 0.2, 0.21)
    workers.place(1, "d")
    assert workers.pick() == 2  # as loaded as the other, to a tenth, with fewer peers
    loaded(workers, 0.9, 0.82, 0.95)
    for _ in range(2):
        with pytest.raises(ServerFull) as full:
            workers.pick()
        assert full.value.retry_after_s
    with pytest.raises(ServerFull):
        workers.admit(0)
    assert caplog.messages == ["server_full worker=1 peers=1 load=0.83 most=0.80 steal=0.00"], "once a minute"
    unlimited = Workers(Config(host="127.0.0.1", workers=1, limits=False), Counters())
    loaded(unlimited, 1.0)
    unlimited.admit(0)


async def test_a_new_room_goes_past_a_worker_that_runs_late() -> None:
    workers = Workers(Config(workers=2), Counters())
    for worker in workers._workers:
        worker.ready = True
    loaded(workers, 0.1, 0.5)
    for _ in range(10):
        loaded(workers, 0.1, lag_s=1.0)  # only the first
    assert workers.pick() == 1
    with pytest.raises(ServerFull):
        workers.admit(0)


async def test_it_is_known_whether_a_worker_answers(tmp_path: Path) -> None:
    async with running(tmp_path, "silent,ready") as found:
        assert found.answering(DEADLINE_S)
        heard_at = trio.current_time()
        await until(lambda: trio.current_time() > heard_at + 0.2)
        assert not found.answering(0.1)
    async with running(tmp_path) as found:
        for _ in range(3):
            await until(lambda: found.answering(0.15))
