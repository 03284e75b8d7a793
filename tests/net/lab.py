"""An internet of a few machines: a server behind a gate, alice behind a home router, bob, and a TURN server.

server ─── gate ─── net ─┬─ home ─── alice
                         ├─ bob
                         └─ relay
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from people import FAKE_DEVICES, launch
from playwright.sync_api import Browser, Playwright
from support.debian import environment, program
from support.namespaces import Machine, ServerOn, cable
from support.turn import coturn

from net.cases import PRIVATE, RELAY, RELAY_PORT, SERVER, SERVER6, STUN_PORT, Case

BRIDGES = (("docker0", "172.17.0.1/16"), ("br-0123456789ab", "172.18.0.1/16"))
_NAT = """
table ip nat {{
    chain post {{
        type nat hook postrouting priority srcnat
        oifname "wan" masquerade {how}
    }}
}}
"""
_FILTER = """
table inet filter {{
    chain forwarded {{
        type filter hook forward priority 0
        {rules}
    }}
}}
"""


class Lab:
    """The machines and their cables. `prepare` makes them what a case says; `close` removes everything."""

    def __init__(self) -> None:
        self._kept = contextlib.ExitStack()
        self.folder = Path(self._kept.enter_context(tempfile.TemporaryDirectory(prefix="sfu-net-")))
        self.server, self.gate, self.net, self.home, self.alice, self.bob, self.relay = (
            self._machine(name) for name in ("server", "gate", "net", "home", "alice", "bob", "relay")
        )
        try:
            self._wire()
        except BaseException:
            self.close()
            raise

    def _machine(self, name: str) -> Machine:
        made = Machine(name)
        self._kept.callback(made.close)
        return made

    def _wire(self) -> None:
        for router in (self.gate, self.net, self.home):
            router.forwards()
        cable(self.server, "eth0", self.gate, "in")
        cable(self.gate, "out", self.net, "server")
        cable(self.home, "wan", self.net, "home")
        cable(self.alice, "eth0", self.home, "lan")
        cable(self.bob, "eth0", self.net, "bob")
        cable(self.relay, "eth0", self.net, "relay")
        self.gate.address("in", "203.0.113.1/24", "10.0.0.1/24", "2001:db8:1::1/64")
        self.gate.address("out", "198.18.0.2/30", "2001:db8:f::2/64")
        self.net.address("server", "198.18.0.1/30", "2001:db8:f::1/64")
        self.net.address("home", "198.51.100.1/24", "2001:db8:2::1/64")
        self.home.address("wan", "198.51.100.2/24", "2001:db8:2::2/64")
        self.home.address("lan", "192.168.1.1/24", "2001:db8:a::1/64")
        for machine, cables, here, there in (
            (self.bob, "bob", "192.0.2.2/30", "192.0.2.1/30"),
            (self.relay, "relay", f"{RELAY}/30", "192.0.2.5/30"),
        ):
            machine.address("eth0", here)
            self.net.address(cables, there)
            machine.ip(f"route add default via {there.partition('/')[0]}")
        self.net.address("bob", "2001:db8:b::1/64")
        self.bob.address("eth0", "2001:db8:b::2/64")
        self.bob.ip("-6 route add default via 2001:db8:b::1")
        for machine, family, way in (
            (self.gate, 4, "default via 198.18.0.1"),
            (self.gate, 6, "default via 2001:db8:f::1"),
            (self.home, 4, "default via 198.51.100.1"),
            (self.home, 6, "default via 2001:db8:2::1"),
            (self.net, 4, "203.0.113.0/24 via 198.18.0.2"),
            (self.net, 6, "2001:db8:1::/64 via 2001:db8:f::2"),
            (self.net, 6, "2001:db8:a::/64 via 2001:db8:2::2"),
        ):
            machine.ip(f"-{family} route add {way}")

    def prepare(self, case: Case) -> None:
        """The addresses, rules and widths of the case, and nothing of an earlier one."""
        only_6 = SERVER6 in case.page
        self.server.ip("addr flush dev eth0")
        self.server.address("eth0", *case.server)
        gateway = {SERVER: "203.0.113.1", PRIVATE: "10.0.0.1", SERVER6: "2001:db8:1::1"}
        self.server.ip(f"route replace default via {gateway[case.server[0].partition('/')[0]]}")
        self.alice.ip("addr flush dev eth0")
        self.alice.address("eth0", "2001:db8:a::10/64" if only_6 else "192.168.1.10/24")
        self.alice.ip(f"route replace default via {'2001:db8:a::1' if only_6 else '192.168.1.1'}")
        for machine, interface in ((self.alice, "eth0"), (self.home, "lan"), (self.home, "wan"), (self.net, "home")):
            machine.ip(f"link set {interface} mtu {case.mtu if interface in ('wan', 'home') else 1500}")
        how = "fully-random" if case.symmetric else ""
        self.home.rules(_NAT.format(how=how) + _FILTER.format(rules=case.home))
        self.gate.rules(_FILTER.format(rules=case.gate) + case.nat)
        for name, address in BRIDGES:
            with contextlib.suppress(RuntimeError):
                self.server.ip(f"link del {name}")
            if case.bridges:
                self.server.ip(f"link add {name} type bridge")
                self.server.address(name, address)

    def browser(self, playwright: Playwright, machine: Machine) -> Browser:
        """A browser on a machine, with a fake camera and microphone."""
        return launch(playwright, FAKE_DEVICES, machine=lambda found: machine.program(found, self.folder))

    @contextlib.contextmanager
    def serving(self, case: Case) -> Iterator[ServerOn]:
        """The server of the case, and what else it needs."""
        with contextlib.ExitStack() as kept:
            settings = {"host": "*", "workers": "2"} | dict(case.settings)
            server = ServerOn(self.server, "--self-signed", port=case.port, **settings)
            kept.callback(server.close)
            if "turn_urls" in case.settings:
                kept.enter_context(coturn(server.env, RELAY_PORT, self.folder, machine=self.relay))
            if "stun" in case.settings:
                kept.enter_context(self._stun())
            yield server.start()

    @contextlib.contextmanager
    def _stun(self) -> Iterator[None]:
        """coturn, as a STUN server and nothing else."""
        command = [*self.relay.command, program("turnserver"), "-n", "--stun-only", "--no-cli", "--no-tls", "--no-dtls"]
        options = [f"--listening-ip={RELAY}", f"--listening-port={STUN_PORT}", "--log-file=stdout", "--pidfile="]
        with (self.folder / "stun.log").open("wb") as log:
            process = subprocess.Popen([*command, *options], stdout=log, stderr=log, env=environment(), cwd=self.folder)
        try:
            yield
        finally:
            process.terminate()
            process.wait()

    def close(self) -> None:
        self._kept.close()
