"""The database of these tests: the outbox is asked on both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
from support.receivers import Receiver, receiving

from sfu.process.metrics import Counters
from sfu.store import Store
from sfu.webhooks.dispatcher import Dispatcher


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@pytest.fixture
def dispatching(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractAsyncContextManager[Counters]]:
    """Runs a dispatcher, of this store or of another one."""
    monkeypatch.setattr("sfu.webhooks.dispatcher.POLL_S", 0.02)

    @asynccontextmanager
    async def run(through: Store = store, **changes: Any) -> AsyncIterator[Counters]:
        counters = Counters()
        dispatcher = Dispatcher(through, counters, **{"allow_private": True, "chance": lambda: 0.0, **changes})
        async with trio.open_nursery() as nursery:
            await nursery.start(dispatcher.run)
            yield counters
            nursery.cancel_scope.cancel()

    return run
