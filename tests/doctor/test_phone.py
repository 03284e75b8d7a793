"""The link to the page that tests a phone, its QR code, and what the terminal says of a device."""

from __future__ import annotations

import pytest
import zxingcpp
from PIL import Image

from sfu.doctor import phone
from sfu.doctor.finding import Context, Running
from sfu.doctor.phone import Device, Leg
from sfu.errors import ConfigError
from sfu.settings.config import Config

LIGHT = {"█": (1, 1), "▀": (1, 0), "▄": (0, 1), " ": (0, 0)}
URL = "https://meet.example.org/meet/phone.html#29SRoVc2RSy3tv_WkQRWmiFk_LZ6_2ch"


def context(*advertised: str, secure: bool = False, domain: str = "", **settings: str) -> Context:
    config = Config.from_env({f"SFU_{name.upper()}": value for name, value in settings.items()})
    running = Running(1, secure, advertised, 8080, 8080, 0, "ok", {}, (), ())
    return Context(config, {}, running=running, domain=domain)


def test_the_code_in_the_terminal_is_the_link() -> None:
    rows = [row for line in phone.qr(URL).splitlines() for row in zip(*(LIGHT[one] for one in line), strict=True)]
    picture = Image.frombytes("L", (len(rows[0]), len(rows)), bytes(255 * one for row in rows for one in row))
    (found,) = zxingcpp.read_barcodes(picture.resize((4 * picture.width, 4 * picture.height), Image.Resampling.NEAREST))
    assert found.text == URL
    assert phone.qr(URL, coloured=True).count("\033[97;40m") == len(phone.qr(URL).splitlines())


@pytest.mark.parametrize(
    ("of", "url"),
    [
        (context("10.0.0.5", "203.0.113.9"), "http://203.0.113.9:8080/phone.html"),
        (context("2001:db8::1", "10.0.0.5"), "http://[2001:db8::1]:8080/phone.html"),
        (context("10.0.0.5", port="80"), "http://10.0.0.5/phone.html"),
        (context("203.0.113.9", secure=True, domain="a.example", port="443"), "https://a.example/phone.html"),
        (context("203.0.113.9", secure=True, domain="a.example"), "https://a.example:8080/phone.html"),
        (
            context("203.0.113.9", domain="a.example", trusted_proxies="::1", base_path="/meet"),
            "https://a.example/meet/phone.html",
        ),
    ],
)
async def test_where_the_link_leads(of: Context, url: str) -> None:
    assert (await phone.link(of))[0] == url


async def test_what_a_link_over_http_means_is_said() -> None:
    hints = " ".join((await phone.link(context("192.168.1.5")))[1])
    assert "the phone must be in the same network as this server" in hints
    assert "browsers give camera and microphone to https pages only" in hints
    proxied = " ".join((await phone.link(context("203.0.113.9", trusted_proxies="::1")))[1])
    assert "--domain" in proxied
    with pytest.raises(ConfigError):
        await phone.link(context())


@pytest.mark.parametrize(
    ("cause", "text", "fix"),
    [
        ("closed", "UDP 8080 does not arrive; TCP works as a fallback.", "Open it in the provider's firewall"),
        ("address", "UDP 8080: 10.0.0.5 cannot be reached from where the device is; TCP", "Set SFU_PUBLIC_IP"),
        ("one_way", "UDP 8080 arrives, but the server's answers do not reach", "Allow UDP 8080 in both directions"),
        ("no_media", "UDP 8080 has a connection, but no media", "A firewall lets only"),
        (None, "UDP 8080: the device left before the end", "Try again."),
    ],
)
def test_the_sentence_of_a_leg_that_fails(cause: str | None, text: str, fix: str) -> None:
    legs = {
        "udp": Leg("silent", "", "", False, 8000, cause),
        "tcp": Leg("connected", "198.51.100.7", "tcp", True, 300, "ok"),
    }
    found = dict(phone.findings(context("10.0.0.5"), Device("198.51.100.7", True, False, True, legs)))
    assert found["udp"].status == "failed"
    assert found["udp"].text.startswith(text)
    assert found["udp"].fix.startswith(fix)
    assert found["tcp"].text == "TCP 8080 works: media came back after 300 ms, from 198.51.100.7"
