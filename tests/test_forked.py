"""Processes that tests fork instead of starting them do the same, and end with whoever asked for them."""

from __future__ import annotations

import psutil
import pytest
from support import forked
from support.process import ROOT, environment, free_port, run
from support.waiting import eventually


@pytest.mark.parametrize("arguments", [("company", "--help"), ("dance",), ("serve",)])
def test_a_command_prints_and_ends_as_if_it_was_started(arguments: tuple[str, ...]) -> None:
    env = environment(port="banana") | {"COLUMNS": "50"}
    ours, real = forked.run("sfu", *arguments, env=env), run("-m", "sfu", *arguments, env=env)
    assert (ours.returncode, ours.stdout, ours.stderr) == (real.returncode, real.stdout, real.stderr)
    assert ours.stdout + ours.stderr


def test_a_process_that_nobody_asks_for_ends() -> None:
    env = environment(host="127.0.0.1", port=str(free_port()))
    asked = forked.Forked("sfu", ["serve"], folder=ROOT, env=env, files={0: 0, 1: 2, 2: 2})
    found = psutil.Process(asked.pid)
    del asked
    eventually(lambda: not found.is_running(), "it is gone")
