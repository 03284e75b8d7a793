"""The control socket: how commands such as `sfu rooms` talk to the running server of their settings.

It is a Unix socket in SFU_DATA_DIR that only the server's user and root can use. A connection carries one request. The
server says `Hello`; the command sends a `Request`; the server answers with any number of `Progress` and then with one
`Result` or `Failure`. Each is a JSON object on a line of its own.

To add a command, register a handler in the server, before `Control.run`:

    class Kick(msgspec.Struct, forbid_unknown_fields=True):
        room: str
        name: str

    async def kick(asked: Kick, call: Call) -> object:
        ...
        return {"removed": 1}

    control.add("kick", Kick, kick)

and ask for it in the command: `await ask(config, "kick", room="team", name="Eve")`. The arguments are decoded into the
struct, so a handler gets valid types. It returns what msgspec can encode as JSON. An SfuError that it raises reaches
the command as `Declined`, with its code and its sentence; any other exception is logged and ends that request only. A
handler is cancelled if its command ends, as by Ctrl-C. One that takes longer than ANSWER_S calls `call.tell` meanwhile.
`call.by` and `call.client` are for the audit log.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import trio

from sfu import __version__, logs
from sfu.errors import ConfigError, SfuError
from sfu.operator import unix_socket
from sfu.operator.unix_socket import NoServer as NoServer
from sfu.process import users
from sfu.refusals import Refusal
from sfu.settings.config import Config

log = logging.getLogger("sfu.control")

PROTOCOL = 1
"""Increases when an older command could not read a newer server's answers, or the other way round."""
SOCKET = "control.sock"
CONNECTIONS = 16
"""Most requests at the same time."""
REQUEST_BYTES, ANSWER_BYTES = 1 << 16, 1 << 26
"""Longest line of a request and of an answer."""
REQUEST_S = 5.0
"""Timeout for a request, and for the server's Hello."""
SEND_S = 30.0
"""Timeout for one line of an answer that the command does not read."""
ANSWER_S = 60.0
"""How long a command waits for the next line."""

A = TypeVar("A")


class Hello(msgspec.Struct, tag="hello"):
    protocol: int
    version: str


class Request(msgspec.Struct, tag="request"):
    """`by` is the user who asks, `client` the address of that user's ssh connection."""

    command: str
    arguments: dict[str, Any] = {}
    by: str = ""
    client: str = ""


class Progress(msgspec.Struct, tag="progress"):
    value: Any


class Result(msgspec.Struct, tag="result"):
    value: Any


class Failure(msgspec.Struct, tag="failure"):
    code: str
    message: str


Answer = Progress | Result | Failure


class Declined(Refusal):
    """The running server declined a request. `code` is that of the server's error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Call:
    """One request, as its handler sees it: who asks, and how to report progress."""

    def __init__(self, request: Request, lines: _Lines) -> None:
        self.by, self.client = request.by, request.client
        self._lines = lines

    async def tell(self, progress: object) -> None:
        """Sends one message of progress, which the command's `told` gets."""
        await self._lines.send(Progress(progress))


class _Handler(msgspec.Struct, Generic[A], frozen=True):
    arguments: type[A]
    handle: Callable[[A, Call], Awaitable[object]]


class Control:
    """The server's end. `folder` is SFU_DATA_DIR."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handlers: dict[str, _Handler[Any]] = {}
        self._open = 0

    def add(self, command: str, arguments: type[A], handle: Callable[[A, Call], Awaitable[object]]) -> None:
        """Registers the handler of a command, whose arguments are decoded into the msgspec struct `arguments`."""
        if command in self._handlers:
            raise ValueError(f"the control socket has a handler for {command!r} already")
        self._handlers[command] = _Handler(arguments, handle)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answers requests until cancelled. If the file system has no sockets, or another server runs there, it warns
        and the server runs without."""
        path = self._folder / SOCKET
        with contextlib.ExitStack() as stack:
            try:
                listener = stack.enter_context(unix_socket.listening(path, CONNECTIONS))
            except OSError as error:
                log.warning("control_off path=%s reason=%r", path, str(error))
                listener = None
            task_status.started()
            if listener is not None:
                await self._listen(listener)

    async def _listen(self, listener: trio.SocketListener) -> None:
        """Raises only Cancelled."""
        try:
            await trio.serve_listeners(self._serve, [listener])
        except Exception:
            log.exception("control_off")

    async def _serve(self, stream: trio.SocketStream) -> None:
        lines = _Lines(stream, REQUEST_BYTES)
        self._open += 1
        try:
            async with stream:
                await lines.send(Hello(PROTOCOL, __version__))
                if self._open > CONNECTIONS:
                    await lines.send(Failure("busy", f"The server has {CONNECTIONS} requests of commands already."))
                else:
                    await self._converse(lines)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass  # the command ended, or does not read
        except* Exception:
            log.exception("control_failed")
        finally:
            self._open -= 1

    async def _converse(self, lines: _Lines) -> None:
        """Reads one request and answers it."""
        try:
            with trio.fail_after(REQUEST_S):
                line = await lines.receive()
            request = msgspec.json.decode(line, type=Request)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            await lines.send(Failure("bad_request", f"The request is not valid: {error}."))
            return
        answer: bytes | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at_end, lines, nursery.cancel_scope)
            answer = await self._answer(request, Call(request, lines))
            nursery.cancel_scope.cancel()
        if answer is not None:
            await lines.send_line(answer)

    async def _answer(self, request: Request, call: Call) -> bytes:
        """The encoded answer. Raises only what the connection raises."""
        handler = self._handlers.get(request.command)
        if handler is None:
            return _encode(Failure("unknown_command", f"Version {__version__} has no command {request.command!r}."))
        try:
            arguments = msgspec.convert(request.arguments, handler.arguments)
        except msgspec.ValidationError as error:
            return _encode(Failure("bad_arguments", f"The arguments of {request.command!r} are not valid: {error}."))
        try:
            return _encode(Result(await handler.handle(arguments, call)))
        except SfuError as error:
            return _encode(Failure(error.code, str(error)))
        except (trio.BrokenResourceError, trio.TooSlowError):  # of `call.tell`
            raise
        except Exception:
            log.exception("control_failed command=%s", request.command)
            return _encode(Failure(SfuError.code, "The command failed in the server. The server's log has the reason."))


