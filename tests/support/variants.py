"""Values of a test's parameters that only `just soak` tries, as the ones beside them stand for them in `just test`."""

from __future__ import annotations

from typing import Any

import pytest


def variants(*values: Any) -> list[Any]:
    """A tuple is the values of several parameters."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.soak) for value in values
    ]


both_engines = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
"""For a test in a folder whose conftest.py lets one engine stand for both."""
