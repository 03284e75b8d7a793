"""One run of packets to many subscribers: copied, encrypted in one loop in C, sent with one system call.

A run is up to GSO_PACKETS packets of one stream, of equal size except for a shorter last one, so that a subscriber's
share of it can be one message that the kernel segments (UDP_SEGMENT,
linux/Documentation/networking/segmentation-offloads).
"""

from __future__ import annotations

import errno
import sys
from array import array
from collections.abc import Sequence
from typing import Any

from sfu.media.rtp import codecs, vp8
from sfu.media.streams.down_track import DownTrack, Failure
from sfu.media.streams.paced import PacedTrack, pace
from sfu.media.streams.send_history import SendHistory
from sfu.media.transport import libc
from sfu.media.transport.rows import GSO_PACKETS, ROW_BYTES, Lengths, Rows
from sfu.media.transport.sockets import CandidatePair
from sfu.media.transport.srtp import Context, protect

Subscriber = DownTrack[Any]
"""A down track on any kind of stream; the stream is not used here."""

SHARE = 32
"""Subscribers encrypted and sent to at once. More of them would not fit the second-level cache."""
NO_SEGMENTS = frozenset({errno.EINVAL, errno.EIO, errno.EMSGSIZE})
"""The kernel's errors when it cannot segment: too old, a device without checksums, a path with a smaller MTU."""
FULL = frozenset({errno.EAGAIN, errno.ENOBUFS})
_IOV_BYTES, _LEN_BYTES = libc.ffi.sizeof("struct iovec"), libc.ffi.offsetof("struct iovec", "iov_len")


