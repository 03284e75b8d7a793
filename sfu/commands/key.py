"""`sfu key …`: lists, makes and revokes API keys of a company."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sfu import logs
from sfu.commands import output
from sfu.errors import BadName, ConfigError
from sfu.operator.audit import commander, record_command
from sfu.refusals import BadValue, KeyNotFound
from sfu.settings import settings_file
from sfu.tenancy.scopes import SCOPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfu.settings.config import Config
    from sfu.store import Store
    from sfu.store.keys import Key
    from sfu.store.records import Company

NAME, HELP = "key", "list, make and revoke API keys of a company"
DESCRIPTION = "Lists, makes and revokes API keys of a company. `sfu company rotate-key` replaces those that may do all."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands of `sfu key`."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (command, text) in COMMANDS.items():
        one = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        settings_file.add_option(one)
        one.set_defaults(key_command=command)
        one.add_argument("company", type=output.text, help="the company's name")
        if name == "create":
            one.add_argument("name", type=output.text, help="what the key is for")
            scopes = "what it may do; may be given repeatedly"
            one.add_argument("--scope", action="append", choices=SCOPES, required=True, help=scopes)
            one.add_argument("--expires", type=output.duration, metavar="TIME", help="12h, 90d (default: never)")
        if name == "revoke":
            one.add_argument("key", help="its id, or how it begins, such as pk_AbCdEfGh")


async def run(config: Config, options: argparse.Namespace) -> None:
    """Runs one subcommand on the server's database. Raises ConfigError, or a Refusal that names the problem."""
    from sfu.store.data import open_data
    from sfu.store.places import company_named

    async with open_data(config, create=False) as store:
        await store.companies.ensure_default()
        command: Command = options.key_command
        await command(store, await company_named(store, options.company), options)


async def _list(store: Store, company: Company, _options: argparse.Namespace) -> None:
    keys: list[Key] = []
    cursor = None
    while not keys or cursor:
        page = await store.keys.list(company.id, cursor=cursor)
        keys += page.items
        cursor = page.next
        if not page.items:
            break
    show(keys)


async def _create(store: Store, company: Company, options: argparse.Namespace) -> None:
    if options.expires == 0:
        raise ConfigError("--expires 0 makes a key that works no more. Leave it out for a key that never expires.")
    expires_at = None if options.expires is None else datetime.now(UTC) + timedelta(seconds=options.expires)
    scopes = list(dict.fromkeys(options.scope))
    name = named(options.name)
    key, text = await store.keys.create(company.id, name, scopes, expires_at=expires_at, author=commander())
    record_command("create_key", company=logs.quoted(company.name), key_id=key.id, name=logs.quoted(key.name))
    print(f"The API key {key.name!r} of {company.name}: {', '.join(scopes)}. It is shown only once:", file=sys.stderr)
    print(text.reveal())


async def _revoke(store: Store, company: Company, options: argparse.Namespace) -> None:
    keys = [key for key in await store.keys.working() if key.company_id == company.id]
    key = pick(keys, options.key)
    await store.keys.revoke(company.id, key.id, author=commander())
    record_command("revoke_key", company=logs.quoted(company.name), key_id=key.id, name=logs.quoted(key.name))
    print(f"The key {key.name!r} of {company.name} is revoked.")


def named(text: str) -> str:
    """The name of a key. Raises BadValue."""
    from sfu.tenancy.names import canonical

    try:
        return canonical(text, "key's name")
    except BadName as error:
        raise BadValue(str(error)) from None


def pick(keys: Sequence[Key], text: str) -> Key:
    """The one key with this id or prefix. Raises KeyNotFound."""
    found = [key for key in keys if text == key.id or (len(text) > 3 and text[: len(key.prefix)] == key.prefix)]
    if len(found) != 1:
        raise KeyNotFound("No key that works has this id or this beginning, of 11 characters.")
    return found[0]


def show(keys: Sequence[Key]) -> None:
    """Prints keys as a table."""
    rows = [("KEY", "NAME", "SCOPES", "STATE", "SINCE", "LAST USED", "ID")]
    now = datetime.now(UTC)
    for key in keys:
        used = "never" if key.last_used_at is None else output.shown_time(key.last_used_at)
        since = key.created_at.date().isoformat()
        rows.append((f"{key.prefix}…", key.name, ",".join(key.scopes), _state(key, now), since, used, key.id))
    output.print_table(rows)


def _state(key: Key, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "works"
    return f"{'works until' if key.works(now) else 'expired'} {output.shown_time(key.expires_at)}"


Command = Callable[["Store", "Company", argparse.Namespace], Awaitable[None]]
COMMANDS: dict[str, tuple[Command, str]] = {
    "list": (_list, "list the API keys of a company"),
    "create": (_create, "print a new API key, which cannot be shown again"),
    "revoke": (_revoke, "revoke an API key for good"),
}
