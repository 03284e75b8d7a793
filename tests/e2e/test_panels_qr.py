"""The code a phone is pointed at, drawn by a real browser and read by somebody else's decoder."""

from __future__ import annotations

import io

import pytest
import zxingcpp
from PIL import Image
from playwright.sync_api import Browser
from support.process import Server

DRAW_JS = """async (text) => {
    const { qrCode } = await import('/ui/qr.js');
    document.body.replaceChildren(qrCode(text, 'the code'));
    document.body.firstChild.setAttribute('width', 400);
}"""
LINKS = (
    "https://a.example/",  # version 1 or 2
    "https://meet.example.org/?room=design-review",
    "https://meet.example.org:8443/?room=" + "%C3%BC" * 64,  # the longest name of a room, all of it escaped
    "https://meet.example.org/?room=Grüße 👋",
    "x" * 1000,  # version 27: 16-bit lengths, version information, many alignment patterns
)


def test_a_decoder_reads_what_is_drawn(server: Server, browser: Browser) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(f"{server.url}/health")  # any page of this origin
    for link in LINKS:
        page.evaluate(DRAW_JS, link)
        picture = Image.open(io.BytesIO(page.get_by_role("img", name="the code").screenshot()))
        found = zxingcpp.read_barcodes(picture.convert("L"))
        assert [(one.format, one.text, one.ec_level) for one in found] == [(zxingcpp.BarcodeFormat.QRCode, link, "M")]
    with pytest.raises(Exception, match="lean-qr error 4"):
        page.evaluate(DRAW_JS, "x" * 3000)
    context.close()
