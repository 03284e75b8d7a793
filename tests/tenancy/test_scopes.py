"""Scopes: each allows its own, and admin all."""

from __future__ import annotations

from sfu.tenancy.scopes import SCOPES, allows


def test_a_scope_allows_itself_and_admin_allows_all() -> None:
    for scope in SCOPES:
        assert [allowed for allowed in SCOPES if allows([scope], allowed)] == (
            list(SCOPES) if scope == "admin" else [scope]
        )
        assert not allows([], scope)
    assert allows(["rooms:read", "rooms:write"], "rooms:write")
