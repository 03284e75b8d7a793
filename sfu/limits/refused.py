"""Lines in the log about refusals: the reason, room, person and address of each.

Whoever is refused determines how many there are, so one address gets a limited number, and no line twice in a minute.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from sfu.errors import SfuError
from sfu.limits.rates import Rate
from sfu.logs import line, quoted

LINES, LINES_S = 20, 60.0
"""Most lines about one address within LINES_S."""
DETAIL_CHARACTERS = 240


class Refused:
    """Writes the lines. `room` and `name` are what the client asked for, even without a right to it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._lines, self._same = Rate(LINES, LINES_S, clock), Rate(1, LINES_S, clock)

    def tell(
        self, log: logging.Logger, error: SfuError | str, client: str, *, room: str = "", name: str = "", **more: str
    ) -> None:
        """`error` may be just its code. `more` are ids and words of ours."""
        code, detail = (error, "") if isinstance(error, str) else (error.code, str(error))
        said = line("refused", reason=code, room=quoted(room), name=quoted(name), client=client, **more)
        if self._same.allows(said) and self._lines.allows(client):
            detail = "" if detail == getattr(error, "default", "") else detail
            log.info("%s", line(said, detail=quoted(detail, DETAIL_CHARACTERS)))
