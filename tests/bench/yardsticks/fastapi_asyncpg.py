"""Tokens as a FastAPI service on asyncpg issues them: the same lookup of a key, the same row, the same signature.

`python fastapi_asyncpg.py PORT DATABASE_URL KEY`. FastAPI and uvicorn are no dependencies of this project.
"""

from __future__ import annotations

import hashlib
import json
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import jwt
import uvicorn  # type: ignore[import-not-found]
from fastapi import FastAPI, Header, HTTPException  # type: ignore[import-not-found]
from pydantic import BaseModel, Field  # type: ignore[import-not-found]

PORT, URL, KEY = int(sys.argv[1]), sys.argv[2], sys.argv[3]
SECRET = b"0123456789abcdef0123456789abcdef"


class TokenRequest(BaseModel):  # type: ignore[misc]
    room_id: str = Field(min_length=1, max_length=255)
    user_name: str = Field(min_length=1, max_length=255)
    duration: int = Field(3600, ge=1, le=86_400)


@asynccontextmanager
async def pool(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(URL, max_size=10) as app.state.pool:
        await app.state.pool.execute("CREATE TABLE yard_keys (hash TEXT PRIMARY KEY, company UUID)")
        await app.state.pool.execute(
            "CREATE TABLE yard_tokens (id UUID PRIMARY KEY, company UUID, hash TEXT, room TEXT, name TEXT)"
        )
        hashed = hashlib.sha256(KEY.encode()).hexdigest()
        await app.state.pool.execute("INSERT INTO yard_keys VALUES ($1, $2)", hashed, uuid.uuid4())
        yield


app = FastAPI(lifespan=pool)


@app.post("/api/v1/tokens", status_code=201)
async def issue(body: TokenRequest, authorization: str = Header()) -> dict[str, Any]:
    hashed = hashlib.sha256(authorization.removeprefix("Bearer ").encode()).hexdigest()
    row = await app.state.pool.fetchrow("SELECT company FROM yard_keys WHERE hash = $1", hashed)
    if row is None:
        raise HTTPException(401)
    now, id_ = datetime.now(UTC), uuid.uuid4()
    expires = now + timedelta(seconds=body.duration)
    claims = {"jti": str(id_), "exp": expires, "room": body.room_id, "name": body.user_name, "iat": now}
    token = jwt.encode(claims, SECRET, "HS256")
    await app.state.pool.execute(
        "INSERT INTO yard_tokens VALUES ($1, $2, $3, $4, $5)",
        id_, row["company"], hashlib.sha256(token.encode()).hexdigest(), body.room_id, body.user_name,
    )  # fmt: skip
    return json.loads(json.dumps({"token": token, "expires_at": expires.isoformat(), "room_id": body.room_id}))


uvicorn.run(app, host="127.0.0.1", port=PORT, access_log=False, log_level="warning")
