"""`sfu company …`: manages companies, their API keys and secrets from the command line."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from sfu import logs
from sfu.commands import output
from sfu.commands.tier import TIERS
from sfu.errors import BadName, ConfigError
from sfu.operator.audit import commander, record_command
from sfu.refusals import BadValue
from sfu.settings import settings_file

if TYPE_CHECKING:
    from sfu.settings.config import Config
    from sfu.store import Store
    from sfu.store.records import Company

NAME, HELP = "company", "create, list and change companies and their API keys"
DESCRIPTION = "Creates, lists and changes companies and their API keys."

Command = Callable[["Store", argparse.Namespace], Awaitable["Company | None"]]
"""Returns the company that it changed, if any."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands of `sfu company`."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (command, text) in COMMANDS.items():
        one = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        settings_file.add_option(one)
        one.set_defaults(company_command=command, company_event=f"company_{name.replace('-', '_')}")
        if name != "list":
            one.add_argument("name", type=output.text, help="the company's name")
        if name == "create":
            one.add_argument("--tier", choices=TIERS, default="free")
        if name == "set-tier":
            one.add_argument("tier", choices=TIERS)


async def run(config: Config, options: argparse.Namespace) -> None:
    """Runs one subcommand on the server's database. Raises ConfigError, or a Refusal that names the problem."""
    from sfu.store.data import described, open_data  # takes a quarter of a second; `sfu --help` need not wait for it

    settings = f", settings from {options.env_file}" if options.env_file else ""
    print(f"sfu: database {described(config)}{settings}", file=sys.stderr)
    async with open_data(config, create=False) as store:
        await store.companies.ensure_default()
        command: Command = options.company_command
        changed = await command(store, options)
        if changed is not None:
            about = {"company": logs.quoted(changed.name), "id": changed.id}
            record_command(options.company_event, **about)


async def _create(store: Store, options: argparse.Namespace) -> Company:
    from sfu.tenancy.names import canonical

    try:
        name = canonical(options.name, "company's name")
    except BadName as error:
        raise BadValue(str(error)) from None
    await store.companies.check_key()
    company, key = await store.companies.create(name, options.tier, commander())
    _show_key(company, key.reveal())
    return company


async def _list(store: Store, _options: argparse.Namespace) -> None:
    try:
        await store.companies.check_key()
    except ConfigError as error:
        logs.say(f"sfu: {error}", logging.WARNING)
    rows = [("NAME", "KEY", "TIER", "STATE", "SINCE", "ID")]
    keys = await store.keys.working()
    for company in await store.companies.list():
        shown = [f"{key.prefix}…" for key in keys if key.company_id == company.id]
        if shown[1:]:
            shown = [f"{shown[0]} and {len(shown) - 1} more"]
        state = "active" if company.is_active else "disabled"
        if not store.companies.opens(company):
            state += ", needs rotate-secret"
        since = company.created_at.date().isoformat()
        rows.append((company.name, "".join(shown) or "none", company.tier, state, since, company.id))
    output.print_table(rows)


async def _rotate_key(store: Store, options: argparse.Namespace) -> Company:
    company, key = await store.companies.rotate_key((await _named(store, options)).id, commander())
    _show_key(company, key.reveal())
    return company


async def _rotate_secret(store: Store, options: argparse.Namespace) -> Company:
    before = await _named(store, options)
    company = await store.companies.rotate_secret(before.id, commander())
    if not store.companies.opens(before):
        print("Another server key sealed the last secret. Servers need the key of this command now.", file=sys.stderr)
    print(f"Tokens of {company.name} issued until now are no longer accepted.")
    return company


async def _set_secret(store: Store, options: argparse.Namespace) -> Company:
    from sfu.tenancy.keys import KEY_BYTES, Secret

    company = await _named(store, options)
    text = sys.stdin.readline().rstrip("\r\n")
    if text and len(text.encode()) < KEY_BYTES:
        raise ConfigError(
            f"The secret must have at least {KEY_BYTES} bytes, for example from `openssl rand -base64 32`."
        )
    secret = Secret(text.encode()) if text else None
    company = await store.companies.set_own_secret(company.id, secret, commander())
    said = "are accepted now" if text else "are no longer accepted"
    print(f"Tokens that {company.name} signs with a secret of its own {said}.")
    return company


async def _set_tier(store: Store, options: argparse.Namespace) -> Company:
    company = await store.companies.change((await _named(store, options)).id, {"tier": options.tier}, commander())
    print(f"{company.name} has the tier {company.tier}.")
    return company


async def _disable(store: Store, options: argparse.Namespace) -> Company:
    company = await store.companies.set_active((await _named(store, options)).id, False, commander())
    print(f"{company.name} is disabled: its keys and tokens are refused, and its calls end.")
    return company


async def _enable(store: Store, options: argparse.Namespace) -> Company:
    company = await store.companies.set_active((await _named(store, options)).id, True, commander())
    print(f"{company.name} is active.")
    return company


async def _named(store: Store, options: argparse.Namespace) -> Company:
    from sfu.store.places import company_named

    return await company_named(store, options.name)


def _show_key(company: Company, key: str) -> None:
    """Prints only the key to standard output, for scripts: `KEY=$(sfu company create "Acme")`."""
    print(f"The API key of {company.name}. It is shown only once:", file=sys.stderr)
    print(key)


COMMANDS: dict[str, tuple[Command, str]] = {
    "create": (_create, "create a company and print its API key, which cannot be shown again"),
    "list": (_list, "list the companies"),
    "rotate-key": (
        _rotate_key,
        "print a new API key; the company's other keys with the scope admin stop working at once",
    ),
    "rotate-secret": (_rotate_secret, "invalidate every token of a company at once"),
    "set-secret": (
        _set_secret,
        "read a secret from standard input with which a company signs tokens itself; empty: none",
    ),
    "set-tier": (_set_tier, "change a company's tier, which decides its limits"),
    "disable": (_disable, "refuse a company's keys and tokens, and end its calls"),
    "enable": (_enable, "enable a disabled company"),
}
