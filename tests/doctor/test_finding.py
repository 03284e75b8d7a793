"""How checks run: none ends the others, none takes longer than its time, and a script can rely on the status."""

from __future__ import annotations

import json

import trio
from support.process import environment, sfu

from sfu.doctor.checks import CHECKS
from sfu.doctor.finding import Check, Context, Finding, examine, ok
from sfu.settings.config import Config


async def _crashes(_context: Context) -> Finding:
    raise KeyError("a bug")


async def _hangs(_context: Context) -> Finding:
    await trio.sleep_forever()
    raise AssertionError


async def _works(_context: Context) -> Finding:
    return ok("fine")


async def test_a_check_that_crashes_or_hangs_is_a_line() -> None:
    table = [Check("one", "", _crashes), Check("two", "the disk", _hangs, 0.05), Check("three", "", _works)]
    found = [checked.finding async for checked in examine(Context(Config(), {}), table)]
    assert [one.status for one in found] == ["failed", "failed", "ok"]
    assert found[0].text == "This check failed itself: KeyError: 'a bug'"
    assert found[1].text == "No answer within 0.05 s."


def test_the_table_has_no_name_twice_and_the_help_is_there() -> None:
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names))
    assert all(check.about for check in CHECKS)


def test_checks_are_chosen_by_name() -> None:
    done = sfu("doctor", "--only", "python,disk", "--skip", "disk", env=environment())
    assert done.returncode == 0
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("ok ", "note "))] == ["python"]
    wrong = sfu("doctor", "--only", "pyhton", env=environment())
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("sfu: There is no check 'pyhton'. The checks are python, settings, ")


def test_without_a_server_it_says_what_it_could_not_check() -> None:
    done = sfu("doctor", "--json", "--only", "python,udp,tcp,turn,proxies", env=environment())
    said = json.loads(done.stdout)
    assert (done.returncode, said["ok"], said["server"]) == (0, True, False)
    assert {one["name"]: one["status"] for one in said["checks"]} == {
        "python": "ok", "udp": "skipped", "tcp": "skipped", "turn": "skipped", "proxies": "skipped",
    }  # fmt: skip
    phone = sfu("doctor", "--phone", env=environment())
    assert phone.returncode == 2
    assert "The test of a phone needs the running server. No server runs here" in phone.stderr
