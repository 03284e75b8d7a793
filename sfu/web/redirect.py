"""Plain http where the server speaks https: answers to a certificate authority, and redirects for everybody else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sfu.web.app import PROBLEM_TYPE, SECURITY_HEADERS, problem
from sfu.web.challenges import PATH, Challenges

HTTPS_PORT = 443


class Redirect:
    """An ASGI application. `domains` are the names that links shall have; if there are none, names stay as they are.

    `port` is the one that speaks https. A request that came in there keeps the port of its Host header, since that is
    the one that the client reaches.
    """

    def __init__(self, challenges: Challenges, domains: Sequence[str], port: int) -> None:
        self._challenges, self._domains, self._port = challenges, domains, port

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request; its body is not read. The Host header is valid, or missing."""
        path = scope["raw_path"].decode("latin1")
        host = next((value.decode("latin1") for name, value in scope["headers"] if name == b"host"), "")
        if path.startswith(PATH):
            answer = self._challenges.answers.get(path.removeprefix(PATH))
            status, body = (404, "") if answer is None else (200, answer)
            headers = {"Content-Type": "application/octet-stream"}
        elif location := self._location(host, scope["server"][1], path, scope["query_string"].decode("latin1")):
            status, body, headers = 308, "", {"Location": location, "Cache-Control": "no-cache"}
        else:
            status, body = 400, problem(400, "This server speaks https, and a request needs a Host header.")
            headers = {"Content-Type": PROBLEM_TYPE}
        fields = headers | {"Content-Length": str(len(body))} | SECURITY_HEADERS
        lines = [(name.lower().encode(), value.encode("latin1")) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": body.encode(), "more_body": False})

    def _location(self, host: str, came_in: int, path: str, query: str) -> str:
        """The same URL with https; empty without a host. An address, say, becomes one of the names."""
        name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        name, port = (name, port) if colon else (host, "")
        if came_in != self._port:
            port = str(self._port)
        if self._domains and name.lower() not in self._domains:
            name = self._domains[0]
        url = f"https://{name}" + (f":{port}" if port not in ("", str(HTTPS_PORT)) else "") + path
        return (url + f"?{query}" if query else url) if name else ""
