"""The doctor's check of the certificate: what browsers would say, of files and of a running server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.certificates import Signed, make, pem, write
from support.doctors import Found, doctor
from support.process import Server
from support.waiting import eventually

NAME = "meet.example.org"


class Authority:
    """A root that clients of this process trust, and an intermediate authority."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = make("Test Root")
        self.between = make("Test Intermediate", self.root)
        self.trusted = folder / "root.pem"
        self.trusted.write_bytes(pem(self.root))

    async def check(self, settings: dict[str, str], domain: str = "") -> Found:
        return await doctor("certificate", domain=domain, **settings)

    def issue(self, days: float = 60, *names: str) -> Signed:
        return make(NAME, self.between, days=days, names=names or (NAME,))


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.trusted))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    return made


async def test_a_good_certificate_and_its_days(authority: Authority) -> None:
    one = authority.issue(60.5)
    settings = write(authority.folder, one.key, one, authority.between)
    assert await authority.check(settings) == ("ok", f"{NAME}, 60 days left, a chain that this machine trusts", "")
    assert (await authority.check(settings, NAME))[0] == "ok"
    wild = authority.issue(60.5, "*.example.org")
    assert (await authority.check(write(authority.folder, wild.key, wild, authority.between)))[0] == "ok"


async def test_a_certificate_that_ends_soon_or_has_ended(authority: Authority) -> None:
    one = authority.issue(5.9)
    status, text, fix = await authority.check(write(authority.folder, one.key, one, authority.between))
    assert (status, text) == ("note", f"{NAME}, 5 days left, a chain that this machine trusts.")
    assert fix.startswith("Renewal is late")
    one = authority.issue(-3)
    assert await authority.check(write(authority.folder, one.key, one, authority.between)) == (
        "failed", f"The certificate of {NAME} expired 3 days ago.", "Renew it, and reload the server.",
    )  # fmt: skip


async def test_a_certificate_for_another_name(authority: Authority) -> None:
    one = authority.issue()
    settings = write(authority.folder, one.key, one, authority.between)
    assert await authority.check(settings, "call.example.org") == (
        "failed", f"The certificate is for {NAME}, not for call.example.org.", "Get one for call.example.org.",
    )  # fmt: skip


async def test_a_key_that_does_not_fit(authority: Authority) -> None:
    one = authority.issue()
    status, text, _ = await authority.check(write(authority.folder, authority.issue().key, one, authority.between))
    assert status == "failed"
    assert "key values mismatch" in text


async def test_a_chain_that_is_not_complete_and_one_that_nobody_knows(authority: Authority) -> None:
    one = authority.issue()
    status, text, fix = await authority.check(write(authority.folder, one.key, one))
    assert (status, "is not complete" in text) == ("failed", True)
    assert "fullchain.pem" in fix
    alone = make(NAME, names=(NAME,))
    assert (await authority.check(write(authority.folder, alone.key, alone)))[0] == "note"


async def test_files_that_are_not_there(authority: Authority) -> None:
    status, text, _ = await authority.check({"tls_cert": "/nowhere/cert.pem", "tls_key": "/nowhere/key.pem"})
    assert (status, text) == ("failed", "/nowhere/cert.pem is not there, or this user may not read it.")
    status, text, _ = await authority.check({"tls_cert": "/nowhere/cert.pem"})
    assert (status, text.partition(" only one is set")[0]) == ("failed", "Of SFU_TLS_CERT and SFU_TLS_KEY")
    assert (await authority.check({}))[0] == "note"
    assert await authority.check({"trusted_proxies": "127.0.0.1"}) == ("ok", "none here: the proxy has it", "")


async def test_what_a_running_server_shows_counts(authority: Authority, start_server: Callable[..., Server]) -> None:
    one = authority.issue(60.5)
    server = start_server(**write(authority.folder, one.key, one, authority.between))
    late = authority.issue(-3)
    write(authority.folder, late.key, late)  # not loaded, since it has expired
    good = await doctor("certificate", env=server.env)
    assert good[:2] == ("ok", f"{NAME}, 60 days left, a chain that this machine trusts")
    assert (await doctor("dns", env=server.env))[1].startswith(f"{NAME} ")
    assert (await doctor("certificate", env=server.env, domain="a.example"))[0] == "failed"


async def test_a_key_that_does_not_fit_is_named_while_the_server_goes_on_with_the_old_one(
    authority: Authority, start_server: Callable[..., Server]
) -> None:
    one, next_one = authority.issue(60.5), authority.issue(90.5)
    server = start_server(**write(authority.folder, one.key, one, authority.between))
    write(authority.folder, authority.issue().key, next_one, authority.between)
    eventually(lambda: "certificate_kept" in server.output, "the server has looked at them")
    status, text, fix = await doctor("certificate", env=server.env)
    assert (status, "key values mismatch" in text) == ("failed", True)
    assert text.startswith("The running server keeps the certificate it has, until ")
    assert "its own key" in fix
    write(authority.folder, next_one.key, next_one, authority.between)
    assert (await doctor("certificate", env=server.env))[0] == "ok"


async def test_a_self_signed_certificate_of_a_running_server(start_server: Callable[..., Server]) -> None:
    server = start_server("--self-signed")
    status, text, _ = await doctor("certificate", env=server.env)
    assert (status, text.endswith("is self-signed: browsers warn.")) == ("note", True)
