"""The control socket: requests of commands, their answers, and what the server withstands."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from sfu.errors import ConfigError
from sfu.operator import control as module
from sfu.operator.control import CONNECTIONS, REQUEST_BYTES, Call, Control, Declined, NoServer, ask
from sfu.process import users
from sfu.refusals import RoomNotFound
from sfu.settings.config import Config


class Said(msgspec.Struct, forbid_unknown_fields=True):
    text: str = ""
    times: int = 1


class Handlers:
    """Of the tests. `held` is what `hold` waits for; `cancelled` is set when a handler of it was."""

    def __init__(self) -> None:
        self.held, self.holding, self.cancelled = trio.Event(), trio.Event(), trio.Event()

    async def say(self, said: Said, call: Call) -> object:
        return {"said": said.text * said.times, "by": call.by}

    async def count(self, said: Said, call: Call) -> object:
        for number in range(said.times):
            await call.tell({"at": number})
        return said.times

    async def refuse(self, _said: Said, _call: Call) -> object:
        raise RoomNotFound

    async def fail(self, said: Said, _call: Call) -> object:
        if said.text == "answer":
            return object()
        raise ZeroDivisionError

    async def hold(self, _said: Said, call: Call) -> object:
        self.holding.set()
        try:
            await self.held.wait()
        except trio.Cancelled:
            self.cancelled.set()
            raise
        return "held"


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_dir=tmp_path)


@pytest.fixture
async def control(config: Config, handlers: Handlers, nursery: trio.Nursery) -> AsyncIterator[Control]:
    server = Control(config.data_dir)
    for name in ("say", "count", "refuse", "fail", "hold"):
        server.add(name, Said, getattr(handlers, name))
    await nursery.start(server.run)
    yield server
    nursery.cancel_scope.cancel()


async def sent(config: Config, data: bytes) -> list[Any]:
    """What the server sends to these bytes, until it closes."""
    stream = await trio.open_unix_socket(config.data_dir / "control.sock")
    async with stream:
        with trio.fail_after(20):
            await stream.send_all(data)
            answer = b"".join([part async for part in stream])
    return [json.loads(line) for line in answer.splitlines()]


async def test_a_handler_answers_with_what_was_asked(control: Control, config: Config) -> None:
    assert await ask(config, "say", text="ha", times=3) == {"said": "hahaha", "by": users.caller()}


async def test_progress_comes_before_the_answer(control: Control, config: Config) -> None:
    told: list[Any] = []
    assert await ask(config, "count", told=told.append, times=3) == 3
    assert told == [{"at": 0}, {"at": 1}, {"at": 2}]


async def test_a_refusal_keeps_its_code(control: Control, config: Config) -> None:
    with pytest.raises(Declined, match="There is no such room") as declined:
        await ask(config, "refuse")
    assert declined.value.code == "room_not_found"


@pytest.mark.parametrize("text", ["raise", "answer"])
async def test_a_bug_in_a_handler_ends_one_request(
    control: Control, config: Config, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Declined, match="The server's log has the reason") as declined:
        await ask(config, "fail", text=text)
    assert declined.value.code == "internal"
    assert "control_failed command=fail" in caplog.text
    assert (await ask(config, "say", text="works"))["said"] == "works"


@pytest.mark.parametrize(
    ("command", "arguments", "code", "words"),
    [
        ("dance", {}, "unknown_command", "has no command 'dance'"),
        ("say", {"text": 1}, "bad_arguments", r"Expected `str`, got `int` - at `\$.text`"),
        ("say", {"tune": "x"}, "bad_arguments", "unknown field `tune`"),
    ],
)
async def test_what_it_does_not_know_is_declined(
    control: Control, config: Config, command: str, arguments: dict[str, Any], code: str, words: str
) -> None:
    with pytest.raises(Declined, match=words) as declined:
        await ask(config, command, **arguments)
    assert declined.value.code == code


@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"hello\n",
        b"[]\n",
        b'{"type":"request"}\n',
        b"\xff\n",
        b"[" * 5000 + b"\n",
        b'{"a":' * 5000 + b"\n",
        b"x" * 2 * REQUEST_BYTES,
    ],
)
async def test_what_is_no_request_gets_a_failure(control: Control, config: Config, data: bytes) -> None:
    hello, failure = await sent(config, data)
    assert hello["type"] == "hello"
    assert (failure["type"], failure["code"]) == ("failure", "bad_request")
    assert (await ask(config, "say", text="works"))["said"] == "works"


async def test_whoever_sends_nothing_is_let_go(
    control: Control, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_S", 0.05)
    assert [one["type"] for one in await sent(config, b'{"type":')] == ["hello"]


async def test_requests_have_a_limit(
    control: Control, config: Config, handlers: Handlers, nursery: trio.Nursery
) -> None:
    async with trio.open_nursery() as waiting:
        streams = [await trio.open_unix_socket(config.data_dir / "control.sock") for _ in range(CONNECTIONS)]
        for stream in streams:
            assert b"hello" in await stream.receive_some()
        with pytest.raises(Declined, match=f"has {CONNECTIONS} requests"):
            await ask(config, "say")
        for stream in streams:
            await stream.aclose()
        with trio.fail_after(20):
            while True:
                try:
                    assert (await ask(config, "say", text="works"))["said"] == "works"
                    break
                except Declined:
                    await trio.sleep(0.01)
        waiting.cancel_scope.cancel()


async def test_a_handler_ends_with_its_command(control: Control, config: Config, handlers: Handlers) -> None:
    async with trio.open_nursery() as commands:
        commands.start_soon(ask, config, "hold")
        await handlers.holding.wait()
        assert not handlers.cancelled.is_set()
        commands.cancel_scope.cancel()
    with trio.fail_after(20):
        await handlers.cancelled.wait()


async def test_a_server_that_stops_says_so_to_no_command_in_vain(
    config: Config, handlers: Handlers, nursery: trio.Nursery
) -> None:
    server = Control(config.data_dir)
    server.add("hold", Said, handlers.hold)
    with pytest.RaisesGroup(pytest.RaisesExc(ConfigError, match="ended before it answered")):
        async with trio.open_nursery() as commands, trio.open_nursery() as serving:
            await serving.start(server.run)
            commands.start_soon(ask, config, "hold")
            await handlers.holding.wait()
            serving.cancel_scope.cancel()
    with pytest.raises(NoServer):
        await ask(config, "hold")


async def test_a_second_server_runs_without_and_says_so(
    control: Control, config: Config, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    await nursery.start(Control(config.data_dir).run)
    assert "control_off" in caplog.text
    assert "another server uses this folder" in caplog.text
    assert (await ask(config, "say", text="mine"))["said"] == "mine"


def test_a_name_has_one_handler(config: Config) -> None:
    control, handlers = Control(config.data_dir), Handlers()
    control.add("say", Said, handlers.say)
    with pytest.raises(ValueError, match="'say' already"):
        control.add("say", Said, handlers.count)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"type":"hello","protocol":99,"version":"9.9"}\n', "is version 9.9, this command is version .* Restart"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is no server of this kind"),
        (b"", "ended before it answered"),
    ],
)
async def test_another_server_is_said(config: Config, nursery: trio.Nursery, line: bytes, words: str) -> None:
    async def greet(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(line)

    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(config.data_dir / "control.sock"))
        sock.listen()
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        nursery.start_soon(trio.serve_listeners, greet, [listener])
        with pytest.raises(ConfigError, match=words):
            await ask(config, "say")
        nursery.cancel_scope.cancel()


async def test_an_upgrade_without_a_restart_is_said(
    control: Control, config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        module,
        "_check",
        lambda hello, path, check=module._check: check(msgspec.structs.replace(hello, version="0.0.9"), path),
    )
    assert (await ask(config, "say", text="works"))["said"] == "works"
    assert "the running server is version 0.0.9, this command is version" in capsys.readouterr().err


async def test_a_server_that_hangs_is_said(control: Control, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.05)
    with pytest.raises(ConfigError, match="does not answer"):
        await ask(config, "hold")
