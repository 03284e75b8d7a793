"""What `just bench` measures with must go on to measure; how long anything takes is nothing for a test."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
from support.process import Server, run

from sfu.media.transport import libc

pytestmark = pytest.mark.skipif(libc.lib is None, reason="measures with recvmmsg")


@pytest.mark.parametrize("burst", [1, 10])
def test_the_floor_sends(burst: int) -> None:
    program = (
        f"import sys; sys.path.insert(0, 'tests/bench'); from floor import floor_us; print(floor_us(3, {burst}, 0.05))"
    )
    done = run("-c", program)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0


def test_the_load_reaches_everybody() -> None:
    with closing(Server()) as server:
        url = server.start().url.replace("http", "ws") + "/ws"
        done = run("tests/bench/load.py", "--url", url, "--seconds=0.5")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["peers"], found["missing_tracks"], found["loss_percent"]) == (4, 0, 0)
    assert found["forwards_per_s"] > 0
    assert found["delay_ms_p99"] > 0