class SendBuffers:
    """Rows to encrypt in and message headers to send them with. One per worker; filled and sent without awaiting in
    between.

    A subscriber's packets are adjacent: packet j of a run of k for subscriber s is row s * k + j. So everything except
    the receivers' addresses and the segment size can be prepared: `runs[k]` are messages of k rows, which the kernel
    segments; `lone` are messages of one row. Messages take their lengths from where libsrtp writes them.
    """

    def __init__(self, counters: dict[str, int]) -> None:
        self.counters, self.history = counters, SendHistory()
        if libc.lib is None:
            self.rows = Rows(SHARE * GSO_PACKETS)
            return
        ffi, count = libc.ffi, SHARE * GSO_PACKETS
        self._iov = ffi.new("struct iovec[]", count)
        words = memoryview(ffi.buffer(self._iov)).cast("B")
        low = _LEN_BYTES if sys.byteorder == "little" else _LEN_BYTES + 4  # no packet needs the other half of a size_t
        column = words.cast("i")[low // 4 :: _IOV_BYTES // 4]
        self.rows = Rows(count, Lengths(libc.address_of(self._iov) + low, _IOV_BYTES, column))
        end = self.rows.address + count * ROW_BYTES
        words.cast("Q")[0::2] = array("Q", range(self.rows.address, end, ROW_BYTES))
        self._control = ffi.new("struct segment *", (libc.CONTROL_LEN, libc.SOL_UDP, libc.UDP_SEGMENT))
        self.segment = ffi.addressof(self._control, "size")
        self.lone = self._messages(1, count)
        self.runs = [self._messages(k, SHARE) for k in range(GSO_PACKETS + 1)]
        self._prepared: dict[tuple[int, int, bool], Prepared] = {}

    def prepare(self, k: int, n: int, *, whole: bool) -> Prepared:
        """For runs of k packets to n subscribers; `whole`: one message per subscriber. Send groups that are alike share
        it."""
        prepared = self._prepared.get((k, n, whole))
        if prepared is None:
            messages, names = self.runs[k] if whole and k > 1 else self.lone
            prepared = _doublings(k, n), messages, names[: n if whole else n * k]
            self._prepared[k, n, whole] = prepared
        return prepared

    def _messages(self, k: int, count: int) -> Messages:
        """Messages of k rows each, and the column of their address pointers."""
        messages = libc.ffi.new("struct mmsghdr[]", count)
        for s in range(count):
            header = messages[s].msg_hdr
            header.msg_namelen = libc.NAME_BYTES - 4  # more bytes may follow a sockaddr_in
            header.msg_iov, header.msg_iovlen = self._iov + s * k, k
            if k > 1:
                header.msg_control, header.msg_controllen = self._control, libc.CONTROL_BYTES
        step = libc.ffi.sizeof("struct mmsghdr") // 8
        return messages, memoryview(libc.ffi.buffer(messages)).cast("B").cast("Q")[::step]


Messages = tuple[Any, memoryview]
Copies = list[tuple[slice, slice, slice, slice]]
"""For each copy: where the bytes go and where they come from, and the same for lengths."""
Prepared = tuple[Copies, Any, memoryview]
"""The copies that give each subscriber the run; the messages, and the column of their addresses."""
Shape = tuple[list[Any], int, Copies, Any, memoryview, "array[int]", int]
"""What runs of one length need: the libsrtp session of each row, the number of rows, what is `Prepared`, the addresses
to write into the column, and the number of messages."""


def _doublings(k: int, n: int) -> Copies:
    """Copies that turn a run of k packets into n such runs; each doubles what is there."""
    copies: Copies = []
    have = k
    while have < n * k:
        more = min(have, n * k - have)
        there = slice(have * ROW_BYTES, (have + more) * ROW_BYTES)
        copies.append((there, slice(more * ROW_BYTES), slice(have, have + more), slice(more)))
        have += more
    return copies


class SendGroup:
    """Up to SHARE subscribers of a stream that one system call can serve: on one socket, with one tag length, all with
    segmentation or all without."""

    __slots__ = (
        "_addresses",
        "_contexts",
        "_down_tracks",
        "_endpoint",
        "_fd",
        "_memory",
        "_n",
        "_names",
        "_paths",
        "_pictured",
        "_renumbered",
        "_rows",
        "_segments",
        "_send_buffers",
        "_shapes",
        "_tag",
    )  # fmt: skip

    def __init__(
        self, send_buffers: SendBuffers, down_tracks: Sequence[tuple[Subscriber, Context, CandidatePair]]
    ) -> None:
        _, context, path = down_tracks[0]
        self._send_buffers, self._rows = send_buffers, send_buffers.rows
        self._endpoint, self._fd = path.endpoint, path.endpoint.fd
        self._tag = context.tag_bytes
        self._down_tracks, self._n = [down_track for down_track, _, _ in down_tracks], len(down_tracks)
        self._contexts = [context for _, context, _ in down_tracks]  # keeps the native sessions alive
        self._addresses = [path.address for _, _, path in down_tracks]
        self._segments = self._down_tracks[0].segments
        self._renumbered = [(s, down_track) for s, down_track in enumerate(self._down_tracks) if down_track.renumbered]
        self._pictured = [(s, down_track) for s, down_track in self._renumbered if down_track.pictured]
        self._paths = [path for _, _, path in down_tracks]
        self._shapes: dict[int, Shape] = {}  # by the number of packets in a run
        if not path.endpoint.portable:
            names = b"".join(libc.sockaddr(address).ljust(libc.NAME_BYTES, b"\0") for address in self._addresses)
            self._memory = libc.ffi.new("char[]", names)
            first = libc.address_of(self._memory)
            self._names = range(first, first + len(names), libc.NAME_BYTES)

    def forward(self, source: memoryview, lengths: list[int]) -> Sequence[Failure]:
        """Sends the packets in the rows of `source`, `lengths` bytes each, to every subscriber. The rows are not
        changed."""
        k, send_buffers, rows = len(lengths), self._send_buffers, self._rows
        view, column = rows.view, rows.lengths
        handles, count, copies, messages, names, addresses, total = self._shapes.get(k) or self._shape(k)
        view[: k * ROW_BYTES] = source
        if k == 1:
            column[0] = lengths[0]
        else:
            column[:k] = array("i", lengths)
        for there, here, lengths_there, lengths_here in copies:
            view[there] = view[here]
            column[lengths_there] = column[lengths_here]
        if self._renumbered:
            self._renumber(view, lengths)
        # stops at the first failure: the packets after it are not encrypted
        if any(map(protect, handles, rows.pointers, rows.length_pointers)):
            return self._apart(source, lengths)
        send_buffers.counters["packets_out"] += count
        if messages is None:
            return self._send_each(k)
        names[:] = addresses
        if k > 1:
            send_buffers.segment[0] = lengths[0] + self._tag
        sent = libc.sendmmsg(self._fd, messages, total, 0)
        return () if sent == total else self._send_on(messages, max(sent, 0), total, k)

    def _shape(self, k: int) -> Shape:
        handles, n = [context.handle for context in self._contexts for _ in range(k)], self._n
        if self._endpoint.portable:
            shape: Shape = handles, n * k, _doublings(k, n), None, memoryview(b""), array("Q"), 0
        else:
            whole = k == 1 or self._segments  # one message per subscriber
            addresses = array("Q", [name for name in self._names for _ in range(1 if whole else k)])
            shape = handles, n * k, *self._send_buffers.prepare(k, n, whole=whole), addresses, len(addresses)
        self._shapes[k] = shape
        return shape

    def _renumber(self, view: memoryview, lengths: list[int]) -> None:
        k = len(lengths)
        for s, down_track in self._renumbered:
            for at in range(s * k * ROW_BYTES + 2, (s + 1) * k * ROW_BYTES, ROW_BYTES):
                down_track.renumber(view, at)
        for s, down_track in self._pictured:
            for at, n in zip(range(s * k * ROW_BYTES, (s + 1) * k * ROW_BYTES, ROW_BYTES), lengths, strict=True):
                if view[at + 1] & 0x7F == codecs.VP8.payload_type:
                    vp8.shift_picture(view[at : at + n], n, down_track.shift_picture, down_track.shift_tl0)

    def _apart(self, source: memoryview, lengths: list[int]) -> Sequence[Failure]:
        """libsrtp refused a packet: sends to each subscriber on its own, so that no other one suffers."""
        if len(self._down_tracks) == 1:
            self._send_buffers.counters["protect_failed"] += len(lengths)
            return ()
        failures: list[Failure] = []
        for one in zip(self._down_tracks, self._contexts, self._paths, strict=True):
            failures += SendGroup(self._send_buffers, [one]).forward(source, lengths)
        return failures

    def _send_on(self, messages: Any, at: int, total: int, k: int) -> Sequence[Failure]:
        """Message `at` was not sent. Tries again from there, which tells the error, and goes on past the messages that
        fail."""
        counters, failures = self._send_buffers.counters, []
        each = total // len(self._down_tracks)  # messages per subscriber
        while at < total:
            sent = libc.sendmmsg(self._endpoint.fd, messages + at, total - at, 0)
            if sent > 0:
                at += sent
                continue
            code, (s, j) = libc.ffi.errno, divmod(at, each)
            down_track = self._down_tracks[s]
            if each < k and code in NO_SEGMENTS:
                counters["segments_refused"] += 1
                down_track.segments = False
                failures.append(Failure(down_track, self._send_whole(s, k)))
            elif code in FULL:
                counters["send_buffer_full"] += 1
                failures.append(Failure(down_track, j))
                at = (s + 1) * each
                continue
            else:
                counters["send_failed"] += 1
            at += 1
        return failures

    def _send_whole(self, s: int, k: int) -> int:
        """Sends a message that the kernel would not segment as k messages. Returns how many were sent."""
        messages, names = self._send_buffers.lone
        names[s * k : (s + 1) * k] = array("Q", [self._names[s]]) * k
        return max(0, int(libc.sendmmsg(self._endpoint.fd, messages + s * k, k, 0)))

    def _send_each(self, k: int) -> Sequence[Failure]:
        """Sends packet by packet, where there is no sendmmsg, and over TCP."""
        rows, counters, failures = self._send_buffers.rows, self._send_buffers.counters, []
        for s, (down_track, address) in enumerate(zip(self._down_tracks, self._addresses, strict=True)):
            for j in range(k):
                try:
                    self._endpoint.put(rows.row(s * k + j), address)
                except BlockingIOError:
                    counters["send_buffer_full"] += 1
                    failures.append(Failure(down_track, j))
                    break
                except OSError:
                    counters["send_failed"] += 1
        return failures


def send_groups(
    send_buffers: SendBuffers, down_tracks: Sequence[Subscriber], *, late: bool = False
) -> list[SendGroup | PacedTrack]:
    """The fewest groups that serve these subscribers; those who are paced come last, each on its own. Subscribers to
    whom media does not flow are in none. `late`: for one packet that others overtook."""
    groups: dict[tuple[object, int, bool], list[tuple[Subscriber, Context, CandidatePair]]] = {}
    paced: list[PacedTrack] = []
    for down_track in down_tracks:
        if (way := down_track.peer.ready()) is None:
            continue
        if (slow := pace(down_track, late=late)) is not None:
            paced.append(slow)
            continue
        context, path = way
        groups.setdefault((path.endpoint, context.tag_bytes, down_track.segments), []).append(
            (down_track, context, path)
        )
    shared = [
        SendGroup(send_buffers, group[at : at + SHARE])
        for group in groups.values()
        for at in range(0, len(group), SHARE)
    ]
    return [*shared, *paced]
