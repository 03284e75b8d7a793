"""Forged datagrams during a DTLS handshake, and the datagrams that the handshake needs."""

from __future__ import annotations

import asyncio
import struct

import pytest
from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport
from hypothesis import given
from hypothesis import strategies as st
from support.media_client import DEADLINE_S, run

from sfu.media.transport.dtls import Certificate, Dtls
from sfu.media.transport.records import Records

OURS, THEIRS = Certificate.generateCertificate(), RTCCertificate.generateCertificate()
LATE = 77
"""The sequence number of forged records: with a higher one, later records of the peer are replays to OpenSSL."""


def record(kind: int, body: bytes, *, epoch: int = 0, number: int = LATE, version: int = 0xFEFD) -> bytes:
    return struct.pack("!BHHHIH", kind, version, epoch, 0, number, len(body)) + body


def message(kind: int, number: int, body: bytes, *, total: int | None = None, start: int = 0) -> bytes:
    sizes = (len(body) if total is None else total, start, len(body))
    total_bytes, start_bytes, length = (size.to_bytes(3, "big") for size in sizes)
    return bytes([kind]) + total_bytes + struct.pack("!H", number) + start_bytes + length + body


FORGED = {
    "fatal alert": record(21, b"\2\50"),
    "close_notify": record(21, b"\1\0"),
    "warning": record(21, b"\1\x29"),
    "alert of DTLS 1.0": record(21, b"\2\50", version=0xFEFF),
    "half an alert": record(21, b"\2"),
    "application data": record(23, b"x" * 20),
    "change_cipher_spec that is none": record(20, b"\2"),
    "zeros": b"\x16\xfe\xfd" + bytes(50),
    "a record of nonsense": record(22, bytes(range(40, 90))),
    "half a record": record(22, b"x" * 50)[:30],
    "half a head": record(22, b"")[:5],
    "another version": record(22, message(1, 0, b"x" * 20), version=0x0303),
    "another type": record(24, b"x" * 20),
    "a unified header of DTLS 1.3": b"\x2c" + bytes(30),
    "an encrypted record": record(22, b"x" * 40, epoch=1),
    "HelloRequest": record(22, message(0, 0, b"")),
    "Finished": record(22, message(20, 4, b"x" * 12)),
    "a message too long": record(22, message(11, 1, b"x" * 10, total=0xFFFFFF)),
    "a part that ends after its message": record(22, message(11, 1, b"x" * 10, total=5)),
    "a message of another number": record(22, message(11, 9, b"x" * 10)),
    "two records, the second cut": record(21, b"\1\1") + b"\x16\xfe",
}


class Wire:
    """An ICE transport to another one. Before each DTLS datagram of its owner's, a forged one goes out as well."""

    def __init__(self, role: str, forged: bytes = b"") -> None:
        self.role, self._forged = role, forged
        self.peer: Wire = self
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()

    async def _recv(self) -> bytes:
        return await self._inbox.get()

    async def _send(self, data: bytes) -> None:
        for one in filter(None, (self._forged, data)):
            self.peer._inbox.put_nowait(one)


async def meet(forged: bytes, *, client: bool) -> Dtls:
    """Our end after a handshake; the forged datagram also came first."""
    near, far = Wire("controlled"), Wire("controlling", forged)
    near.peer, far.peer = far, near
    ours, other = Dtls(near, OURS, client=client), RTCDtlsTransport(far, [THEIRS])  # type: ignore[arg-type]
    other._set_role("server" if client else "client")
    told = [RTCDtlsFingerprint(one.algorithm, one.value) for one in OURS.getFingerprints()]
    if forged:
        near._inbox.put_nowait(forged)
    known = [(one.algorithm, one.value) for one in THEIRS.getFingerprints()]
    await asyncio.gather(ours.handshake(known, DEADLINE_S), other.start(RTCDtlsParameters(told)))
    await other.stop()
    return ours


@pytest.mark.parametrize("client", [False, True], ids=["as server", "as client"])
@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_forged_datagram_disturbs_no_handshake(forged: bytes, client: bool) -> None:
    async def test() -> None:
        ours = await meet(forged, client=client)
        assert ours.outgoing is not None
        await ours.stop()

    run(test)


def test_each_record_has_its_turn() -> None:
    records = Records(from_client=True)
    steps = [
        [record(22, message(1, 0, b"hello"))],
        [record(22, message(kind, number, b"x")) for kind, number in ((11, 1), (16, 2), (15, 3))],
        [record(20, b"\1")],
    ]
    while steps:
        early = [one for step in steps[1:] for one in step]
        assert [records.admit(one) for one in early] == [b""] * len(early)
        assert all(records.admit(one) for one in steps.pop(0))


def test_records_are_numbered_anew() -> None:
    records, hello = Records(from_client=True), message(1, 0, b"hello")
    for number in (1, 2, 3):
        assert records.admit(record(22, hello, number=(1 << 32) - number)) == record(22, hello, number=number)
    sealed = record(22, b"sealed", epoch=1, number=5)
    assert records.admit(sealed) == sealed


@given(st.binary(max_size=200), st.sampled_from([20, 21, 22, 23]), st.booleans())
def test_any_bytes_never_raise(data: bytes, kind: int, from_client: bool) -> None:
    records = Records(from_client=from_client)
    for one in (data, record(kind, data), record(22, message(1, 0, b"hello")) + record(kind, data)):
        records.admit(one)
