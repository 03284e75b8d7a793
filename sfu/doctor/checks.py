"""The table of checks, in the order in which they run and are shown."""

from __future__ import annotations

from sfu.doctor import calls, certificate, database, machine, nat, network, settings
from sfu.doctor.finding import Check

CALL_S, CAPACITY_S = 60.0, 60.0

CHECKS = (
    Check("python", "the version of Python", machine.python),
    Check("settings", "settings that are unknown, contradict each other, or wait for a restart", settings.settings),
    Check("clock", "whether the clock is synchronised", machine.clock),
    Check("disk", "free space for the data folder", machine.disk),
    Check("files", "the limit on open files", machine.files),
    Check("database", "whether the database is there, of this release, writable and fast", database.database, 30.0),
    Check("ports", "who has the server's ports", network.ports),
    Check("addresses", "the addresses that browsers send media to", network.addresses),
    Check("nat", "which address the outside sees", nat.nat),
    Check("certificate", "names, days, chain and key of the certificate", certificate.certificate),
    Check("dns", "whether the domain leads to this server", network.dns),
    Check("proxies", "forwarding headers of proxies", settings.proxies),
    Check("buffers", "the size of UDP buffers", machine.buffers),
    Check("offload", "UDP segmentation offload", machine.gso),
    Check("steal", "processor time that the hypervisor takes", machine.steal),
    Check("udp", "a call of the server to itself over UDP", calls.call("udp"), CALL_S),
    Check("tcp", "the same over TCP", calls.call("tcp"), CALL_S),
    Check("turn", "the same through the TURN servers", calls.call("relay"), CALL_S),
    Check("capacity", "how many rooms this machine carries", calls.capacity, CAPACITY_S),
)
