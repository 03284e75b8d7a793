"""A certificate by itself, from a real authority: how it comes and stays, and what is said when it does not come."""

from __future__ import annotations

import http.client
import os
import re
import signal
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from support.authority import DOMAIN, Authority, certificate, limited, served, unverified
from support.call import calling
from support.process import Server, free_port
from support.waiting import eventually

FOLDER = "acme"
MAIL = "operator@example.org"


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    made = Authority(tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def start(start_server: Callable[..., Server]) -> Callable[..., Server]:
    """Starts a server that gets its certificate from an authority; `more` are settings besides."""

    def starts(authority: Authority, **more: str) -> Server:
        return start_server(**authority.settings | {"port": str(authority.tls), "redirect_port": "0"} | more)

    return starts


def lines(server: Server, event: str) -> list[str]:
    return [line for line in server.output.splitlines() if f" {event} " in line]


def has_certificate(server: Server) -> bool:
    return bool(lines(server, "certificate_renewed"))


def kept(server: Server, name: str) -> Path:
    (found,) = Path(server.data.name, FOLDER).glob(f"*/{name}")
    return found


def ask(port: int, target: str, host: str, context: ssl.SSLContext | None = None) -> http.client.HTTPResponse:
    """The answer to a GET for that Host, without its body; over https with a context."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    if context is not None:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    connection.request("GET", target, headers={"Host": host, "Connection": "close"})
    return connection.getresponse()


def test_a_certificate_comes_by_http_and_stays_over_a_restart(
    authority: Authority, start: Callable[..., Server]
) -> None:
    server = start(authority, redirect_port=str(authority.http), acme_mail=MAIL, log_level="debug")
    eventually(lambda: has_certificate(server), "it came")
    assert f"domains={DOMAIN} challenge=http-01" in lines(server, "certificate_ordered")[0]
    trusting = authority.trusting()
    first = served(authority.tls, trusting)
    assert ("DNS", DOMAIN) in first["subjectAltName"]
    secrets = [kept(server, name) for name in ("certificate.pem", "account.json")]
    assert all(file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700 for file in secrets)
    assert not list(secrets[0].parent.glob("attempts.json")), "after a success nothing is to be remembered"
    account = secrets[1].read_text()
    assert MAIL not in server.output
    assert "PRIVATE KEY" not in server.output

    server.stop()
    orders = authority.orders
    server.start()
    assert served(authority.tls, trusting)["serialNumber"] == first["serialNumber"]
    assert (authority.orders, secrets[1].read_text()) == (orders, account)


def test_a_certificate_comes_by_tls_where_only_the_port_of_https_is_open(
    authority: Authority, start: Callable[..., Server]
) -> None:
    server = start(authority)
    before = served(authority.tls, unverified())
    assert before == {}, "until then the server has one that nobody signed"
    assert f"Open    https://{DOMAIN}:{authority.tls}\n" in server.output
    assert "The certificate is not here yet" in server.output
    eventually(lambda: has_certificate(server), "it came")
    assert "challenge=tls-alpn-01" in lines(server, "certificate_ordered")[0]
    assert served(authority.tls, authority.trusting())
    answer = ask(authority.tls, "/health", DOMAIN, unverified())
    assert answer.status == 200


def put(data: Path, directory: str, pem: bytes) -> None:
    """Has a server's folder hold a certificate as of an earlier run with this authority."""
    folder = data / FOLDER / directory.removeprefix("https://").replace("/", "-").replace(":", "-")
    folder.mkdir(parents=True, mode=0o700)
    (folder / "certificate.pem").write_bytes(pem)


def due_in(seconds: float, days: int = 90) -> bytes:
    """A key and certificate, two thirds of whose time are over in so many seconds."""
    lifetime = timedelta(days=days)
    begin = datetime.now(UTC) + timedelta(seconds=seconds) - lifetime * 2 / 3
    return b"".join(certificate([DOMAIN], begin, begin + lifetime))


def test_it_is_renewed_in_a_call_and_nobody_leaves(
    authority: Authority, start: Callable[..., Server], tmp_path: Path
) -> None:
    put(tmp_path / "data", authority.settings["acme_directory"], due_in(25))
    server = start(authority, data_dir=str(tmp_path / "data"), redirect_port=str(authority.http))
    assert "certificate names=meet.example.org days_left=30.0" in server.output
    with calling(server.url, "alice", "bob", context=unverified()) as call:
        assert not has_certificate(server), "the call began before"
        eventually(lambda: has_certificate(server), "it was renewed", 60)
        assert served(authority.tls, authority.trusting())
        call.goes_on()
        with calling(server.url, "carol", context=authority.trusting(), host=DOMAIN):
            pass
        assert [line for line in lines(server, "left") if "carol" not in line] == []
    assert "days_left=30" not in lines(server, "certificate_renewed")[0]


def test_an_authority_that_is_down_is_asked_again(authority: Authority, start: Callable[..., Server]) -> None:
    authority.stop()
    server = start(authority)
    eventually(lambda: len(lines(server, "certificate_failed")) == 2, "it was tried twice")
    assert "level=WARNING" in (line := lines(server, "certificate_failed")[0])
    assert "code=unreachable" in line
    assert "Connection refused" in line
    assert "Let this machine reach https://localhost:" in line
    assert b"\nsfu_certificate_days_left 0\n" in ask(server.port, "/metrics", DOMAIN, unverified()).read()
    authority.start()
    os.kill(server.pid, signal.SIGHUP)
    eventually(lambda: has_certificate(server), "it came")


def test_who_finds_nobody_is_told_why_and_asked_no_sooner_after_a_restart(
    authority: Authority, start: Callable[..., Server]
) -> None:
    """The domain leads elsewhere: nothing listens where the authority looks. Then it leads here."""
    elsewhere = str(free_port())
    server = start(authority, port=elsewhere)
    eventually(lambda: lines(server, "certificate_failed"), "the check failed")
    line = lines(server, "certificate_failed")[0]
    assert "challenge=tls-alpn-01" in line
    assert f"let {DOMAIN} lead to it, and open TCP port 443 in the firewall" in line
    assert " resolves_to=" in line
    assert "Failed to connect to 127.0.0.1" in line
    assert "SIGHUP" in line
    (next_try,) = re.findall(r"next_try=(\S+)", line)
    assert datetime.fromisoformat(next_try) > datetime.now(UTC) + timedelta(minutes=3)
    server.stop()
    orders = authority.orders
    server.start()
    waits = eventually(lambda: lines(server, "certificate_waits"), "it waits")
    assert f"until={next_try}" in waits[0]
    assert authority.orders == orders == 1
    account = kept(server, "account.json").read_text()
    authority.stop()  # and forgets the account
    authority.tls = int(elsewhere)
    authority.start()
    os.kill(server.pid, signal.SIGHUP)
    eventually(lambda: has_certificate(server), "it came", 60)
    assert served(int(elsewhere), authority.trusting())
    assert kept(server, "account.json").read_text().splitlines()[1] == account.splitlines()[1], "the key stays"


@pytest.mark.soak
def test_each_kind_of_challenge_is_tried_before_the_first_long_pause(
    authority: Authority, start: Callable[..., Server]
) -> None:
    authority.forget_names()
    server = start(authority, port=str(free_port()), redirect_port=str(authority.http))
    eventually(lambda: len(lines(server, "certificate_failed")) == 2, "both kinds failed")
    failed = lines(server, "certificate_failed")
    assert [re.findall(r"challenge=(\S+)", line) for line in failed] == [["http-01"], ["tls-alpn-01"]]
    (next_try,) = re.findall(r"next_try=(\S+)", failed[1])
    assert datetime.fromisoformat(next_try) > datetime.now(UTC) + timedelta(minutes=3)


@pytest.mark.soak
def test_another_server_at_the_port_is_recognized(authority: Authority, start: Callable[..., Server]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", authority.http), SimpleHTTPRequestHandler) as other:
        (answering := Thread(target=other.serve_forever)).start()
        try:
            server = start(authority, port=str(free_port()), redirect_port=str(free_port()))
            eventually(lambda: lines(server, "certificate_failed"), "the check failed")
        finally:
            other.shutdown()
            answering.join()
    line = lines(server, "certificate_failed")[0]
    assert re.search(r"challenge=http-01 code=(unauthorized|incorrectResponse)", line)
    assert "open TCP port 80" in line


def test_a_limit_of_the_authority_is_kept_over_restarts_and_signals(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    with limited(tmp_path) as (settings, asked):
        server = start_server(**settings, redirect_port="0")
        eventually(lambda: lines(server, "certificate_failed"), "it was refused")
        line = lines(server, "certificate_failed")[0]
        assert "code=rateLimited" in line
        assert "too many certificates already issued" in line
        assert "Restarts and SIGHUP change nothing" in line
        (next_try,) = re.findall(r"next_try=(\S+)", line)
        wait = datetime.fromisoformat(next_try) - datetime.now(UTC)
        assert timedelta(hours=29) < wait < timedelta(hours=31), "as long as its Retry-After says"
        orders = asked()
        server.stop()
        server.start()
        waits = eventually(lambda: lines(server, "certificate_waits"), "it waits")
        assert f"until={next_try}" in waits[0]
        os.kill(server.pid, signal.SIGHUP)
        assert server.get("/health")["status"] == "ok"
        assert asked() == orders


def test_the_authority_may_want_a_certificate_renewed_sooner(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """As after a mistake of its own (RFC 9773). The current one stays while it refuses."""
    with limited(tmp_path) as (settings, asked):
        put(tmp_path / "data", settings["acme_directory"], due_in(30 * 86_400))
        server = start_server(**settings, redirect_port="0", data_dir=str(tmp_path / "data"))
        line = eventually(lambda: lines(server, "certificate_failed"), "it was refused")[0]
    assert asked() == 1
    assert "code=rateLimited days_left=60.0" in line
    assert "level=WARNING logger=sfu.tls certificate_failed" in line


def test_a_data_folder_that_takes_no_files_costs_no_certificate(
    authority: Authority, start: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / FOLDER).write_text("in the way")
    server = start(authority, data_dir=str(tmp_path / "data"))
    eventually(lambda: lines(server, "certificate_failed"), "it cannot be kept")
    assert "code=storage" in lines(server, "certificate_failed")[0]
    assert authority.orders == 0
