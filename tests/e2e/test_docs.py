"""/api/v1/docs in a real browser: it shows the whole description, and the policy of the page allows all it needs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from support.process import Server


@pytest.fixture
def docs(server: Server, browser: Browser) -> Iterator[Page]:
    """The page. Whatever a test does, nothing on it fails, and it asks no other host for anything."""
    context = browser.new_context()
    page = context.new_page()
    problems: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{server.url}/api/v1/docs")
    expect(page.locator("#tools")).to_be_visible()
    yield page
    assert all(url.startswith(server.url) for url in asked)
    assert [one for one in problems if "status of 401" not in one] == []  # Chromium reports every refusal
    context.close()


def test_the_description_is_shown(server: Server, docs: Page) -> None:
    document = server.get("/api/v1/openapi.json")
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    expect(docs.locator("#operations article")).to_have_count(len(operations))
    expect(docs.locator("#schemas article")).to_have_count(len(document["components"]["schemas"]))
    expect(docs.locator("#codes tr")).to_have_count(len(document["x-codes"]))
    issue = docs.locator("#issue_token")
    expect(issue).to_contain_text("/api/v1/tokens")
    expect(issue).to_contain_text("Another word for user_name.")
    expect(issue.locator(".curl")).to_contain_text('"room_id": "team-meeting"')
    expect(issue.locator(".curl")).to_contain_text("Bearer $SFU_KEY")
    docs.context.grant_permissions(["clipboard-read", "clipboard-write"])
    issue.get_by_role("button", name="Copy").click()
    expect(issue.get_by_role("button", name="Copied")).to_be_visible()
    assert docs.evaluate("navigator.clipboard.readText()") == issue.locator(".curl").text_content()


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(docs: Page, width: int) -> None:
    docs.set_viewport_size({"width": width, "height": 800})
    docs.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    expect(docs.locator("form.try")).to_have_count(docs.locator("#operations article").count())
    wide = """() => [...document.querySelectorAll('body *')].filter((one) => one.getClientRects().length
        && one.getBoundingClientRect().right > innerWidth).map((one) => one.outerHTML.slice(0, 200))"""
    assert docs.evaluate(wide) == []
    assert docs.evaluate("document.documentElement.scrollWidth") <= width


def test_the_search_finds_by_path_tag_and_scope(docs: Page) -> None:
    shown = docs.locator("#operations article:visible")
    docs.keyboard.press("/")
    expect(docs.locator("#search")).to_be_focused()
    docs.keyboard.type("webhooks replay")
    expect(shown).to_have_count(1)
    expect(shown).to_have_id("replay_webhook")
    expect(docs.locator("#operations h2:visible")).to_have_count(1)
    expect(docs.locator("#contents li:visible")).to_have_count(1)
    docs.locator("#search").fill("tokens:create")
    expect(docs.locator("#issue_token")).to_be_visible()
    expect(docs.locator("#create_room")).to_be_hidden()
    docs.locator("#search").press("Escape")
    expect(docs.locator("#create_room")).to_be_visible()


def tried(docs: Page, name: str) -> Locator:
    """The form of a route."""
    docs.locator(f"#{name}").get_by_text("Try it").click()
    return docs.locator(f"#{name} form.try")


def test_a_token_is_issued_from_the_page(server: Server, docs: Page) -> None:
    key = server.company("Readers of the docs")
    docs.locator("#key").fill(key)
    form = tried(docs, "issue_token")
    expect(form.locator(".warning")).to_contain_text("changes something")
    form.locator("textarea").fill('{"room_id": "docs", "user_name": "it\'s me"}')
    expect(docs.locator("#issue_token .curl")).to_contain_text(r"it'\''s me")
    form.get_by_role("button", name="Send").click()
    expect(form.locator(".status")).to_have_text(re.compile("^201"))
    for header in ("X-Request-Id", "RateLimit", "Location"):
        expect(form.locator("th", has_text=re.compile(f"^{header}$"))).to_be_visible()
    expect(form.locator("pre")).to_contain_text('"user_name": "it\'s me"')
    form = tried(docs, "get_room")
    expect(form.locator(".warning")).to_have_count(0)
    form.locator("[name=room_id]").fill("docs/one?")
    expect(docs.locator("#get_room .curl")).to_contain_text("/rooms/docs%2Fone%3F'")
    stored = "JSON.stringify([location.href, document.cookie, { ...localStorage }, { ...sessionStorage }])"
    assert key not in docs.evaluate(stored)
    assert key not in docs.locator("body").inner_text()
    docs.reload()
    expect(docs.locator("#key")).to_have_value("")


def test_a_wrong_key_is_refused_with_its_code(docs: Page) -> None:
    docs.locator("#key").fill("pk_wrong")
    form = tried(docs, "list_rooms")
    form.get_by_role("button", name="Send").click()
    expect(form.locator(".status")).to_have_text(re.compile("^401"))
    expect(form.locator("pre")).to_contain_text('"code": "api_key_invalid"')
    form.get_by_role("link", name="api_key_invalid").click()
    expect(docs.locator("#code-api_key_invalid")).to_be_in_viewport()