async def ask(
    config: Config, command: str, /, *, told: Callable[[Any], None] = lambda progress: None, **arguments: object
) -> Any:
    """The running server's answer to a command, as JSON values. `told` gets each message of progress.

    Raises NoServer, ConfigError if the server cannot be asked, or Declined if it declines.
    """
    path = config.data_dir / SOCKET
    async with unix_socket.connect(path) as stream:
        lines = _Lines(stream, ANSWER_BYTES)
        try:
            with trio.fail_after(REQUEST_S):
                _check(msgspec.json.decode(await lines.receive(), type=Hello), path)
                with contextlib.suppress(trio.BrokenResourceError):  # it may have failed without a request
                    await lines.send(Request(command, arguments, users.caller(), users.caller_address()))
            while True:
                with trio.fail_after(ANSWER_S):
                    answer = msgspec.json.decode(await lines.receive(), type=Answer)
                match answer:
                    case Progress(value):
                        told(value)
                    case Result(value):
                        return value
                    case Failure(code, message):
                        raise Declined(code, message)
        except trio.TooSlowError:
            raise ConfigError(f"The server at {path} does not answer. Its log may say why.") from None
        except (msgspec.MsgspecError, UnicodeError):
            raise ConfigError(f"What listens at {path} is no server of this kind, or a newer one.") from None
        except trio.BrokenResourceError:
            raise ConfigError(f"The server at {path} ended before it answered.") from None


def _check(hello: Hello, path: Path) -> None:
    """Raises ConfigError if this command cannot talk to the server; warns if the versions differ."""
    if hello.protocol != PROTOCOL:
        raise ConfigError(
            f"The server at {path} is version {hello.version}, this command is version {__version__}, and these two "
            "cannot talk to each other. Restart the server, so that it is the same version, or use its own command."
        )
    if hello.version != __version__:
        logs.say(
            f"sfu: the running server is version {hello.version}, this command is version {__version__}: "
            "it was upgraded and not restarted since.",
            logging.WARNING,
        )


class _Lines:
    """Lines of JSON over a stream. `most_bytes` is the longest line that is received."""

    def __init__(self, stream: trio.SocketStream, most_bytes: int) -> None:
        self._stream, self._most_bytes = stream, most_bytes
        self._received = bytearray()

    async def send(self, message: msgspec.Struct) -> None:
        await self.send_line(_encode(message))

    async def send_line(self, line: bytes) -> None:
        """Raises BrokenResourceError, or TooSlowError if the other end does not read."""
        with trio.fail_after(SEND_S):
            await self._stream.send_all(line + b"\n")

    async def receive(self) -> bytes:
        """The next line. Raises BrokenResourceError at the end, or MsgspecError if it is too long."""
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > self._most_bytes:
                raise msgspec.DecodeError(f"it is longer than {self._most_bytes} bytes")
            if not (part := await self._stream.receive_some(65536)):
                raise trio.BrokenResourceError
            self._received += part
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    async def wait_for_end(self) -> None:
        """Waits until the other end closes the connection, and drops what it sends."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while await self._stream.receive_some(65536):
                pass


async def _cancel_at_end(lines: _Lines, scope: trio.CancelScope) -> None:
    await lines.wait_for_end()
    scope.cancel()


def _encode(message: msgspec.Struct) -> bytes:
    return msgspec.json.encode(message)
