"""The doctor asks a STUN server how the outside sees this machine: a real one, Debian's coturn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.doctors import doctor
from support.process import environment, free_port
from support.turn import coturn


@pytest.fixture
def stun(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    env = environment(turn_urls=f"turn:127.0.0.1:{port}", turn_secret="north-by-northwest")
    with coturn(env, port, tmp_path):
        yield f"127.0.0.1:{port}"


async def test_the_address_that_the_outside_sees(stun: str) -> None:
    assert (await doctor("nat"))[0] == "skipped"
    assert await doctor("nat", stun=stun, host="127.0.0.1") == (
        "ok", "the outside sees 127.0.0.1, which is advertised", "",
    )  # fmt: skip
    status, text, fix = await doctor("nat", stun=stun, public_ip="203.0.113.9")
    assert (status, text) == ("note", "The outside sees 127.0.0.1, but SFU_PUBLIC_IP says 203.0.113.9.")
    assert "SFU_PUBLIC_IP=127.0.0.1" in fix


async def test_a_stun_server_that_is_not_there() -> None:
    status, text, _ = await doctor("nat", stun="127.0.0.1:9")
    assert status == "note"
    assert "127.0.0.1:9" in text
    assert (await doctor("nat", stun="stun.invalid"))[0] == "note"
