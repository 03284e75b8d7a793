"""The doctor's checks of settings and of proxies, against a running server."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable

import pytest
from support.doctors import doctor
from support.process import Server


async def test_settings_that_are_fine_and_those_that_wait_for_a_restart(server: Server) -> None:
    assert await doctor("settings", env=server.env) == (
        "ok",
        "from the environment, as the running server has them",
        "",
    )
    status, text, fix = await doctor("settings", env=server.env, last_n="4", max_tracks="6")
    assert status == "note"
    assert text == "The running server has SFU_MAX_TRACKS=8, but the environment says 6. 1 more differ."
    assert fix.startswith("Restart the server")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"prot": "8080"}, "SFU_PROT is not a setting and is ignored. Did you mean SFU_PORT?"),
        ({"host": "127.0.0.1", "trusted_proxies": "127.0.0.1"}, "SFU_HOST is a loopback address, so media"),
        ({"port": "81"}, "Browsers send no media over TCP to SFU_PORT"),
        ({"base_path": "/meet"}, "SFU_BASE_PATH is for a proxy, but SFU_TRUSTED_PROXIES names none."),
        ({"trusted_proxies": "::1", "ping_s": "50"}, "SFU_PING_S and SFU_PONG_S together"),
        ({"file_bytes": "300000000"}, "SFU_FILE_BYTES is more than SFU_ROOM_FILES_BYTES"),
        ({"files_bytes": "1000"}, "SFU_ROOM_FILES_BYTES is more than SFU_FILES_BYTES"),
        ({"workers": "200"}, "SFU_WORKERS is more than the cores"),
        ({"host": "127.0.0.1", "limits": "off"}, "SFU_LIMITS=off is for load tests."),
    ],
)
async def test_settings_that_contradict_each_other(settings: dict[str, str], text: str) -> None:
    found = await doctor("settings", **settings)
    assert found[0] == "failed"
    assert found[1].startswith(text)
    assert found[2]


def through_a_proxy(server: Server) -> None:
    headers = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/health", headers=headers), timeout=5).close()


async def test_a_proxy_that_nobody_named(server: Server) -> None:
    assert (await doctor("proxies", env=server.env))[0] == "ok"
    through_a_proxy(server)
    status, text, fix = await doctor("proxies", env=server.env)
    assert (status, text) == ("note", "Requests from 127.0.0.1 have forwarding headers that the server ignores.")
    assert fix.startswith("If this is your proxy: SFU_TRUSTED_PROXIES=127.0.0.1.")


async def test_a_proxy_that_is_named_and_sends_headers(start_server: Callable[..., Server]) -> None:
    server = start_server(trusted_proxies="127.0.0.1")
    assert (await doctor("proxies", env=server.env))[0] == "note"
    through_a_proxy(server)
    assert await doctor("proxies", env=server.env) == ("ok", "headers of 127.0.0.1 are believed", "")
