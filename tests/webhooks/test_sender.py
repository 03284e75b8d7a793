"""An attempt over https: the certificate is that of the URL's name, whatever address was chosen."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from support import certificates
from support.names import Names
from support.receivers import receiving

from sfu.webhooks.sender import Sender


def context(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Of a server with a certificate for hook.example, from an authority that this process trusts."""
    authority = certificates.make("authority")
    server = certificates.make("hook.example", authority, names=("hook.example",))
    files = certificates.write(folder, server.key, server)
    (folder / "roots.pem").write_bytes(certificates.pem(authority))
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "roots.pem"))
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(files["tls_cert"], files["tls_key"])
    return made


async def test_https_is_verified_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, ["127.0.0.1"])
    async with receiving(tls=context(tmp_path, monkeypatch)) as receiver, Sender(allow_private=True) as sender:
        for _ in range(2):
            found = await sender.post(f"https://hook.example:{receiver.port}/hook", {"webhook-id": "1"}, b"{}")
            assert (found.status, found.error) == (204, None)
        assert receiver.connections == 1, "it is used again"
        other = await sender.post(f"https://other.example:{receiver.port}/hook", {}, b"{}")
        assert other.status is None
        assert other.error is not None
        assert "certificate verify failed" in other.error
        monkeypatch.delenv("SSL_CERT_FILE")
        async with Sender(allow_private=True) as stranger:
            unknown = await stranger.post(f"https://hook.example:{receiver.port}/hook", {}, b"{}")
        assert "certificate verify failed" in str(unknown.error)
    assert len(receiver.got) == 2
