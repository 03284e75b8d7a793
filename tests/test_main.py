"""The `sfu` command as a process: what it prints, how it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.process import ROOT, Server, environment, free_port, run, sfu, workers
from support.rest_client import request
from support.waiting import eventually
from support.wire import joined

from sfu import __version__
from sfu.__main__ import COMMANDS
from sfu.settings.config import settings

LOG_LINE = re.compile(r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=[A-Z]+ logger=sfu\S* \S")

UPGRADE = (
    b"GET /ws?room=team&username=mute HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def test_version() -> None:
    done = run("-m", "sfu", "--version")  # which other tests fork instead
    assert (done.returncode, done.stdout) == (0, f"sfu {__version__}\n")


@pytest.mark.parametrize("arguments", [("--help",), ("serve", "--help")])
def test_help_lists_every_setting(arguments: tuple[str, ...]) -> None:
    done = sfu(*arguments, env=environment() | {"COLUMNS": "220"})
    assert done.returncode == 0
    for setting in settings():
        default = f"{setting.default} {setting.unit}".strip()
        row = rf"^  {setting.variable} +{re.escape(f'{setting.help} [{default}]')}$"
        assert re.search(row, done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "wrong", "words"),
    [
        ((), {"port": "banana"}, "SFU_PORT='banana' is not accepted: it must be a whole number from 1 to 65535."),
        ((), {"limits": "off", "host": "*"}, "SFU_LIMITS=off is not accepted while SFU_HOST is '*'"),
        (("--self-signed",), {"tls_cert": __file__, "tls_key": __file__}, "--self-signed and SFU_TLS_CERT exclude"),
        ((), {"tls_cert": __file__, "tls_key": __file__}, f"SFU_TLS_CERT={__file__!r}"),
        (("--self-signed",), {"tls_domain": "meet.example.org"}, "--self-signed and SFU_TLS_DOMAIN exclude"),
        ((), {"redirect_port": "8081"}, "SFU_REDIRECT_PORT needs https"),
    ],
)
def test_a_wrong_setting_is_one_line_and_status_2(options: tuple[str, ...], wrong: dict[str, str], words: str) -> None:
    done = sfu("serve", *options, env=environment(**{"host": "127.0.0.1", "port": str(free_port())} | wrong))
    assert (done.returncode, done.stdout) == (2, "")
    refusals = [line for line in done.stderr.splitlines() if not LOG_LINE.match(line)]
    assert len(refusals) == 1
    assert refusals[0].startswith(f"sfu: {words}")


def test_a_database_that_is_away_has_a_status_of_its_own() -> None:
    """The service is started again then, and not after what status 2 stands for."""
    url = f"postgresql://sfu:secret@127.0.0.1:{free_port()}/sfu"
    done = sfu("serve", env=environment(host="127.0.0.1", port=str(free_port()), database_url=url))
    assert done.returncode == 3
    assert "SFU_DATABASE_URL" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [(), ("dance",), ("serve", "--fast")])
def test_a_wrong_command_line_is_refused(arguments: tuple[str, ...]) -> None:
    done = sfu(*arguments)
    assert done.returncode == 2
    assert "usage: sfu" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_without_a_database_does_not_wait_for_its_modules() -> None:
    done = run("-X", "importtime", "-m", "sfu", "--help")
    assert done.returncode == 0
    assert not re.findall(r"\| +((?:sqlalchemy|databases|quart|hypercorn)\S*)", done.stderr)


def test_a_reader_that_has_enough_is_no_error() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "sfu", "completion", "bash"]
    with open(theirs, "wb") as closed:
        done = subprocess.run(command, cwd=ROOT, env=environment(), stdout=closed, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_manual_and_explains_itself(command: Any) -> None:
    assert f"sfu {command.NAME}" in (ROOT / "docs" / "operating.md").read_text()
    done = sfu(command.NAME, "--help")
    assert done.returncode == 0
    assert command.DESCRIPTION[:20] in done.stdout


def test_optimised_python_is_refused() -> None:
    done = run("-O", "-m", "sfu", "serve")
    assert done.returncode == 2
    assert done.stderr.startswith("sfu: Python's -O")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_taken_port_is_named(kind: socket.SocketKind) -> None:
    with socket.socket(type=kind) as taken:
        port = free_port()
        taken.bind(("127.0.0.1", port))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        done = sfu("serve", env=environment(host="127.0.0.1", port=str(port)))
    assert done.returncode == 2
    refusal = done.stderr.splitlines()[-1]
    assert refusal.startswith("sfu: ")
    assert str(port) in refusal
    assert "SFU_PORT" in refusal
    assert "Traceback" not in done.stderr


def test_start_says_where_and_ends_in_order(server: Server) -> None:
    lines = server.output
    assert f"sfu {__version__} is ready." in lines
    assert f"http://localhost:{server.port}\n" in lines
    assert f"TCP {server.port} and UDP {server.port}\n" in lines
    assert "Media   at 127.0.0.1 (lo)\n" in lines
    assert "Note" not in lines
    assert server.stop() == 0
    assert "level=ERROR" not in server.output
    logged = [line for line in server.output.splitlines() if line.startswith("time=")]
    assert logged
    assert all(LOG_LINE.match(line) for line in logged)


def test_the_start_says_that_only_this_network_reaches_a_private_address(start_server: Callable[..., Server]) -> None:
    private = "  private: only people in this network reach it; for others set SFU_PUBLIC_IP to the public address"
    for address, said in (("192.168.7.5", True), ("203.0.113.9", False), ("192.168.7.5,203.0.113.9", False)):
        server = start_server(public_ip=address)
        assert (f"{private}, or SFU_STUN" in server.output) == said, address
        server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each media process has a port")
def test_one_port_is_enough_and_one_servers_only(start_server: Callable[..., Server]) -> None:
    server = start_server(workers="3")
    assert f"TCP {server.port} and UDP {server.port}\n" in server.output
    processes = workers(server.pid)
    sockets = [sock for process in processes for sock in process.net_connections("udp")]
    assert [sock.laddr.port for sock in sockets] == [server.port] * 3
    second = sfu("serve", env=server.env)
    assert second.returncode == 2
    assert f"TCP port {server.port} is in use" in second.stderr
    for process in processes:
        process.kill()
    eventually(lambda: len({p.pid for p in workers(server.pid)} - {p.pid for p in processes}) == 3, "others")
    eventually(
        lambda: len([sock for p in workers(server.pid) for sock in p.net_connections("udp")]) == 3, "they listen again"
    )


def test_a_start_on_a_port_in_use_touches_no_database(tmp_path: Path) -> None:
    """An older release may be running there, and could not use the database once it is upgraded."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = sfu("serve", env=environment(host="127.0.0.1", port=str(port), data_dir=str(tmp_path / "data")))
    assert done.returncode == 2
    assert f"SFU_PORT: TCP port {port} is in use." in done.stderr
    assert not (tmp_path / "data" / "sfu.db").exists()


