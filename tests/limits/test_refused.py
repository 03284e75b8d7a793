"""Lines in the log about refusals: how many there may be."""

from __future__ import annotations

import logging

import pytest

from sfu.errors import RoomFull
from sfu.limits.refused import LINES, LINES_S, Refused

log = logging.getLogger("sfu.test")


def test_the_number_of_lines_about_an_address_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now_s = [0.0]
    refused = Refused(lambda: now_s[0])
    for address in ("192.0.2.1", "192.0.2.2"):
        for n in range(2 * LINES):
            for _ in range(3):
                refused.tell(log, RoomFull(), address, room="r", name=f"n{n}")
    assert len(caplog.messages) == 2 * LINES
    now_s[0] += LINES_S
    refused.tell(log, RoomFull(), "192.0.2.1", room="r", name="n0")
    assert len(caplog.messages) == 2 * LINES + 1
