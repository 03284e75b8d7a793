"""Checks of the machine: Python, clock, disk, limits on files, buffers and offloads of the kernel, stolen time."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import sys
from pathlib import Path

import trio

from sfu.doctor.finding import Context, Finding, failed, note, ok, skipped

TESTED = ((3, 11), (3, 14))
"""The oldest and the newest Python that the tests run with."""
FEW_FILES, FILES = 1024, 4096 + 128
"""Open files below which calls fail, and those that the server's own limit of connections needs."""
LITTLE_BYTES, BYTES = 100 << 20, 1 << 30
"""Free space below which the database may stop, and below which it is time to look."""
BUFFER_BYTES = 4 << 20
"""What the server asks for on its UDP sockets (media/transport/sockets.py)."""
LOOK_S = 1.0
STOLEN_NOTE, STOLEN = 0.03, 0.15
"""Shares of processor time taken by the hypervisor: delay begins to vary, and calls suffer."""
SOL_UDP, UDP_SEGMENT = 17, 103
TIME_ERROR, SKEW_S = 5, 0.5
"""adjtimex(2): the clock is not synchronised; and the largest error that tokens and TURN credentials do not notice."""


async def python(_context: Context) -> Finding:
    version = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    oldest, newest = TESTED
    if not oldest <= sys.version_info[:2] <= newest:
        span = f"{oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"
        return note(f"{version} is not a version that this release was tested with.", f"Use Python {span}.")
    return ok(version)


class _Timex(ctypes.Structure):
    """The beginning of struct timex, and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


async def clock(_context: Context) -> Finding:
    adjtimex = getattr(ctypes.CDLL(None, use_errno=True), "adjtimex", None)
    if adjtimex is None:
        return skipped("This system does not tell whether its clock is synchronised.")
    timex = _Timex()
    state = adjtimex(ctypes.byref(timex))
    if state < 0:
        return skipped(f"The kernel does not tell ({os.strerror(ctypes.get_errno())}).")
    error_s = timex.maxerror / 1e6
    advice = "Switch on time synchronisation: `sudo timedatectl set-ntp true`, or install chrony on this machine."
    if state == TIME_ERROR:
        text = "The clock is not synchronised. Tokens and TURN credentials fail when it is wrong by a minute."
        return note(text, advice)
    if error_s > SKEW_S:
        return note(f"The clock may be wrong by {error_s:.1f} s.", advice)
    return ok(f"synchronised, wrong by at most {error_s * 1e3:.0f} ms")


async def disk(context: Context) -> Finding:
    folder = context.config.data_dir
    there = next(path for path in (folder, *folder.parents) if path.exists())
    found = await trio.to_thread.run_sync(os.statvfs, there, abandon_on_cancel=True)
    free, whole = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    text = f"{_size(free)} of {_size(whole)} free for {folder}"
    advice = f"Free space on the file system of {there}, or move SFU_DATA_DIR."
    if not os.access(there, os.W_OK) or found.f_flag & os.ST_RDONLY:
        return failed(
            f"{there} cannot be written: the server cannot make its files there.",
            "Give its user the right, or name another folder in SFU_DATA_DIR.",
        )
    if free < LITTLE_BYTES or (found.f_files and not found.f_favail):
        why = "" if free < LITTLE_BYTES else ", but no more files can be made"
        return failed(f"{text}{why}: the database cannot grow, and joins may fail.", advice)
    if there != folder:
        return note(
            f"{text}, which does not exist yet.", "`sfu serve` makes it. If it should exist, correct SFU_DATA_DIR."
        )
    if free < BYTES:
        return note(f"{text}.", advice)
    return ok(text)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


async def files(context: Context) -> Finding:
    if context.running is not None:
        try:
            limit, whose = _files_of(context.running.pid), "the running server"
        except OSError:
            return skipped("The limit of the running server is not visible to this user.", "Run this as root.")
    else:
        limit, whose = resource.getrlimit(resource.RLIMIT_NOFILE)[0], "a server of this shell"
    advice = "Raise the limit: LimitNOFILE=65536 in the service's unit, or `ulimit -n 65536` before the start."
    if limit == resource.RLIM_INFINITY or limit >= FILES:
        return ok(f"{whose} may open {'any number' if limit == resource.RLIM_INFINITY else f'{limit:,}'}")
    text = f"{whose[0].upper()}{whose[1:]} may open {limit:,} files; each connection takes one."
    return failed(text, advice) if limit < FEW_FILES else note(text, advice)


def _files_of(pid: int) -> int:
    """A process's limit on open files (proc(5))."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    text = next(line for line in lines if line.startswith("Max open files")).split()[3]
    return resource.RLIM_INFINITY if text == "unlimited" else int(text)


