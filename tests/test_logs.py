"""Lines of the log: no empty field, words between quotes on one line, and the system's log, if there is one."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfu.logs import line, quoted, to_syslog

NAME = "sfu.test.syslog"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("", ""), (None, ""), ("Zoë", "'Zoë'"), ("a\nb' c", '"a\\nb\' c"'), ("x" * 30, f"'{'x' * 20}…'"), ("0", "'0'")],
)
def test_words_are_quoted_and_cut(text: str | None, shown: str) -> None:
    assert quoted(text, 20) == shown


def test_a_field_without_a_value_is_left_out() -> None:
    assert line("left", room=quoted("team"), name=quoted(""), peer=None, count=0, sure=False) == (
        "left room='team' count=0 sure=False"
    )


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger(NAME)
    found.setLevel(logging.INFO)
    yield found
    for handler in list(found.handlers):
        found.removeHandler(handler)
        handler.close()


def test_the_systems_log_gets_the_line(tmp_path: Path, logger: logging.Logger) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(str(path))
        to_syslog(NAME, str(path))
        logger.info("company_rotate_key company='Acme'")
        assert system.recv(1000) == b"<14>sfu: level=INFO logger=sfu.test.syslog company_rotate_key company='Acme'\0"


def test_no_log_of_the_system_is_no_error(
    tmp_path: Path, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    to_syslog(NAME, str(tmp_path / "none"))
    assert not logger.handlers
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(str(tmp_path / "log"))
    to_syslog(NAME, str(tmp_path / "log"))  # nobody reads it
    logger.info("said")
    assert capsys.readouterr().err == ""
