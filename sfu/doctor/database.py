"""The check of the database: reachable, its schema of this release, writable, and how fast it answers."""

from __future__ import annotations

import statistics
import time

from sfu.doctor.finding import Context, Finding, failed, note, ok, skipped
from sfu.errors import ConfigError
from sfu.refusals import DatabaseUnavailable
from sfu.store.data import described, open_data
from sfu.store.remedies import remedy

READS = 9
SLOW_MS = 50.0
"""Median answer time above which joins feel slow: each takes several statements."""


async def database(context: Context) -> Finding:
    """Changes nothing in the database, and makes none."""
    where = described(context.config)
    try:
        async with open_data(context.config, create=False) as store:
            await store.companies.check_key()
            await store.database.probe()
            median_ms = await _median_ms(store.database)
    except DatabaseUnavailable as error:
        reason = str(error.__cause__ or error)
        fix = remedy(error.__cause__) or "Its service, its disk and its rights decide."
        return failed(f"{where} cannot be used: {reason}", f"{fix} SFU_DATABASE_URL names it.")
    except ConfigError as error:
        if context.running is None and "There is no database" in str(error):
            return skipped(f"There is no database at {where} yet.", "`sfu serve` makes it at its first start.")
        what, _, fix = str(error).partition(". ")
        return failed(f"{what.removesuffix('.')}.", fix)
    if context.running is not None and context.running.database != "ok":
        state = "cannot reach it" if context.running.database == "away" else "has statements refused"
        return failed(f"{where} works for this command, but the running server {state}.", "The server's log says why.")
    if median_ms > SLOW_MS:
        return note(f"{where} answers in {median_ms:.0f} ms.", "Move it nearer to this server, or to a faster disk.")
    return ok(f"{where}, writable, answers in {median_ms:.1f} ms")


async def _median_ms(database: object) -> float:
    times = []
    for _ in range(READS):
        began_s = time.perf_counter()
        await database.read("SELECT 1 AS one")  # type: ignore[attr-defined]
        times.append((time.perf_counter() - began_s) * 1e3)
    return statistics.median(times)