def test_self_signed_is_https_and_says_so(start_server: Callable[..., Server]) -> None:
    server = start_server("--self-signed")
    assert f"https://localhost:{server.port}\n" in server.output
    assert "The certificate is new at every start" in server.output
    assert server.stop() == 0


def test_listening_everywhere_names_each_address_and_the_need_of_https(start_server: Callable[..., Server]) -> None:
    server = start_server(host="*", public_ip="127.0.0.1,192.0.2.7,2001:db8::7")
    for host in ("localhost", "192.0.2.7", "[2001:db8::7]"):
        assert f"http://{host}:{server.port}\n" in server.output
    assert "sfu serve --self-signed" in server.output


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--env-fiel", "sfu.env", "serve"), "--env-fiel. Did you mean --env-file?"),
        (("company", "--env-fiel=sfu.env", "list"), "--env-fiel. Did you mean --env-file?"),
        (("company", "list", "--xyzzy", "json"), "--xyzzy"),
        (("serve", "-p", "8080"), "-p"),
    ],
)
def test_an_unknown_option_is_named_and_not_its_value(arguments: tuple[str, ...], named: str) -> None:
    done = sfu(*arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"sfu: error: unknown option {named}"


def test_the_commands_that_it_names_can_be_typed() -> None:
    """Whoever starts it from a virtual environment has none of the name. Without its folder, the command would work on
    another database."""
    program = Path(sys.executable).with_name("sfu")
    server = Server(program=(str(program),))
    server.env["PATH"] = os.defpath
    try:
        server.start()
        named = program.relative_to(ROOT) if program.is_relative_to(ROOT) else program
        assert (
            f"  API key SFU_DATA_DIR={server.data.name} {named} company rotate-key default   shows one" in server.output
        )
    finally:
        server.close()


def test_a_service_names_commands_by_their_whole_path() -> None:
    """It starts in `/`, unlike the shell of whoever reads its log."""
    program = Path(sys.executable).with_name("sfu")
    server = Server(program=(str(program),), folder=Path("/"))
    server.env["PATH"] = os.defpath
    try:
        server.start()
        assert (
            f"  API key SFU_DATA_DIR={server.data.name} {program} company rotate-key default   shows one"
            in server.output
        )
    finally:
        server.close()


def test_the_commands_that_it_names_read_its_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "my sfu.env"
    file.write_text("SFU_HOST=*\n")
    server = Server("--env-file", str(file), public_ip="127.0.0.1,192.0.2.7")
    del server.env["SFU_HOST"]
    try:
        server.start()
        assert f"serve --self-signed --env-file '{file}'\n" in server.output
        assert f"company rotate-key default --env-file '{file}'   shows one" in server.output
    finally:
        server.close()


def test_unknown_settings_warn_and_do_not_stop_the_start(start_server: Callable[..., Server]) -> None:
    server = start_server(max_peer="5", colour="blue")
    for warning in ("MAX_PEER is not a setting and is ignored. Did you mean SFU_MAX_PEERS?", "COLOUR is not a setting"):
        assert f"level=WARNING logger=sfu SFU_{warning}" in server.output


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_its_workers(server: Server, signum: signal.Signals) -> None:
    children = workers(server.pid)
    assert children
    assert server.stop(signum) == 0
    assert psutil.wait_procs(children, timeout=5)[1] == []


def test_lines_in_the_journal_have_priorities() -> None:
    """Of the server and its media workers. For systemd, standard error is the journal if the environment names it."""
    server = Server(log_level="debug")
    try:
        server.env["JOURNAL_STREAM"] = server.output_stream
        server.start()
        assert server.stop() == 0
        lines = re.findall(r"^(.*?)time=\S+ level=(\S+) logger=(sfu(?:\.media)?)", server.output, re.MULTILINE)
    finally:
        server.close()
    assert {("<7>", "DEBUG", "sfu.media"), ("<6>", "INFO", "sfu")} <= set(lines)
    assert {prefix for prefix, *_ in lines} == {"<6>", "<7>"}


async def test_the_log_is_json_if_asked_for(start_server: Callable[..., Server]) -> None:
    """Of the server and its media workers, with one request id for what belongs to one request."""
    server = start_server(log_format="json", log_level="debug")
    async with joined(server.url, "alice"):
        pass
    refused = await request(server.port, "GET", "/api/v1/rooms", {"Host": "localhost", "Connection": "close"})
    request_id = refused.headers["x-request-id"]
    assert server.stop() == 0
    lines = [json.loads(text) for text in server.output.splitlines() if text.startswith("{")]
    assert "time=" not in server.output
    assert {"sfu", "sfu.media", "sfu.calls"} <= {one["logger"] for one in lines}
    entered, left = ([one for one in lines if one.get("event") == event] for event in ("joined", "left"))
    for name in ("room", "peer", "name", "session", "request_id"):
        assert entered[0][name] == left[0][name]
    assert entered[0]["name"] == "alice"
    assert [one["reason"] for one in lines if one.get("request_id") == request_id] == ["api_key_missing"]


def test_warnings_and_refusals_at_the_start_have_priorities_in_the_journal() -> None:
    server = Server(max_peer="5", last_n="banana")
    try:
        server.env["JOURNAL_STREAM"] = server.output_stream
        with pytest.raises(AssertionError, match="ended with status 2"):
            server.start()
        assert "<3>sfu: SFU_LAST_N='banana' is not accepted" in server.output
        del server.env["SFU_LAST_N"]
        server.process = None
        server.start()
        assert re.search("^<4>time=.* level=WARNING logger=sfu SFU_MAX_PEER is not", server.output, re.MULTILINE)
    finally:
        server.close()


def test_the_log_level_holds_for_media_workers(start_server: Callable[..., Server]) -> None:
    server = start_server(log_level="debug")
    eventually(lambda: "level=DEBUG logger=sfu.media" in server.output, "a worker logs at this level")
    assert all(line.startswith("time=") for line in server.output.splitlines() if " level=" in f" {line}")


def test_a_media_worker_has_no_secret_and_no_file_of_the_server(
    start_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of ours nor of whoever else put one into the environment."""
    names = ("AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "DATABASE_URL", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET")
    for name in names:
        monkeypatch.setenv(name, "a secret")
    monkeypatch.setenv("LC_TIME", "C.UTF-8")
    turn = {"turn_urls": "turn:turn.example.org", "turn_secret": "11" * 32}
    started = (sys.executable, "-m", "sfu")  # none is forked, which would have what this process has
    server = start_server(program=started, server_key="00" * 32, allow_anonymous="off", log_level="warning", **turn)
    assert server.env.keys() > {*names, "SFU_SERVER_KEY", "SFU_TURN_SECRET"}

    def data(process: psutil.Process) -> list[str]:
        return [file.path for file in process.open_files() if file.path.startswith(server.data.name)]

    assert data(psutil.Process(server.pid))
    for worker in workers(server.pid):
        found = worker.environ()
        allowed = ("LC_", "LD_", "PYTHON", "MALLOC_")
        rest = {name for name in found if not name.startswith(allowed)}
        assert rest <= {"PATH", "HOME", "TMPDIR", "TZ", "LANG", "GLIBC_TUNABLES", "OPENSSL_CONF", "SFU_LOG_LEVEL"}
        assert (found["LC_TIME"], found["SFU_LOG_LEVEL"]) == ("C.UTF-8", "warning")
        for secret in ("00" * 32, "11" * 32):
            assert secret not in " ".join([*worker.cmdline(), *found.values()])
        assert data(worker) == []
        assert [one for one in worker.net_connections("tcp") if one.status == psutil.CONN_LISTEN] == []


def test_a_killed_server_leaves_no_worker(server: Server) -> None:
    children = workers(server.pid)
    assert children
    server.kill()
    assert psutil.wait_procs(children, timeout=5)[1] == []


def test_a_signal_during_the_start_ends_it() -> None:
    command = [sys.executable, "-m", "sfu", "serve"]
    env = environment(host="127.0.0.1", port=str(free_port()), log_level="debug")
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        eventually(lambda: workers(process.pid), "a worker starts")
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=15)
    assert process.returncode == 0, output
    assert b"Traceback" not in output[1]


@pytest.mark.parametrize(("drain_s", "first"), [("0", "stopping"), ("600", "draining")])
def test_the_second_signal_ends_it_at_once(start_server: Callable[..., Server], drain_s: str, first: str) -> None:
    """Also where somebody delays an end in order."""
    server = start_server(drain_s=drain_s)
    with socket.create_connection(("127.0.0.1", server.port)) as mute:
        mute.sendall(UPGRADE)  # and never answers a close frame, so that an end in order takes seconds
        eventually(lambda: server.get("/health")["peers"] == 1, "the peer is in")
        psutil.Process(server.pid).terminate()
        eventually(lambda: f"{first} signal=SIGTERM" in server.output, "the first signal is seen")
        assert server.stop(signal.SIGINT) == 128 + signal.SIGINT


def test_open_files_are_raised() -> None:
    script = """
import resource
from sfu.__main__ import _raise_open_files
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
_raise_open_files()
soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
assert soft == 65536 or soft == hard, (soft, hard)
"""
    done = run("-c", script)
    assert (done.returncode, done.stderr) == (0, "")
