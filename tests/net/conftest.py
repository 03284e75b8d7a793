"""The lab and its browsers, one of each for all cases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from support.namespaces import skip_without_namespaces

from net.lab import Lab


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They take turns with the other tests of browsers."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    skip_without_namespaces()
    made = Lab()
    yield made
    made.close()


@pytest.fixture(scope="package")
def browsers(lab: Lab) -> Iterator[tuple[Browser, Browser]]:
    """Alice's and bob's."""
    with sync_playwright() as running, lab.browser(running, lab.alice) as alice, lab.browser(running, lab.bob) as bob:
        yield alice, bob
