"""What an authority answers, as one kind of failure; and the account, which is one for every order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.authority import DOMAIN, EXACT
from support.authority import Authority as Pebble

from sfu.web.acme import HTTP, TLS, Authority
from sfu.web.challenges import Challenges, IssueFailed

NOT_FOUND = {"connection", "unauthorized"}


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """Nobody answers where it looks."""
    made = Pebble(tmp_path_factory.mktemp("pebble"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def authority(pebble: Pebble, tmp_path: Path) -> Authority:
    settings = pebble.settings
    return Authority(settings["acme_directory"], tmp_path / "new", ca_file=Path(settings["acme_ca_file"]))


def failure(authority: Authority, kind: str = HTTP) -> str:
    challenges = Challenges()
    with pytest.raises(IssueFailed) as failed:
        authority.issue([DOMAIN], kind, challenges)
    assert failed.value.detail
    assert challenges.answers == {}, "answers are gone with the check"
    return failed.value.code


def test_an_account_is_made_once_and_follows_its_mail(authority: Authority, pebble: Pebble) -> None:
    found, before = [], pebble.log.count("accounts in memory")
    for mail in ("", "a@example.org", "a@example.org", "b@example.org"):
        assert failure(replace(authority, mail=mail)) in NOT_FOUND
        found.append(json.loads((authority.folder / "account.json").read_bytes()))
    assert [one["mail"] for one in found] == ["", "a@example.org", "a@example.org", "b@example.org"]
    assert len({(one["uri"], one["key"]) for one in found}) == 1
    assert pebble.log.count("accounts in memory") == before + 1


def test_both_kinds_of_challenges_are_checked_at_their_ports(authority: Authority, pebble: Pebble) -> None:
    assert EXACT["PEBBLE_VA_ALWAYS_VALID"] == "0"
    for kind, port in ((HTTP, pebble.http), (TLS, pebble.tls)):
        with pytest.raises(IssueFailed, match=str(port)):
            authority.issue([DOMAIN], kind, Challenges())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ca_file": None}, "untrusted"),
        ({"directory": "https://localhost:1/dir"}, "unreachable"),
        ({"directory": "https://no-such.invalid/dir"}, "unreachable"),
    ],
)
def test_failures_have_codes(authority: Authority, changes: dict[str, str], code: str) -> None:
    assert failure(replace(authority, **changes)) == code


def test_what_is_no_directory_is_unexpected(authority: Authority) -> None:
    assert failure(replace(authority, directory=authority.directory + "/none")) == "unexpected"


def test_an_account_that_cannot_be_read_is_named(authority: Authority) -> None:
    authority.folder.mkdir()
    (file := authority.folder / "account.json").write_text("{")
    with pytest.raises(IssueFailed, match=str(file)):
        authority.issue([DOMAIN], HTTP, Challenges())
    assert file.read_text() == "{", "it is not replaced, since it may be mended"
