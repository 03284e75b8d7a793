"""Who listens on a port: the kernel's tables of sockets and of open files (proc(5))."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Literal

Protocol = Literal["tcp", "udp"]
LISTENING = "0A"
"""State of a TCP socket that listens; a UDP socket has another one."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A socket bound to a port: its local address, and the process that has it, if this user may know."""

    address: IPv4Address | IPv6Address
    pid: int | None


def bound(protocol: Protocol, port: int) -> list[Bound]:
    """The sockets that have the port. Raises OSError on systems without these tables."""
    found = [
        (address, inode)
        for name in (protocol, f"{protocol}6")
        for address, inode in _table(Path("/proc/net") / name, port, listening=protocol == "tcp")
    ]
    owners = _owners({inode for _, inode in found}) if found else {}
    return [Bound(address, owners.get(inode)) for address, inode in found]


def family(pid: int) -> set[int]:
    """The process and its children."""
    found = {pid}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                found.add(int(entry.parent.name))
    return found


def named(pid: int | None) -> str:
    """A process as people know it."""
    if pid is None:
        return "another program (run this as root to see which)"
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"serve" in words and any(word.endswith((b"sfu", b"/sfu/__main__.py")) for word in words):
            return f"a server with other settings than this command's (process {pid})"
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()} (process {pid})"
    return f"process {pid}"


def _table(path: Path, port: int, *, listening: bool) -> Iterator[tuple[IPv4Address | IPv6Address, int]]:
    if not path.exists() and path.name.endswith("6"):
        return  # a system without IPv6
    for line in path.read_text().splitlines()[1:]:
        fields = line.split()
        host, _, number = fields[1].rpartition(":")
        if int(number, 16) == port and (not listening or fields[3] == LISTENING):
            yield _address(host), int(fields[9])


def _address(text: str) -> IPv4Address | IPv6Address:
    """An address as the kernel prints it: words of four bytes in the machine's order."""
    words = [bytes.fromhex(text[at : at + 8]) for at in range(0, len(text), 8)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    found = ip_address(b"".join(words))
    return (isinstance(found, IPv6Address) and found.ipv4_mapped) or found


def _owners(inodes: set[int]) -> dict[int, int]:
    """The processes that have these sockets open, as far as this user may look."""
    wanted, found = {f"socket:[{inode}]": inode for inode in inodes}, dict[int, int]()
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):
            for entry in os.scandir(folder):
                with suppress(OSError):
                    if (inode := wanted.get(os.readlink(entry.path))) is not None:
                        found[inode] = int(folder.parent.name)
    return found


def overlaps(host: str, others: Sequence[Bound]) -> list[Bound]:
    """Those of the sockets that stand in the way of one at `host` (`*`: every address)."""
    if host == "*" or ip_address(host).is_unspecified:
        return list(others)
    return [one for one in others if one.address.is_unspecified or one.address == ip_address(host)]
