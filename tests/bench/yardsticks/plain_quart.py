"""The least that Quart-Trio can do: one route, no database. `python plain_quart.py PORT`."""

from __future__ import annotations

import sys

import hypercorn
import trio
from hypercorn.trio import serve
from quart_trio import QuartTrio

app = QuartTrio("yardstick")


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


config = hypercorn.Config()
config.bind = [f"127.0.0.1:{sys.argv[1]}"]
trio.run(serve, app, config)
