"""Which addresses a webhook may reach, by whatever name."""

from __future__ import annotations

import pytest
from support.names import Names
from support.receivers import Receiver, receiving

from sfu.webhooks.addresses import fault, is_public
from sfu.webhooks.sender import Sender

PRIVATE = (
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "0.0.0.0",
    "100.64.0.1", "192.0.0.1", "198.18.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "::",
    "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
    "::10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::7f00:1", "2002:0a00:0001::1", "2002:7f00:0001::", "2001:db8::1",
    "nonsense",
)  # fmt: skip
PUBLIC = ("9.9.9.9", "172.32.0.1", "100.128.0.1", "2620:fe::fe", "::ffff:9.9.9.9", "64:ff9b::909:909")


@pytest.mark.parametrize("address", PRIVATE)
def test_it_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_it_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://example.org/hook?a=b", ""),
        ("https://9.9.9.9:8443/", ""),
        ("http://example.org/", "must begin with https://"),
        ("ftp://example.org/", "must begin with https://"),
        ("https://", "has no host"),
        ("https:///path", "has no host"),
        ("https://example.org:0/", "has no host"),
        ("https://example.org:99999/", "is not a URL"),
        ("https://[::1/", "is not a URL"),
        ("https://user:password@example.org/", "must not contain a user name or password"),
        ("https://example.org/#part", "must not contain a fragment"),
        ("https://127.0.0.1/", "is an address that is not public"),
        ("https://[::ffff:10.0.0.1]/", "is an address that is not public"),
        ("https://169.254.169.254/latest/meta-data", "is an address that is not public"),
    ],
)
def test_what_is_wrong_with_a_url(url: str, said: str) -> None:
    assert fault(url, allow_private=False) == said


def test_private_ones_can_be_allowed() -> None:
    for url in ("http://127.0.0.1:8080/", "http://backend/", "https://[fd00::1]/"):
        assert fault(url, allow_private=True) == ""
    assert fault("ftp://127.0.0.1/", allow_private=True) == "must begin with https://"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "fc00::1", "::ffff:127.0.0.1"])
async def test_a_name_of_a_private_address_is_refused(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    Names(monkeypatch, [address])
    async with Sender(allow_private=False) as sender:
        found = await sender.post(f"http://public.example:{receiver.port}/", {}, b"{}")
    assert (found.status, found.error) == (None, "address_refused: public.example has no public address")
    assert receiver.connections == 0


async def test_spellings_of_private_addresses_are_refused(receiver: Receiver) -> None:
    async with Sender(allow_private=False) as sender:
        for host in ("localhost", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"):
            found = await sender.post(f"http://{host}:{receiver.port}/", {}, b"{}")
            assert found.status is None, host
    assert receiver.connections == 0


async def test_a_name_is_asked_once_and_the_connection_goes_to_what_was_looked_at(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is looked at and private a moment later leads nowhere."""
    names = Names(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
    monkeypatch.setattr("sfu.webhooks.addresses.is_public", lambda address: address == "127.0.0.1")
    async with Sender(allow_private=False) as sender:
        found = await sender.post(f"http://public.example:{receiver.port}/hook", {"webhook-id": "1"}, b"{}")
        assert (found.status, found.error) == (204, None)
        assert names.asked == 1
        assert receiver.got[0].headers["host"] == f"public.example:{receiver.port}"


async def test_of_many_addresses_only_public_ones_are_tried(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """127.0.0.1 stands for a public address here, 127.0.0.2 for a private one at which somebody listens as well."""
    async with receiving() as private:
        Names(monkeypatch, ["127.0.0.2", "127.0.0.3", "127.0.0.1"])
        monkeypatch.setattr("sfu.webhooks.addresses.is_public", lambda address: address != "127.0.0.2")
        async with Sender(allow_private=False) as sender:
            found = await sender.post(f"http://public.example:{receiver.port}/hook", {}, b"{}")
        assert found.status == 204, "127.0.0.3 does not answer, and the next one does"
        assert private.connections == 0
