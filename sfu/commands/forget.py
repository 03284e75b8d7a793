"""`sfu forget`: erases everything about a person, while the server runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from sfu import logs
from sfu.commands import terminal
from sfu.errors import ConfigError
from sfu.operator.audit import commander, record_command
from sfu.refusals import BadValue, CompanyNotFound
from sfu.settings.config import Config

if TYPE_CHECKING:
    from sfu.store import Store
    from sfu.store.persons import Found, Person, Persons
    from sfu.store.records import Company

NAME, HELP = "forget", "erase everything about a person"
DESCRIPTION = (
    "Erases a person's sessions, chat, shared files, tokens and bans, also while the server runs; whoever is in a call "
    "is removed. It shows what it found and asks. Logs and backups are not changed."
)
SERVERS_S = 4.0
"""Within this, servers end the calls of a person, and have written what they still had."""
ROUNDS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `sfu forget`."""
    parser.add_argument(
        "--user", required=True, type=_text, metavar="WHO", help="a name, or the id of one person's session or token"
    )
    parser.add_argument("--company", type=_text, metavar="NAME", help="search in one company only")
    terminal.add_yes(parser)


def _text(argument: str) -> str:
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("it is not UTF-8") from None
    return argument


async def run(config: Config, options: argparse.Namespace) -> None:
    """Erases the person. Raises ConfigError, or a Refusal that names the problem."""
    from sfu.store.data import FILES, described, open_data
    from sfu.store.persons import Persons

    print(f"sfu: database {described(config)}", file=sys.stderr)
    said = "what was not erased yet is still there. Run the command again."
    async with terminal.interruptible(said), open_data(config, create=False) as store:
        persons, companies = Persons(store.database), {one.id: one for one in await store.companies.list()}
        everywhere = [await persons.find(one) for one in await _sought(persons, store, companies, options)]
        found = [one for one in everywhere if one]
        if not found:
            if alike := await persons.alike(options.user):
                raise BadValue(
                    f"Nothing about {options.user!r} was found, but there is {' and '.join(map(repr, alike))}. Give "
                    "the name as it is spelled there."
                )
            print(f"Nothing about {options.user!r} was found.")
            return
        for one in found:
            print(_described(one, companies[one.person.company_id]), file=sys.stderr)
        if options.yes and len({one.person.company_id for one in found}) > 1:
            raise ConfigError("Several companies have this name, perhaps of different people. Add --company NAME.")
        await terminal.confirm("Erase this?", options)
        for one in found:
            await _erase(persons, one, companies[one.person.company_id], config.data_dir / FILES)


async def _sought(
    persons: Persons, store: Store, companies: dict[str, Company], options: argparse.Namespace
) -> list[Person]:
    """Whom to look for: one person by an id, or the name in each company. Raises CompanyNotFound."""
    from sfu.store.persons import Person
    from sfu.tenancy.names import sought

    asked = set(companies)
    if options.company:
        company = await store.companies.by_name(sought(options.company)) or await store.companies.by_name(
            options.company
        )
        if company is None:
            raise CompanyNotFound(f"There is no company {options.company!r}. `sfu company list` shows all companies.")
        asked = {company.id}
    by_id = await persons.by_id(options.user)
    if by_id is not None:
        return [by_id] if by_id.company_id in asked else []
    names = dict.fromkeys((sought(options.user), options.user))  # older releases stored names as they came
    return [Person(company_id, name) for company_id in companies if company_id in asked for name in names]


def _described(found: Found, company: Company) -> str:
    counts = terminal.counted({table: len(ids) for table, ids in found.rows.items()})
    by_name = "" if found.person.id else f" named {found.person.name!r}"
    lines = [f"Company {company.name!r}{by_name}: {counts}"]
    if found.moderated:
        lines.append(f"  {len(found.moderated):,} bans of others keep, without the name of who made them")
    if found.present:
        lines.append(f"  in a call now, and removed from it: room {', '.join(map(repr, found.present))}")
    return "\n".join(lines)


async def _erase(persons: Persons, found: Found, company: Company, folder: Path) -> None:
    total = dict.fromkeys(found.rows, 0)
    for _ in range(ROUNDS):
        progress = terminal.Progress("Erasing", sum(map(len, found.rows.values())))
        await persons.erase(found, progress)
        progress.end()
        for file_id in found.rows["files"]:
            (folder / file_id).unlink(missing_ok=True)
        total = {table: count + len(found.rows[table]) for table, count in total.items()}
        if not found.present:
            break
        await trio.sleep(SERVERS_S)
        found = await persons.find(found.person)
        if not found:
            break
    print(f"Erased from company {company.name!r}: {terminal.counted(total)}.")
    await persons.forgotten(company.id, total, commander())
    record_command("forget", company=logs.quoted(company.name), id=company.id, **total)
