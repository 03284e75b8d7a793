"""Lines of the log: no empty field, words between quotes on one line, and the system's log, if there is one."""

from __future__ import annotations

import contextvars
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfu.logs import _Json, _OneLine, begin_request, fields, line, quoted, to_syslog

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


WORDS = ["team", "it's", 'say "hi"', "both ' and \"", "a\nb", "x' level='y", "back\\slash", "name=Eve peer=p", "Zoë 👋"]


def record(message: str, *, error: BaseException | None = None) -> logging.LogRecord:
    about = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("sfu.calls", logging.WARNING, __file__, 1, "%s", (message,), about)
    made.created, made.msecs = 1_795_000_000.25, 250.0
    return made


def test_json_has_the_fields_of_a_line() -> None:
    said = json.loads(_Json().format(record(line("left", room=quoted("c/team"), peer="p1", reason="left", drops=2))))
    assert said == {
        "time": "2026-11-18T11:06:40.250Z",
        "level": "WARNING",
        "logger": "sfu.calls",
        "event": "left",
        "message": "left room='c/team' peer=p1 reason=left drops=2",
        "room": "c/team",
        "peer": "p1",
        "reason": "left",
        "drops": "2",
    }


@pytest.mark.parametrize("words", WORDS)
def test_words_of_people_are_one_field_whatever_they_are(words: str) -> None:
    message = line("joined", room="r", name=quoted(words), peer="p")
    assert fields(message) == {"room": "r", "name": words, "peer": "p"}
    assert "\n" not in _Json().format(record(message))


def test_no_field_stands_in_for_the_level_or_the_time() -> None:
    said = json.loads(_Json().format(record("odd level=DEBUG time=0 logger=x message=y")))
    assert (said["level"], said["logger"], said["message"]) == (
        "WARNING",
        "sfu.calls",
        "odd level=DEBUG time=0 logger=x message=y",
    )


@pytest.mark.parametrize("form", [_OneLine, _Json])
def test_a_traceback_is_in_the_same_line(form: type[_OneLine]) -> None:
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError as error:
        said = form("pid=7 ").format(record("failed", error=error))
    assert "\n" not in said
    for words in ("Traceback", "ZeroDivisionError: division by zero", "pid=7 failed"):
        assert words in said


@pytest.mark.parametrize("form", [_OneLine, _Json])
def test_what_is_said_for_a_request_has_its_id(form: type[_OneLine]) -> None:
    def handled() -> tuple[str, str]:
        found = begin_request()
        return found, form().format(record("refused reason=room_full"))

    first, second = (contextvars.copy_context().run(handled) for _ in range(2))
    for found, said in (first, second):
        assert f"refused reason=room_full request_id={found}" in said
    assert first[0] != second[0]
    assert "request_id" not in form().format(record("ready"))
    said = contextvars.copy_context().run(lambda: (begin_request(), form().format(record("left request_id=other")))[1])
    assert said.count("request_id=") == 1
