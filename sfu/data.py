"""Opens the store that the settings name, with the server key."""

from __future__ import annotations

import socket
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from databases.core import DatabaseURL

from sfu.config import Config
from sfu.store import Store, open_store
from sfu.tenancy.keys import ServerKey

DATABASE, KEY = "sfu.db", "server.key"
UNLIMITED = 1_000_000_000


def open_data(config: Config) -> AbstractAsyncContextManager[Store]:
    """The store of this server, created at the first start. Raises ConfigError or DatabaseUnavailable."""
    return open_store(
        database_url(config),
        server_key(config),
        server=config.server_name or f"{socket.gethostname()}:{config.port}",
        max_participants=config.max_peers if config.limits else UNLIMITED,
        chat_kept_s=config.chat_kept_s,
        history_days=config.history_days,
        keep_open_chat=config.keep_open_chat,
    )


def database_url(config: Config) -> str:
    return config.database_url or f"sqlite:///{config.data_dir / DATABASE}"


def server_key(config: Config) -> ServerKey:
    """SFU_SERVER_KEY if set, else the key in its file, which is created if it does not exist. Raises ConfigError."""
    if config.server_key:
        return ServerKey.from_text(config.server_key)
    file = config.server_key_file
    if file is None and config.database_url.startswith("sqlite:"):
        file = Path(DatabaseURL(config.database_url).database).parent / KEY
    return ServerKey.from_file(file or config.data_dir / KEY)
