"""A settings file that is read again on SIGHUP: what changes, what needs a restart, and what a wrong one does."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from support.process import ROOT, Server
from support.waiting import eventually
from support.wire import joined, refused

from sfu.settings.config import Config, settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sfu.env"


@pytest.fixture
def start(file: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server with the lines of a settings file; `environment` takes precedence over it."""
    made: list[Server] = []

    def started(text: str, **environment: str) -> Server:
        file.write_text(text)
        made.append(Server("--env-file", str(file), **environment))
        return made[-1].start()

    yield started
    for server in made:
        print(server.output)
        server.close()


def hang_up(server: Server, says: str) -> str:
    """Makes the server read its file again; returns what it logs until it has said this once more."""
    before = len(server.output)
    server.send(signal.SIGHUP)
    return eventually(lambda: said if says in (said := server.output[before:]) else "", says)


async def test_settings_change_in_a_running_server(start: Callable[..., Server], file: Path) -> None:
    server = start("SFU_ALLOW_ANONYMOUS=on\nSFU_TURN_URLS=turn:a.example.org\nSFU_TURN_SECRET=0123456789abcdef-old\n")
    async with joined(server.url, "alice") as alice:
        await trio.Path(file).write_text(
            "SFU_ALLOW_ANONYMOUS=off\nSFU_TURN_URLS=turn:b.example.org\nSFU_TURN_SECRET=0123456789abcdef-new\n"
            "SFU_LAST_N=3\nSFU_LOG_LEVEL=debug\n"
        )
        said = hang_up(server, "settings_reloaded")
        assert "setting_changed name=SFU_ALLOW_ANONYMOUS old=on new=off" in said
        assert "setting_changed name=SFU_TURN_URLS old=turn:a.example.org new=turn:b.example.org" in said
        assert "setting_changed name=SFU_TURN_SECRET\n" in said
        assert "abcdef" not in server.output, "no secret is in the log"
        assert re.search("level=WARNING .* setting_needs_restart name=SFU_LAST_N old=16 new=3", said)
        assert f"settings_reloaded file={file} changed=4" in said
        assert (await refused(server.url, "bob"))["code"] == "token_required"
        await alice.talks("still here")
    await trio.Path(file).write_text("")
    said = hang_up(server, "settings_reloaded")
    assert "setting_changed name=SFU_ALLOW_ANONYMOUS old=off new=on" in said, "as if it had never been set"
    assert "SFU_LAST_N" not in said
    async with joined(server.url, "bob"):
        pass
    assert server.stop() == 0


def test_media_workers_take_over_the_level_of_the_log(start: Callable[..., Server], file: Path) -> None:
    server = start("")
    file.write_text("SFU_LOG_LEVEL=debug\n")
    hang_up(server, "settings_reloaded")
    eventually(lambda: "log_level level=debug" in server.output, "the worker says so, at this level")
    assert re.search("pid=.* log_level level=debug", server.output)


WRONG = {
    "SFU_MAX_LOAD=2\nSFU_HOLD_S=3\n": "SFU_MAX_LOAD='2' is not accepted",
    "SFU_HOLD_S=3\nexport SFU_X=1\n": "line 2",
    "SFU_HOLD_S=3\nSFU_MAX_PEER=3\n": "Did you mean SFU_MAX_PEERS?",
    "SFU_HOLD_S=3\nSFU_TURN_URLS=turn:a.example.org\n": "SFU_TURN_SECRET is not",
}
"""Files, and what the log says of each."""


def test_a_wrong_file_changes_nothing_and_the_environment_takes_precedence(
    start: Callable[..., Server], file: Path
) -> None:
    server = start("SFU_HOLD_S=7\n", lobby_s="9")
    for text, reason in WRONG.items():
        file.write_text(text)
        said = hang_up(server, "settings_kept")
        assert reason in said
        assert "level=ERROR" in said
    file.unlink()
    assert "does not exist" in hang_up(server, "settings_kept")
    file.write_text("SFU_HOLD_S=7\nSFU_LOBBY_S=8\n")
    assert "changed=0" in hang_up(server, "settings_reloaded"), "it has what it had"
    assert server.stop() == 0


def test_without_a_file_it_says_why_nothing_changes(server: Server) -> None:
    assert "the server was started without a settings file" in hang_up(server, "settings_kept")
    assert server.stop() == 0


def test_only_live_settings_are_taken_over() -> None:
    config = Config(max_load=0.5, last_n=4)
    assert config.adopt(Config(max_load=0.7, last_n=5)) == {"max_load"}
    assert (config.max_load, config.last_n) == (0.7, 4)


def test_the_document_names_what_can_change() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    found = re.search(r"changes these settings in the running server: (.*?)\.\n", text, re.DOTALL)
    assert found
    assert re.findall(r"SFU_\w+", found[1]) == [setting.variable for setting in settings() if setting.live]
