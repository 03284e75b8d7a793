"""People come and go for minutes: what the server's processes hold after each hundred of them."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import psutil
from media_client import Client
from process import Server, workers
from test_leaks import Use, WebSockets, come_and_go, enter

BATCH, WARM_UP = 100, 5
"""Joins between two looks, and looks that do not count: caches, pools and arenas fill at first."""
KB_PER_JOIN = 1.0
"""Goal: what is left of one join."""


def run(seconds: float) -> list[dict[str, Any]]:
    """A row for each hundred joins and process."""
    server = Server(limits="off").start()
    try:
        return asyncio.run(_live(server, seconds))
    finally:
        server.close()


async def _live(server: Server, seconds: float) -> list[dict[str, Any]]:
    processes = {"control": psutil.Process(server.pid), "worker": workers(server.pid)[0]}
    control, rows, began_s = WebSockets(server.port), [], time.monotonic()
    resident = Client(control, "resident")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(resident.aclose)
        await enter(resident)
        resident._following = asyncio.create_task(resident._follow())
        while time.monotonic() - began_s < seconds:
            await come_and_go(control, server, resident, BATCH)
            joins = (len(rows) // len(processes) + 1) * BATCH
            for name, process in processes.items():
                use = Use.of(process)
                rows.append({"process": name, "joins": joins, "files": use.files, "threads": use.threads,
                             "memory_kb": use.memory_bytes // 1024})  # fmt: skip
        await resident.leave()
    return rows


def growth(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By process: KB a join (the line through all looks after the first ones) and files more than at the first."""
    found = {}
    for name in ("control", "worker"):
        looks = [row for row in rows if row["process"] == name][WARM_UP:]
        if len(looks) > 1:
            mean_x = sum(row["joins"] for row in looks) / len(looks)
            mean_y = sum(row["memory_kb"] for row in looks) / len(looks)
            above = sum((row["joins"] - mean_x) * (row["memory_kb"] - mean_y) for row in looks)
            slope = above / sum((row["joins"] - mean_x) ** 2 for row in looks)
            found[name] = {"kb_per_join": slope, "files": looks[-1]["files"] - looks[0]["files"]}
    return found


def missed(rows: list[dict[str, Any]]) -> list[str]:
    return [
        f"{name}: {grown['kb_per_join']:.2f} KB a join, {grown['files']} more files"
        for name, grown in growth(rows).items()
        if grown["kb_per_join"] > KB_PER_JOIN or grown["files"] > 0
    ]
