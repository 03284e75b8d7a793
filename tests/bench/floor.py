"""The least a forwarded packet can cost here: the same ciphers and system calls in a bare loop that does nothing
else."""

from __future__ import annotations

import random
import socket
import time
from array import array
from collections import Counter
from typing import Any

from pylibsrtp import Policy, Session

from sfu.media.streams.fanout import GSO_PACKETS, SendBuffers, SendGroup
from sfu.media.transport import libc
from sfu.media.transport.dtls import WINDOW
from sfu.media.transport.rows import ROW_BYTES
from sfu.media.transport.sockets import CandidatePair, Endpoint, Receiver
from sfu.media.transport.srtp import Context, protect, unprotect

SIZE = 1112


def _session(kind: int, key: bytes) -> Session:
    policy = Policy(key=key, ssrc_type=kind, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM)
    policy.allow_repeat_tx, policy.window_size = True, WINDOW
    return Session(policy)


class _DownTrack:
    segments, renumbered = True, False


def floor_us(subscribers: int, burst: int, seconds: float = 1.0, pause_s: float = 0.0) -> float:
    """CPU µs a forwarded packet, when each packet of `burst` that arrives together goes to every subscriber. With a
    pause before each, as between frames, caches are as cold as a server finds them."""
    burst = min(burst, GSO_PACKETS)
    endpoint = Endpoint("127.0.0.1", 0, Counter(), portable=False)
    outbox, receiver = SendBuffers(Counter()), Receiver(socket.AF_INET)
    outbox_rows = outbox.rows
    sinks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(subscribers)]
    for sink in sinks:
        sink.bind(("127.0.0.1", 0))
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sink.setblocking(False)
    key = random.randbytes(28)
    down_tracks: list[Any] = [
        (_DownTrack(), Context(_session(Policy.SSRC_ANY_OUTBOUND, key)), CandidatePair(endpoint, sink.getsockname()))
        for sink in sinks
    ]
    share = outbox_rows.count // burst
    send_groups = [SendGroup(outbox, down_tracks[at : at + share]) for at in range(0, subscribers, share)]
    publisher, rx = _session(Policy.SSRC_ANY_OUTBOUND, key), Context(_session(Policy.SSRC_ANY_INBOUND, key))
    sender, server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), endpoint.socket.getsockname()
    spent_ns = forwards = 0
    end, seq = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for _ in range(burst):
            seq = (seq + 1) & 0xFFFF
            sender.sendto(publisher.protect(b"\x80\x60" + seq.to_bytes(2, "big") + bytes(SIZE - 4)), server)
        time.sleep(pause_s)
        began_ns = time.process_time_ns()
        n = receiver.receive(endpoint)
        for i in range(n):
            unprotect(rx.handle, receiver.rows.pointers[i], receiver.rows.length_pointers[i])
        for fan in send_groups:
            _send(outbox, fan, n)
        spent_ns += time.process_time_ns() - began_ns
        forwards += n * subscribers
        for sink in sinks:
            _drain(sink)
    for sock in (*sinks, sender, endpoint.socket):
        sock.close()
    return spent_ns / 1e3 / forwards


def _send(outbox: SendBuffers, fan: SendGroup, k: int) -> None:
    n = len(fan._down_tracks)
    for i in range(n * k):
        outbox.rows.view[i * ROW_BYTES] = 0x80
    outbox.rows.lengths[: n * k] = array("i", [SIZE]) * (n * k)
    handles, _, _, messages, names, addresses, _ = fan._shapes.get(k) or fan._shape(k)
    any(map(protect, handles, outbox.rows.pointers, outbox.rows.length_pointers))
    names[:] = addresses
    outbox.segment[0] = SIZE + 16
    assert libc.lib.sendmmsg(fan._endpoint.fd, messages, n, 0) == n


def _drain(sink: socket.socket) -> None:
    try:
        while True:
            sink.recv(2048)
    except BlockingIOError:
        pass
