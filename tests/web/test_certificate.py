"""A certificate that changes under a running server: new connections get it, those that are open notice nothing."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest
from support.authority import certificate
from support.call import calling
from support.process import Server
from support.waiting import eventually
from support.wire import joined

from sfu.web.tls import self_signed

NAMES = ["localhost", "127.0.0.1"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The settings of a server with a certificate."""
    return {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}


@pytest.fixture
def pem(tmp_path: Path) -> Callable[[], ssl.SSLContext]:
    """Writes a new certificate and its key into tmp_path; returns a client's context that trusts it alone."""

    def write() -> ssl.SSLContext:
        cert, key = self_signed(NAMES)
        (tmp_path / "cert.pem").write_bytes(cert)
        (tmp_path / "key.pem").write_bytes(key)
        return ssl.create_default_context(cadata=cert.decode())

    return write


def renewed(server: Server) -> int:
    return server.output.count("certificate_renewed")


def test_files_that_change_are_taken_up_in_a_call(
    start_server: Callable[..., Server], pem: Callable[[], ssl.SSLContext], files: dict[str, str]
) -> None:
    old = pem()
    server = start_server(**files)
    assert "certificate names=localhost,127.0.0.1 days_left=39" in server.output
    with calling(server.url, "alice", "bob", context=old) as call:
        new = pem()  # each written over itself
        eventually(lambda: renewed(server) == 1, "the change was noticed")
        with calling(server.url, "carol", context=new):
            call.goes_on()
    assert "certificate_kept" not in server.output


async def test_links_that_lead_elsewhere_count_as_change(
    start_server: Callable[..., Server], pem: Callable[[], ssl.SSLContext], files: dict[str, str], tmp_path: Path
) -> None:
    """As certbot renews: the names are links into an archive."""

    def archive(n: int) -> ssl.SSLContext:
        context = pem()
        for name in ("cert", "key"):
            (tmp_path / f"{name}.pem").rename(tmp_path / f"{name}{n}")
            (tmp_path / f"{name}.link").symlink_to(f"{name}{n}")
            (tmp_path / f"{name}.link").rename(tmp_path / f"{name}.pem")
        return context

    archive(1)
    server = start_server(**files)
    new = archive(2)
    eventually(lambda: renewed(server) == 1, "the change was noticed")
    async with joined(server.url, "alice", new):
        pass


async def test_files_that_do_not_fit_are_named_and_the_certificate_is_kept(
    start_server: Callable[..., Server], pem: Callable[[], ssl.SSLContext], files: dict[str, str], tmp_path: Path
) -> None:
    old = pem()
    server = start_server(**files)
    new = pem()
    (key := tmp_path / "key.pem").rename(tmp_path / "later.pem")
    key.write_text("not yet")
    eventually(lambda: "certificate_kept" in server.output, "the files do not fit")
    async with joined(server.url, "alice", old) as alice:
        os.kill(server.pid, signal.SIGHUP)  # whoever asks again is told again, at once
        eventually(lambda: server.output.count("certificate_kept") == 2, "it was tried again")
        (tmp_path / "later.pem").rename(key)
        eventually(lambda: renewed(server) == 1, "the files fit")
        async with joined(server.url, "bob", new):
            await alice.talks("still here")
    warnings = [line for line in server.output.splitlines() if "certificate_kept" in line]
    assert all("level=WARNING" in warning and str(key) in warning for warning in warnings)
    assert len(warnings) == 2, "the files are not tried again before they change"


def test_the_log_and_a_metric_tell_the_days_left(
    start_server: Callable[..., Server], files: dict[str, str], tmp_path: Path
) -> None:
    def write(days: float) -> None:
        end = datetime.now(UTC) + timedelta(days=days)
        made = certificate(["localhost"], end - timedelta(days=90), end)
        for name, content in zip(("key", "cert"), made, strict=True):
            (tmp_path / f"{name}.pem").write_bytes(content)

    def metric() -> str:
        with urlopen(f"{server.url}/metrics", timeout=5, context=ssl._create_unverified_context()) as answer:
            lines = answer.read().decode().splitlines()
        return next(line for line in lines if line.startswith("sfu_certificate_days_left"))

    write(60.01)
    server = start_server(**files)
    assert "level=INFO logger=sfu.tls certificate names=localhost days_left=60.0" in server.output
    assert metric() == "sfu_certificate_days_left 60"
    write(9.51)
    eventually(lambda: renewed(server) == 1, "the change was noticed")
    line = [line for line in server.output.splitlines() if "certificate_renewed" in line][-1]
    assert "level=WARNING logger=sfu.tls certificate_renewed names=localhost days_left=9.5" in line
    assert "not renewed yet" in line
    assert metric() == "sfu_certificate_days_left 9.5"
    write(-1.99)
    eventually(lambda: "certificate_kept" in server.output, "an expired one replaces no other")
    assert "has expired, and the current one has not" in server.output
    assert metric() == "sfu_certificate_days_left 9.5"
    assert server.stop() == 0
    server.start()
    assert "days_left=-2.0 hint='It has expired: browsers refuse it.'" in server.output
    assert metric() == "sfu_certificate_days_left -2"
