"""The database of the tests of calls."""

from __future__ import annotations

import pytest
from support.tables import database
from support.variants import variants


@pytest.fixture(params=["sqlite", *variants("postgresql")])
def database_url(request: pytest.FixtureRequest) -> str:
    """One engine stands for both: what is asked of them, tests/store asks each."""
    return database(request)
