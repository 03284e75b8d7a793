"""What counts as a lost connection, and how often."""

from __future__ import annotations

import pytest

from sfu.calls.drops import Drops
from sfu.errors import CallEnded, MediaLost, PageGone, Removed, ServerStopping, SfuError, Unresponsive
from sfu.store.records import SessionDrops

LOST, BACK = "unresponsive", "page_gone"


@pytest.mark.parametrize(
    ("story", "end", "counts"),
    [
        ([], None, (0, 0, None)),
        ([], PageGone(), (0, 0, None)),  # whoever closes the page has left
        ([], CallEnded(), (0, 0, None)),
        ([], Removed(), (0, 0, None)),
        ([], MediaLost(), (1, 0, "media_lost")),
        ([], ServerStopping(), (1, 0, "server_stopping")),
        ([LOST], Unresponsive(), (1, 0, "unresponsive")),
        ([LOST, BACK], None, (1, 1, "unresponsive")),
        ([BACK, BACK], None, (2, 2, "page_gone")),
        ([LOST, BACK, BACK, LOST], Removed(), (3, 2, "unresponsive")),
    ],
)
def test_a_stay_counts_its_drops(story: list[str], end: SfuError | None, counts: tuple[int, int, str | None]) -> None:
    drops = Drops(SessionDrops(2, 1, "server_lost"))
    for event in story:
        drops.lost(LOST) if event == LOST else drops.came_back(BACK)
    lost, returns, why = counts
    assert drops.ended(end) == drops.now == SessionDrops(2 + lost, 1 + returns, why or "server_lost")
