"""The codes of the problems that the REST API answers with, for its description. Pure."""

from __future__ import annotations

from typing import Any

from sfu import refusals as shared
from sfu.api import refusals as own
from sfu.errors import BadRequest, SfuError
from sfu.refusals import Refusal, TokenError

_OF_CALLS: frozenset[type[Refusal]] = frozenset(
    {
        *(shared.TooManyJoins, shared.TokenRequired, shared.SessionUnknown),
        *(shared.FilesOff, shared.FileTooLarge, shared.FileLate, shared.FilesFull, shared.FileNotFound),
    }
)
"""What only those get who join a call or share a file in it."""
_OF_HTTP = {
    "not_found": (404, "There is nothing at this address."),
    "method_not_allowed": (405, "The address does not take this method; `Allow` lists those that it takes."),
    "body_too_large": (413, "The body is larger than the server allows."),
    "head_too_large": (431, "The head of the request is larger than the server allows."),
}
"""Codes that have no class, with their status."""


def codes() -> dict[str, dict[str, Any]]:
    """`status` and `description` of every code, by the code, in the order of the statuses."""
    found: dict[str, dict[str, Any]] = {
        code: {"status": status, "description": text} for code, (status, text) in _OF_HTTP.items()
    }
    classes: list[type[SfuError]] = [SfuError, BadRequest, *_refusals()]
    for one in classes:
        found[one.code] = {"status": one.status, "description": _meaning(one)}
    return dict(sorted(found.items(), key=lambda item: (item[1]["status"], item[0])))


def _refusals() -> list[type[Refusal]]:
    every = [*vars(shared).values(), *vars(own).values()]
    found = [one for one in every if isinstance(one, type) and issubclass(one, Refusal)]
    return [one for one in found if one is not Refusal and one not in _OF_CALLS]


def _meaning(one: type[SfuError]) -> str:
    return f"{one.default} {one.advice}" if issubclass(one, TokenError) else one.default
