"""The task that sends what is due, and writes down what became of it."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import trio

from sfu.errors import ConfigError
from sfu.process.background import repeat
from sfu.process.metrics import Counters
from sfu.refusals import DatabaseUnavailable
from sfu.store import Store
from sfu.store.sending import Attempt, Due
from sfu.store.webhooks import Webhook
from sfu.tenancy import hooks
from sfu.webhooks.sender import Response, Sender

POLL_S = 0.5
"""How often to look for something to do."""
MEND_S, MEASURE_S = 60.0, 10.0
AT_ONCE = 8
"""Most attempts at once to one webhook, each for another room; to one that fails, a single one."""
COMPANY_AT_ONCE, ALL_AT_ONCE = 40, 200
"""Most attempts at once for one company, whose receivers may all hang, and for all."""
WAITS_S = (5, 30, 120, 600, 1800, 3600, 10_800, 21_600, 43_200, 86_400)
"""How long after each failed attempt the next one comes. After the last, a day lies between two."""
JITTER = 0.2
"""Waits are up to this fraction longer, so that receivers that come back do not get everything in one moment."""
GONE = 410
AGAIN_S, AGAIN_MOST_S = 1.0, 60.0
"""How long to wait before a result is written again, if that failed; doubled each time."""

log = logging.getLogger(__name__)


class Dispatcher:
    """Sends the deliveries of the webhooks that this server has leased."""

    def __init__(
        self, store: Store, counters: Counters, *, allow_private: bool, chance: Callable[[], float] = random.random
    ) -> None:
        self._store, self._counters, self._chance = store, counters, chance
        self._allow_private = allow_private
        self._wake = trio.Event()
        self._flying: dict[str, Webhook] = {}  # by delivery that is being sent

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sends until cancelled. What is being sent then is sent again by whoever comes next."""
        try:
            async with Sender(allow_private=self._allow_private) as sender, trio.open_nursery() as nursery:

                async def look() -> None:
                    await self._look(sender, nursery)

                for task, work, every_s in (
                    ("webhooks", look, 0.0),
                    ("webhooks_mended", self._store.sending.mend, MEND_S),
                    ("webhooks_measured", self._store.sending.measure, MEASURE_S),
                ):
                    nursery.start_soon(repeat, task, work, every_s, self._counters)
                task_status.started()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                try:
                    await self._store.sending.release()
                except DatabaseUnavailable:
                    log.info("webhooks=not_released reason=database_unavailable")

    async def _look(self, sender: Sender, nursery: trio.Nursery) -> None:
        """One look at what is to be done; returns when there may be something again."""
        self._wake, behind = trio.Event(), False
        work = await self._store.sending.work()
        random.shuffle(work)  # else the same would always come first where there is not place for all
        for webhook in work:
            if webhook.paused_at is None:
                behind = bool(await self._store.deliveries.spread(webhook.id)) or behind
            await self._start(sender, nursery, webhook)
        if not behind:
            with trio.move_on_after(POLL_S):
                await self._wake.wait()

    async def _start(self, sender: Sender, nursery: trio.Nursery, webhook: Webhook) -> None:
        """Starts sending what is due, as far as there is place."""
        flying = dict(self._flying)  # what ends while the database is asked may be in its answer still
        busy = sum(one.id == webhook.id for one in flying.values())
        company = sum(one.company_id == webhook.company_id for one in flying.values())
        most = AT_ONCE if webhook.failing_since is None else 1
        free = min(most - busy, COMPANY_AT_ONCE - company, ALL_AT_ONCE - len(flying))
        if free <= 0:
            return
        due = await self._store.sending.due(webhook, free + busy)
        for one in [one for one in due if one.id not in flying][:free]:
            self._flying[one.id] = webhook
            nursery.start_soon(self._send, sender, webhook, one)

    async def _send(self, sender: Sender, webhook: Webhook, due: Due) -> None:
        try:
            attempt = await self._attempt(sender, webhook, due)
            self._counters.add("sfu_webhook_deliveries_total", result=await self._written(webhook, due, attempt))
        finally:
            del self._flying[due.id]
            self._wake.set()

    async def _attempt(self, sender: Sender, webhook: Webhook, due: Due) -> Attempt:
        try:
            secrets = self._store.webhooks.secrets(webhook)
        except ConfigError as error:
            return Attempt(False, None, str(error), 0, self._wait_s(due.attempts), pause="secret")
        body = due.body.encode()
        headers = hooks.headers(due.event_id, self._store.sending.now(), body, secrets)
        try:
            response = await sender.post(webhook.url, headers, body)
        except Exception as error:  # of a library; it must end neither the others nor the server
            log.exception("webhook=%s delivery=%s attempt=failed", webhook.id, due.id)
            response = Response(None, type(error).__name__, 0)
        return self._judged(response, due)

    def _judged(self, response: Response, due: Due) -> Attempt:
        again_s = max(self._wait_s(due.attempts), min(response.retry_after_s, WAITS_S[-1]))
        pause = "gone" if response.status == GONE else ""
        return Attempt(response.ok, response.status, response.error, response.took_ms, again_s, pause)

    def _wait_s(self, attempts: int) -> float:
        """How long to wait after a failure that so many came before."""
        return WAITS_S[min(attempts, len(WAITS_S) - 1)] * (1 + JITTER * self._chance())

    async def _written(self, webhook: Webhook, due: Due, attempt: Attempt) -> str:
        """Writes the result, however long that fails: else the same would be sent again and again."""
        pause_s, said = AGAIN_S, False
        while True:
            try:
                return await self._store.sending.tried(webhook.id, due, attempt)
            except Exception as error:  # a bug must end neither the others nor the server
                if not said and not isinstance(error, DatabaseUnavailable):
                    log.exception("webhook=%s delivery=%s result=not_written", webhook.id, due.id)
                    said = True
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, AGAIN_MOST_S)
