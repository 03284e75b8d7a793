"""/api/v1/docs in a real browser: it shows the whole description, and the policy of the page allows all it needs."""

from __future__ import annotations

from playwright.sync_api import Browser, expect
from support.process import Server


def test_the_description_is_shown(server: Server, browser: Browser) -> None:
    context = browser.new_context()
    page = context.new_page()
    problems: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{server.url}/api/v1/docs")
    document = server.get("/api/v1/openapi.json")
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    expect(page.locator("#operations article")).to_have_count(len(operations))
    expect(page.locator("#schemas article")).to_have_count(len(document["components"]["schemas"]))
    expect(page.locator("#issue_token")).to_contain_text("/api/v1/tokens")
    assert all(url.startswith(server.url) for url in asked)
    assert problems == []
    context.close()
