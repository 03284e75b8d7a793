"""One HTTP request over a real socket, and its answer."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from typing import Any

import h11
import trio

DEADLINE_S = 20.0


@dataclass
class Reply:
    """Header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of a problem, which every refusal must be."""
        assert self.headers["content-type"] == "application/problem+json", (self.status, self.body)
        assert self.json["status"] == self.status
        return str(self.json["code"])


async def request(
    port: int, method: str, target: str, headers: dict[str, str], body: bytes = b"", tls: ssl.SSLContext | None = None
) -> Reply:
    client = h11.Connection(h11.CLIENT)
    data = client.send(h11.Request(method=method, target=target, headers=list(headers.items()))) or b""
    if body:
        data += client.send(h11.Data(data=body)) or b""
    data += client.send(h11.EndOfMessage()) or b""
    stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", port)
    if tls is not None:
        stream = trio.SSLStream(stream, tls, https_compatible=True)
    async with stream:
        with trio.fail_after(DEADLINE_S):
            await stream.send_all(data)
            answer = b"".join([part async for part in stream])
    client.receive_data(answer)
    client.receive_data(b"")
    response, content = client.next_event(), b""
    assert isinstance(response, h11.Response)
    while isinstance(event := client.next_event(), h11.Data):
        content += bytes(event.data)
    return Reply(response.status_code, {k.decode(): v.decode() for k, v in response.headers}, content)