async def buffers(context: Context) -> Finding:
    got = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for name, option in (("rmem_max", socket.SO_RCVBUF), ("wmem_max", socket.SO_SNDBUF)):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
            given = sock.getsockopt(socket.SOL_SOCKET, option)
            got[name] = given // 2 if sys.platform == "linux" else given  # Linux counts its own overhead (socket(7))
    small = {name: given for name, given in got.items() if given < BUFFER_BYTES}
    if not small:
        return ok(f"UDP sockets get the {BUFFER_BYTES >> 20} MB that the server asks for")
    if _runs_as_root(context):
        return ok(f"the server runs as root, so its sockets get {BUFFER_BYTES >> 20} MB in spite of the system's limit")
    shown = " and ".join(f"{given >> 10:,} KB ({name})" for name, given in small.items())
    lines = " ".join(f"net.core.{name}={BUFFER_BYTES}" for name in small)
    return note(
        f"UDP sockets get {shown} of {BUFFER_BYTES >> 10:,} KB: large rooms lose packets in bursts.",
        f"Run `sudo sysctl -w {lines}`, and put the same into /etc/sysctl.d/sfu.conf, a line each.",
    )


def _runs_as_root(context: Context) -> bool:
    try:
        return context.running is not None and os.stat(f"/proc/{context.running.pid}").st_uid == 0
    except OSError:
        return False


async def gso(_context: Context) -> Finding:
    if sys.platform != "linux":
        return skipped("Only Linux has UDP segmentation offload; without it each packet costs a system call more.")
    size, count = 1200, 3
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source,
    ):
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(1)
        try:
            source.setsockopt(SOL_UDP, UDP_SEGMENT, size)
            source.sendto(bytes(size * count), sink.getsockname())
            sizes = [len(sink.recv(1 << 16)) for _ in range(count)]
        except OSError as error:
            return note(
                f"The kernel has no UDP segmentation offload ({error.strerror or error}): sending costs more.",
                "Use Linux 4.18 or newer. In a sandbox such as gVisor there is none.",
            )
    return ok("UDP segmentation offload works") if sizes == [size] * count else note(
        f"UDP segmentation offload gave packets of {sizes} bytes.", "Update the kernel of this machine."
    )  # fmt: skip


async def steal(_context: Context) -> Finding:
    try:
        before = _times()
    except FileNotFoundError:
        return skipped("This system does not tell how much time its hypervisor takes.")
    await trio.sleep(LOOK_S)
    stolen, whole = (b - a for a, b in zip(before, _times(), strict=True))
    share = stolen / whole if whole else 0.0
    text = f"The hypervisor takes {share:.0%} of this machine's processor time"
    advice = "Ask the provider for a machine with dedicated cores, or for another host."
    if share >= STOLEN:
        return failed(f"{text}: sound and video stutter.", advice)
    return note(f"{text}: delay varies.", advice) if share >= STOLEN_NOTE else ok(f"{share:.0%} of the time is stolen")


def _times() -> tuple[int, int]:
    """Stolen and all processor time, in ticks (proc(5))."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (fields[7] if len(fields) > 7 else 0), sum(fields)
