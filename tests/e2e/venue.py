"""A company of a server: its API, and people who come with a token."""

from __future__ import annotations

import itertools
import json
import urllib.request
from typing import Any

from people import Person
from support.process import Server, sfu
from support.waiting import eventually

_numbers = itertools.count(1)


def api(server: Server, key: str, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """The JSON of an answer, and its headers."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"{server.url}/api/v1{path}", data, headers, method=method)
    with urllib.request.urlopen(asked, timeout=5) as answer:
        text = answer.read()
        return json.loads(text) if text else None, answer.headers


class Venue:
    def __init__(self, server: Server) -> None:
        self.server = server
        self._name = f"Venue {next(_numbers)}"
        self._key = server.company(self._name)

    def api(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """The JSON of an answer, and its headers."""
        return api(self.server, self._key, method, path, body)

    def token(self, room: str, name: str, **wanted: Any) -> tuple[str, str]:
        """A token, and its path in the API."""
        issued, headers = self.api("POST", "/tokens", {"room_id": room, "user_name": name, **wanted})
        return issued["token"], "/" + headers["Location"]

    def opens(self, one: Person, token: str) -> None:
        one.page.goto(f"{self.server.url}/?token={token}&preview=off")

    def enters(self, one: Person, room: str, **wanted: Any) -> Person:
        self.opens(one, self.token(room, one.name, **wanted)[0])
        eventually(lambda: one.peer, f"{one.name} is in {room}")
        return one

    def is_active(self, active: bool) -> None:
        """Disables the company, or enables it."""
        done = sfu("company", "enable" if active else "disable", self._name, env=self.server.env)
        assert done.returncode == 0, done.stderr
