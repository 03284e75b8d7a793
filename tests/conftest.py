"""What all tests share: a server process, and no skipped test where CI=true says that everything must run."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

import hypothesis
import pytest
from support import pythons
from support.process import Server

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
hypothesis.settings.register_profile("untimed", deadline=None)  # machines that run tests are slow at times
hypothesis.settings.load_profile("untimed")

sys.dont_write_bytecode = False  # else hundreds of processes compile the same modules again
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

NOTHING_SKIPPED = os.environ.get("CI") == "true"


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Starts servers; each is over at the test's end, and its output stands in the report of a test that failed."""
    servers = []

    def start(*options: str, **settings: str) -> Server:
        servers.append(Server(*options, **settings))
        return servers[-1].start()

    yield start
    for server in servers:
        print(server.output)
        server.close()


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    """A running server with default settings."""
    return start_server()


def pytest_xdist_auto_num_workers() -> int:
    """One more than processors: one is busy with browsers, and the others' tests wait half of their time."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays: to look for garbage in it would take a tenth of the tests' time, and a third of this."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _unskipped((yield), item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _unskipped((yield), collector.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which Pythons this machine has, where that was the question: one that is not here cannot fail."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    if any("test_pythons.py" in getattr(report, "nodeid", "") for report in reports):
        here = ", ".join(f"{version} ({path})" for version, path in pythons.found().items())
        terminalreporter.section("Pythons")
        terminalreporter.line(
            f"installed and tried: {here}; not on this machine: {', '.join(pythons.missing()) or 'none'}"
        )


def _unskipped(report: Report, name: str) -> Report:
    if NOTHING_SKIPPED and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{name} was skipped, and under CI nothing may be: {report.longrepr}"
    return report
