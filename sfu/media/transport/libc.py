"""Batched system calls through cffi's ABI mode: recvmmsg, sendmmsg and UDP segmentation offload (udp(7)).

Nothing is compiled at install. If the C library lacks these calls (macOS), `lib` is None, and fanout.py and demux.py
take their portable paths.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from cffi import FFI

MSG_DONTWAIT = 0x40
SOL_UDP, UDP_SEGMENT = 17, 103  # linux/udp.h
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
CONTROL_LEN, CONTROL_BYTES = 18, 24  # CMSG_LEN and CMSG_SPACE of a uint16_t on 64-bit Linux
NAME_BYTES = 32
"""Size of a sockaddr_in (16) or sockaddr_in6 (28), rounded up to whole words of 8."""

ffi = FFI()
ffi.cdef(
    """
struct iovec { void *iov_base; size_t iov_len; };
struct msghdr { void *msg_name; unsigned int msg_namelen; struct iovec *msg_iov; size_t msg_iovlen;
                void *msg_control; size_t msg_controllen; int msg_flags; };
struct mmsghdr { struct msghdr msg_hdr; unsigned int msg_len; };
struct segment { size_t cmsg_len; int cmsg_level; int cmsg_type; uint16_t size; uint8_t pad[6]; };
int recvmmsg(int fd, struct mmsghdr *messages, unsigned int n, int flags, void *timeout);
int sendmmsg(int fd, struct mmsghdr *messages, unsigned int n, int flags);
long syscall(long number, ...);
"""
)


def _load() -> Any:
    if not sys.platform.startswith("linux") or sys.maxsize < 1 << 32:
        return None
    lib = ffi.dlopen(None)
    return lib if hasattr(lib, "recvmmsg") and hasattr(lib, "sendmmsg") else None


lib = _load()
sendmmsg: Any = None if lib is None else lib.sendmmsg  # cffi looks up a library's attribute on every access


def address_of(memory: Any) -> int:
    return int(ffi.cast("uintptr_t", memory))


def sockaddr(address: tuple[Any, ...]) -> bytes:
    """The bytes of a sockaddr_in or sockaddr_in6 for a numeric address in the socket module's form."""
    host: str = address[0]
    port: bytes = address[1].to_bytes(2, "big")
    flow: bytes = (address[2] if len(address) > 2 else 0).to_bytes(4, "big")
    scope: bytes = (address[3] if len(address) > 3 else 0).to_bytes(4, sys.byteorder)
    if ":" not in host:
        return socket.AF_INET.to_bytes(2, sys.byteorder) + port + socket.inet_pton(socket.AF_INET, host) + bytes(8)
    ip = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return socket.AF_INET6.to_bytes(2, sys.byteorder) + port + flow + ip + scope


def address(name: bytes) -> tuple[Any, ...]:
    """The reverse of `sockaddr`, from a buffer that may be longer."""
    port = int.from_bytes(name[2:4], "big")
    if int.from_bytes(name[:2], sys.byteorder) == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port
    scope = int.from_bytes(name[24:28], sys.byteorder)
    return socket.inet_ntop(socket.AF_INET6, name[8:24]), port, int.from_bytes(name[4:8], "big"), scope
