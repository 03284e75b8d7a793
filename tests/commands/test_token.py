"""`sfu token`: what its link lets in, for whom, and what it prints where."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from support.operating import Place, placed
from support.process import environment, sfu

from sfu.refusals import BadValue, CompanyNotFound
from sfu.settings.config import Config
from sfu.store.trail import Wanted
from sfu.tenancy.links import named, page_urls, room_link
from sfu.tenancy.tokens import Permissions


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as found:
        yield found


@pytest.fixture
async def offline(place: Place, tmp_path: Path) -> Place:
    """As after the server's end: nothing listens where the commands look."""
    (tmp_path / "control.sock").unlink()
    return place


async def entered(place: Place, link: str) -> tuple[str, str, Permissions]:
    """The call, the name and the permissions that the link leads to."""
    (token,) = parse_qs(urlsplit(link).query)["token"]
    async with place.server.connect("/ws", token=token) as client:
        peer = place.server.rooms.peers[(await client.expect("welcome"))["peer"]]
        return peer.room.key, peer.name, peer.permissions


@pytest.mark.parametrize(
    ("options", "company", "room", "name", "permissions"),
    [
        (["team"], "default", "team", "guest", Permissions()),
        (["team", "--name", " Zoë  M"], "default", "team", "Zoë M", Permissions()),
        (["Acme/board/room", "--role", "moderator"], "Acme", "board/room", "guest", Permissions(moderate=True)),
        (["a/b", "--role", "viewer"], "default", "a/b", "guest", Permissions(publish=False)),
        (["a/b", "--company", "Acme"], "Acme", "a/b", "guest", Permissions()),
        (["http://x/?room=team"], "default", "team", "guest", Permissions()),
    ],
)
async def test_the_link_lets_one_person_in(
    offline: Place, capsys: pytest.CaptureFixture[str], options: list[str], company: str, room: str, name: str,
    permissions: Permissions,
) -> None:  # fmt: skip
    acme = await offline.acme()
    await offline.run("token", *options, "--url", "https://meet.example.org/meet/")
    out, err = capsys.readouterr()
    assert re.fullmatch(r"https://meet\.example\.org/meet/\?token=[\w.-]+\n", out)
    assert f"in {'' if company == 'default' else 'Acme/'}{room}, until " in err
    key = f"{acme.id if company == 'Acme' else offline.server.default.id}/{room}"
    assert await entered(offline, out.strip()) == (key, name, permissions)


async def test_a_token_for_one_join_works_once(offline: Place, capsys: pytest.CaptureFixture[str]) -> None:
    await offline.run("token", "team", "--once", "--bare", "--ttl", "15m")
    token = capsys.readouterr().out.strip()
    record, *_ = (await offline.server.store.tokens.list(offline.server.default.id)).items
    assert (record.expires_at - record.created_at).total_seconds() == pytest.approx(900, abs=2)
    await entered(offline, f"/?token={token}")
    assert (await offline.server.refused(f"/ws?token={token}"))["code"] == "token_used"


async def test_json_has_all_of_it(offline: Place, capsys: pytest.CaptureFixture[str]) -> None:
    await offline.run("token", "team", "--json", "--url", "https://meet.example.org")
    said = json.loads(capsys.readouterr().out)
    assert said["link"] == f"https://meet.example.org/?token={said['token']}"
    assert (said["company"], said["room_id"], said["name"]) == ("default", "team", "guest")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", said["expires_at"])


async def test_it_is_in_the_audit_and_the_token_is_not(
    offline: Place, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    await offline.run("token", "team", "--name", "Eve", "--bare")
    (line,) = [one for one in caplog.messages if one.startswith("issue_token ")]
    assert f"company='default' room='{offline.server.key('team')}' name='Eve' issued=" in line
    assert "by='" in line
    (entry,) = (await offline.server.store.trail.list(Wanted(user_name="Eve"))).items
    assert (entry.change.action, entry.author.kind, bool(entry.author.name)) == ("token.issued", "command", True)
    assert f" issued={entry.change.target} " in line
    assert capsys.readouterr().out.strip() not in caplog.text


async def test_a_company_that_is_not_there_is_named(offline: Place) -> None:
    with pytest.raises(CompanyNotFound, match="There is no company 'Nobody'"):
        await offline.run("token", "team", "--company", "Nobody")
    with pytest.raises(BadValue, match="The room's name is empty"):
        await offline.run("token", " ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ttl", "soon"], "it must be a time"),
        (["--ttl", "2d"], "from one second to one day"),
        (["--url", "x"], "https://"),
    ],
)
def test_what_is_no_time_and_no_address_is_refused(options: list[str], words: str) -> None:
    done = sfu("token", "team", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_no_database_is_made(tmp_path: Path) -> None:
    done = sfu("token", "team", env=environment(data_dir=str(tmp_path / "none")))
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no database at" in done.stderr
    assert list(tmp_path.iterdir()) == []


async def test_without_a_server_the_link_is_for_this_machine(
    offline: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    await offline.run("token", "team")
    out, err = capsys.readouterr()
    assert out.startswith(f"http://localhost:{offline.config.port}/?token=")
    assert "the server cannot be asked" in err


def test_with_a_server_the_link_is_for_where_it_is(start_server: object, tmp_path: Path) -> None:
    server = start_server("--self-signed", public_ip="192.0.2.7")  # type: ignore[operator]
    done = sfu("token", "team", env=server.env)
    assert done.stdout.startswith(f"https://192.0.2.7:{server.port}/?token=")
    assert f"The server is also at https://localhost:{server.port}." in done.stderr


@pytest.mark.parametrize(
    ("config", "addresses", "names", "secure", "urls"),
    [
        ({}, ["127.0.0.1", "192.0.2.7"], [], False, ["http://localhost:8080", "http://192.0.2.7:8080"]),
        ({"port": 443}, ["2001:db8::7"], [], True, ["https://localhost", "https://[2001:db8::7]"]),
        ({"host": "192.0.2.7"}, ["192.0.2.7"], [], False, ["http://192.0.2.7:8080"]),
        ({"base_path": "/meet"}, ["192.0.2.7"], ["a.example"], True, ["https://a.example:8080/meet"]),
        ({"port": 443}, [], ["a.example", "b.example"], True, ["https://a.example", "https://b.example"]),
    ],
)
def test_the_page_is_where_the_certificate_says(
    config: dict[str, object], addresses: list[str], names: list[str], secure: bool, urls: list[str]
) -> None:
    assert page_urls(replace(Config(), **config), addresses, names, secure=secure) == urls  # type: ignore[arg-type]


def test_a_link_names_its_room() -> None:
    for room in ("team", "café & co", "a/b?c=d#e", "Ünï 👋"):
        assert named(room_link("https://meet.example.org/", room=room)).text == room
