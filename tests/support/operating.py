"""An operator at the machine of a server: its control socket, its database, and commands in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import trio

from sfu.__main__ import _parser
from sfu.operator.control import Control
from sfu.operator.operations import Operations
from sfu.settings.config import Config
from sfu.store.records import Company
from sfu.tenancy import tokens
from support.control import Client, Server, running, settings


class Place:
    """A server with its control socket. `config` is what a command on its machine has."""

    def __init__(self, server: Server, config: Config) -> None:
        self.server, self.config = server, config

    async def run(self, *arguments: str) -> None:
        """A command of `sfu`, in this process."""
        options = _parser().parse_args(arguments)
        await options.command.run(self.config, options)

    async def acme(self) -> Company:
        """Another company than the default one."""
        company, _ = await self.server.store.companies.create("Acme", "free")
        return company

    async def token(self, company: Company, room: str, name: str, **permissions: bool) -> str:
        grant = tokens.grant(
            company_id=company.id, room_id=room, user_name=name, duration_s=600, now=datetime.now(UTC),
            permissions=tokens.Permissions(**permissions),
        )  # fmt: skip
        token = tokens.encode(grant, self.server.store.companies.secret(company).reveal())
        await self.server.store.tokens.add(grant, token)
        return token

    @asynccontextmanager
    async def joined(self, company: Company, room: str, name: str, **permissions: bool) -> AsyncIterator[Client]:
        token = await self.token(company, room, name, **permissions)
        async with self.server.connect("/ws", token=token) as client:
            client.peer = (await client.expect("welcome"))["peer"]
            yield client


@asynccontextmanager
async def placed(tmp_path: Path, database_url: str = "") -> AsyncIterator[Place]:
    async with (
        running(tmp_path, settings(workers=2), database_url=database_url) as server,
        trio.open_nursery() as nursery,
    ):
        config = replace(
            server.config,
            data_dir=tmp_path,
            port=server.port,
            server_key=bytes(range(32)).hex(),
            database_url=database_url,
        )
        control = Control(tmp_path)
        calls, moderation = server.signaling.calls, server.signaling.moderation
        Operations(config, calls, moderation, lambda: None).register(control)
        await nursery.start(control.run)
        yield Place(server, config)
        nursery.cancel_scope.cancel()
