"""Opens the store that the settings name, with the server key."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

from sfu.errors import ConfigError
from sfu.process import users
from sfu.settings.config import Config
from sfu.store import Store, has_companies, open_store
from sfu.store.urls import parse_url
from sfu.tenancy.keys import ServerKey

DATABASE, KEY, FILES = "sfu.db", "server.key", "files"
"""Names of files in SFU_DATA_DIR; the last is the folder of shared files."""
UNLIMITED = 1_000_000_000


@asynccontextmanager
async def open_data(config: Config, *, create: bool = True) -> AsyncIterator[Store]:
    """The store of this server, created at the first start. Raises ConfigError or DatabaseUnavailable.

    Without `create`, the server must have made it already, and nothing is left that the server could not write.
    """
    if create:
        await _check_key_kept(config)
    else:
        check_made(config)
    async with open_store(
        database_url(config),
        server_key(config),
        server=server_name(config),
        heartbeat_s=config.heartbeat_s,
        max_participants=config.max_peers if config.limits else UNLIMITED,
        chat_kept_s=config.chat_kept_s,
        audit_days=config.audit_days,
        history_days=config.history_days,
        guest_days=config.guest_history_days,
        event_days=config.event_days,
        keep_open_chat=config.keep_open_chat,
        create=create,
    ) as store:
        yield store


def server_name(config: Config) -> str:
    """The name of this server among those that share its database."""
    return config.server_name or f"{socket.gethostname()}:{config.port}"


def described(config: Config) -> str:
    """The database as messages show it: the path of a file, or the URL of a server without password and options."""
    if file := sqlite_file(config):
        return str(file)
    url = parse_url(database_url(config))
    place = f"{url.hostname or ''}{f':{url.port}' if url.port else ''}/{url.database}"
    if "@" in place:  # a part of the password, which has a "/" that is not escaped
        return "of SFU_DATABASE_URL"
    return f"{url.scheme}://{f'{url.username}@' if url.username else ''}{place}"


def database_url(config: Config) -> str:
    return config.database_url or f"sqlite:///{config.data_dir / DATABASE}"


def server_key(config: Config) -> ServerKey:
    """SFU_SERVER_KEY if set, else the key in its file, which is created if it does not exist. Raises ConfigError."""
    return ServerKey.from_text(config.server_key) if config.server_key else ServerKey.from_file(key_file(config))


def key_file(config: Config) -> Path:
    """The file of the server key, unless SFU_SERVER_KEY has the key itself."""
    if config.server_key_file:
        return config.server_key_file
    file = sqlite_file(config)
    return (file.parent if file else config.data_dir) / KEY


async def _check_key_kept(config: Config) -> None:
    """Raises ConfigError, with the way out, if the key file was lost: a new key would not fit the database."""
    file = key_file(config)
    if config.server_key or not _missing(file) or not await has_companies(database_url(config)) or not _missing(file):
        return
    raise ConfigError(
        f"There is no server key at {file}, and the database has companies whose secrets such a key sealed. Put the "
        "file back, or name it with SFU_SERVER_KEY_FILE, or set the key with SFU_SERVER_KEY. If it is lost, make a new "
        f"one, `(umask 077; openssl rand -base64 32 > {file}; chown --reference={file.parent} {file})`, and give each "
        "company a new secret, which ends its tokens: `sfu company list` shows them, and `sfu company rotate-secret "
        "NAME` does it."
    )


def _missing(file: Path) -> bool:
    """Whether there is no such file. One that is only out of reach is not missing."""
    try:
        file.stat()
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def sqlite_file(config: Config) -> Path | None:
    """The file of a SQLite database; None for PostgreSQL."""
    url = parse_url(database_url(config))
    return Path(url.database).absolute() if url.scheme == "sqlite" else None


def check_made(config: Config) -> None:
    """Raises ConfigError unless the files of the database and its key exist, and this user may use the database."""
    check_owner(config)
    if not config.server_key:
        _owner(key_file(config), "server key", "SFU_SERVER_KEY or SFU_SERVER_KEY_FILE")


def check_owner(config: Config) -> None:
    """Raises ConfigError unless a SQLite file exists that this user may use."""
    if file := sqlite_file(config):
        owner = _owner(file, "database", "SFU_DATA_DIR or SFU_DATABASE_URL")
        if os.geteuid() not in (0, owner):  # SQLite makes files beside this one; root's get this one's owner
            raise ConfigError(
                f"The database {file} belongs to another user, {users.name_of(owner)}. Run the command as that user or "
                "as root, for example with sudo."
            )


def data_owner(config: Config) -> tuple[int, int] | None:
    """For root: user and group of the data that are there, which new files are given to. None if there is no need."""
    for path in (sqlite_file(config), config.data_dir):
        if os.geteuid() == 0 and path and path.exists():
            found = path.stat()
            return found.st_uid, found.st_gid
    return None


@contextmanager
def new_database(file: Path | None) -> Iterator[ExitStack]:
    """Removes a SQLite file that did not exist before the block, unless what the block gets is emptied (`pop_all`)."""
    with ExitStack() as undo:
        for end in () if file is None or file.exists() else ("", "-wal", "-shm", "-server"):
            undo.callback(_unlink, f"{file}{end}")
        yield undo


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _owner(file: Path, what: str, variables: str) -> int:
    """The user id of a file's owner. Raises ConfigError if the file is not there or out of reach."""
    try:
        return file.stat().st_uid
    except PermissionError:
        raise ConfigError(
            f"This user has no access to the {what} {file}. Run the command as root, for example with sudo."
        ) from None
    except OSError:
        raise ConfigError(
            f"There is no {what} at {file}. `sfu serve` makes it at its first start. If the server runs with other "
            f"settings, give them to this command as well ({variables} with an absolute path, or --env-file FILE); "
            "if it runs as another user, use sudo. If it is lost, `sfu serve` says what to do."
        ) from None
