"""Scheduling priority of a worker (sched(7)), so that packets wait less for other processes. Linux only; elsewhere, or
without permission, nothing changes.
"""

from __future__ import annotations

import contextlib
import os
import platform
import struct
import sys

from sfu.media.transport import libc

NICE = -5
"""Packets should not wait for REST requests on the same core. Requires root or CAP_SYS_NICE."""
SLICE_NS = 700_000
"""A process with a short time slice is scheduled soon: it may preempt one with a longer slice, usually 1-3 ms. Beyond
its slice it may be preempted itself, so the slice should outlast most bursts. Linux 6.12 and later honour it, without
privileges."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
_OTHER = 0
_attributes = struct.Struct("=IIQiIQQQ")
"""struct sched_attr (sched_setattr(2)): size, policy, flags, nice, priority, runtime, deadline, period."""


def hurry() -> None:
    """Asks the kernel to run this process soon after it wakes."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    number = _SCHED_SETATTR.get(platform.machine())
    if libc.lib is None or not sys.platform.startswith("linux") or number is None:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = libc.ffi.new("char[]", _attributes.pack(_attributes.size, _OTHER, 0, nice, 0, SLICE_NS, 0, 0))
    libc.lib.syscall(number, libc.ffi.cast("int", 0), attributes, libc.ffi.cast("unsigned int", 0))
