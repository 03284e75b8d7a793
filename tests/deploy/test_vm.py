"""docs/operating.md, "As a service", followed to the letter on new machines."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from people import FAKE_DEVICES, People, Person, in_call, launch
from playwright.sync_api import sync_playwright
from support.process import ROOT, Server, free_port
from support.vm import USER, Machine, machine
from support.waiting import eventually

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

CHECKOUT = f"/home/{USER}/sfu"


def commands(heading: str) -> list[str]:
    """The commands of a section of the page, in order."""
    text = (ROOT / "docs" / "operating.md").read_text()
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^    (sudo .*?)(?: +#.*)?$", section, re.MULTILINE)


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def vm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machine(request.param, tmp_path_factory.mktemp("vm") / request.param) as running:
        yield running


def test_the_page_leads_to_a_service_that_stays(vm: Machine) -> None:
    port = free_port()
    files = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    Path(vm.folder, "checkout.tar").write_bytes(files)
    vm.does(f"mkdir {CHECKOUT} && tar -x -C {CHECKOUT} -f /checkout.tar")
    Path(vm.folder, "etc/sfu.env").write_text(f"SFU_PORT={port}\nSFU_HOST=127.0.0.1\n")
    vm.does("sudo apt-get update")
    written = commands("As a service")
    assert len(written) >= 5
    for command in written:
        vm.does(command, folder=CHECKOUT)

    assert _health(vm, port) == "ok"  # `systemctl enable --now` returned when it was ready
    assert vm.does("systemctl is-enabled sfu").strip() == "enabled"
    key = vm.does("sudo /opt/sfu/bin/sfu company create Acme 2> /dev/null").strip()
    assert key, "a command finds the service's database"
    assert _fetch(vm, f"http://127.0.0.1:{port}/api/v1/rooms", key).startswith("{"), "and the server knows its key"
    with call(port) as people:
        in_call(*people)

    assert vm.does("systemctl show sfu -p Type -p StatusText --value").split()[0] == "notify"
    first = _main(vm)
    vm.does("sudo systemctl reload sfu")
    assert vm.does("systemctl show sfu -p MainPID --value").strip() == first
    vm.does(f"sudo sh -c 'kill -KILL {first}'")
    eventually(lambda: _health(vm, port) == "ok" and _main(vm) not in ("0", first), "it was started again", 120)
    hangs = _main(vm)
    vm.does(f"sudo sh -c 'kill -STOP {hangs}'")
    eventually(
        lambda: _main(vm) not in ("0", hangs) and _health(vm, port) == "ok", "the watchdog started it again", 120
    )
    assert vm.does("sudo journalctl -u sfu -p warning --grep Traceback || true").count("Traceback") == 0

    Path(vm.folder, "etc/sfu.env").write_text("SFU_PORT=none\n")
    vm.run("systemctl", "restart", "sfu")
    eventually(lambda: vm.run("systemctl", "is-failed", "sfu").stdout.strip() == "failed", "it does not start", 60)
    assert "NRestarts=0" in vm.does("systemctl show sfu -p NRestarts")
    assert "SFU_PORT='none' is not accepted" in vm.does("sudo journalctl -u sfu -n 20")


@contextmanager
def call(port: int) -> Iterator[list[Person]]:
    """Two people whose media passes the service: a right that the unit does not leave it shows only there."""
    server = cast("Server", SimpleNamespace(scheme="http", port=port))
    with sync_playwright() as running, launch(running, FAKE_DEVICES) as browser:
        people = People(browser)
        yield [people(server, name).join("service") for name in ("alice", "bob")]
        people.go()


def _main(vm: Machine) -> str:
    return vm.does("systemctl show sfu -p MainPID --value").strip()


def _health(vm: Machine, port: int) -> str:
    answer = _fetch(vm, f"http://127.0.0.1:{port}/health")
    return str(json.loads(answer)["status"]) if answer.startswith("{") else answer


def _fetch(vm: Machine, url: str, key: str = "") -> str:
    """With Python, since a new machine has no other client."""
    script = "import sys, urllib.request as u; r = u.Request(sys.argv[1], headers={'Authorization': sys.argv[2]}); "
    script += "print(u.urlopen(r).read().decode())"
    return vm.run("python3", "-c", script, url, f"Bearer {key}").stdout.strip()
