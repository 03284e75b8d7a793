"""How a call goes is told as it is, with real browsers on a network that loses packets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from people import Person
from support.process import Server
from support.relay import HOST, Relay, Shape
from support.waiting import eventually

People = Callable[..., Person]


def quality(one: Person) -> dict[str, Any]:
    found: dict[str, Any] = one.page.evaluate("window.room.quality ?? {}")
    return found


def cause(one: Person) -> tuple[str, str] | None:
    found = quality(one).get("cause")
    return None if found is None else (found["kind"], found["peer"])


def test_the_lossy_leg_is_named(start_server: Callable[..., Server], person: People) -> None:
    server = start_server(public_ip=HOST)
    with Relay(server.port) as relay:
        alice, bob = person(server, "alice").join("team"), person(server, "bob").join("team")
        bob.sees(alice)
        alice.sees(bob)
        relay.shape("down", Shape(loss=0.25), bob.media_port)
        eventually(lambda: cause(bob) == ("download_loss", bob.peer), "bob is told of his download")
        assert cause(alice) is None

        relay.shape("up", Shape(loss=0.12, delay_s=0.05), alice.media_port)
        eventually(lambda: cause(alice) == ("upload_loss", alice.peer), "alice is told of her upload")
        assert cause(bob) == ("download_loss", bob.peer), "which is not as bad as his own download"
        eventually(lambda: quality(alice)["cause"]["value"] >= 9, "alice's figure is about that of the network")
        eventually(lambda: 40 < quality(alice)["up"]["round_trip_ms"] < 120, "so is the round trip")
        a, b = quality(alice), quality(bob)
        assert 0.08 < a["up"]["loss"] < 0.17
        assert a["down"]["loss"] < 0.02
        assert 0.18 < b["down"]["loss"] < 0.32
        assert b["up"]["loss"] < 0.02
        assert b["peers"][bob.peer] < b["peers"][alice.peer] < 4


def test_a_narrow_download_is_told_with_what_it_allows(start_server: Callable[..., Server], person: People) -> None:
    server = start_server(public_ip=HOST)
    with Relay(server.port) as relay:
        alice, bob = person(server, "alice").join("team"), person(server, "bob").join("team")
        bob.sees(alice)
        relay.shape("down", Shape(rate_bps=250_000), bob.media_port)
        eventually(lambda: cause(bob) == ("download_limited", bob.peer), "bob is told of his download")
        assert quality(bob)["cause"]["unit"] == "bps"
        assert 50_000 < quality(bob)["cause"]["value"] < 400_000
        assert cause(alice) is None
