"""`sfu token ROOM`: makes a token and prints the link that lets one person into the room."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sfu import logs
from sfu.commands import output
from sfu.errors import ConfigError
from sfu.operator.audit import commander, record_command
from sfu.operator.control import ask
from sfu.refusals import Refusal
from sfu.settings.config import Config

if TYPE_CHECKING:
    from sfu.store.records import Company
    from sfu.tenancy.tokens import Grant

NAME, HELP = "token", "print a link that lets one person into a room"
DESCRIPTION = (
    "Makes a token and prints the link with it. The link lets one person into the room, under the name and with the "
    "rights in the token. It works until it expires, and after `sfu company rotate-secret` no longer."
)
ROLES: dict[str, dict[str, bool]] = {
    "participant": {},
    "moderator": {"moderate": True},
    "viewer": {"publish": False},
}
"""Permissions by role; those that are missing keep their default."""
LONGEST_S = 86_400
"""The longest that a token is valid."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `sfu token`."""
    output.add_room(parser)
    parser.add_argument("--name", type=output.text, default="guest", help="the person's name (default: guest)")
    parser.add_argument("--role", choices=ROLES, default="participant", help="a viewer sends no audio or video")
    parser.add_argument("--ttl", type=_lifetime, default=3600, metavar="TIME", help="90s, 15m, 8h, 1d (default: 1h)")
    parser.add_argument("--once", action="store_true", help="the token works for a single join")
    parser.add_argument("--company", type=output.text, help="whose room it is (default: the default company's)")
    parser.add_argument("--url", type=_url, help="the address of the page, such as https://meet.example.org")
    parser.add_argument("--bare", action="store_true", help="print the token instead of the link")
    output.add_json(parser)


def _lifetime(text: str) -> int:
    """How long the token is valid, in seconds."""
    seconds = output.duration(text)
    if not 1 <= seconds <= LONGEST_S:
        raise argparse.ArgumentTypeError("it must be from one second to one day, such as 15m or 1d")
    return seconds


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise argparse.ArgumentTypeError("it must be an address such as https://meet.example.org")
    return text


async def run(config: Config, options: argparse.Namespace) -> None:
    """Raises ConfigError, or a Refusal that names the problem."""
    from sfu.store.data import open_data
    from sfu.store.places import place
    from sfu.tenancy import tokens

    async with open_data(config, create=False) as store:
        company, room_id = await place(store, options.room, options.company)
        grant = tokens.grant(
            company_id=company.id,
            room_id=room_id,
            user_name=options.name,
            duration_s=options.ttl,
            now=datetime.now(UTC),
            permissions=tokens.Permissions(**ROLES[options.role]),
        )
        token = tokens.encode(grant, store.companies.secret(company).reveal())
        await store.tokens.add(grant, token, commander(), single_use=options.once)
    about = {"room": logs.quoted(f"{company.id}/{room_id}"), "name": logs.quoted(grant.user_name), "issued": grant.id}
    record_command("issue_token", company=logs.quoted(company.name), **about)
    _print(options, grant, token, company, await _urls(config, options.url))


def _print(options: argparse.Namespace, grant: Grant, token: str, company: Company, urls: Sequence[str]) -> None:
    """Prints only the link, or the token, to standard output, for scripts."""
    from sfu.tenancy.links import room_link

    links = [room_link(url, token=token) for url in urls]
    if options.json:
        about = {"company": company.name, "room_id": grant.room_id, "name": grant.user_name, "id": grant.id}
        expires = {"expires_at": grant.expires_at.isoformat().replace("+00:00", "Z")}
        output.print_json(about | expires | {"link": links[0], "links": links, "token": token})
        return
    room = grant.room_id if company.is_default else f"{company.name}/{grant.room_id}"
    print(
        f"For {grant.user_name}, {options.role}, in {room}, until "
        f"{output.shown_time(grant.expires_at)} UTC{', for a single join' if options.once else ''}:",
        file=sys.stderr,
    )
    print(token if options.bare else links[0])
    if not options.url and not options.bare:
        others = f" The server is also at {', '.join(urls[1:])}." if urls[1:] else ""
        print(f"If people open the page at another address, name it with --url.{others}", file=sys.stderr)


async def _urls(config: Config, given: str | None) -> list[str]:
    """Where the page is, the likeliest first: as given, or as the running server says, or on this machine."""
    from sfu.tenancy.links import page_urls

    if given:
        return [given]
    try:
        urls: list[str] = (await ask(config, "status"))["urls"]
    except (ConfigError, Refusal) as error:
        logs.say(
            f"sfu: the link has this machine's address, since the server cannot be asked. {error}", logging.WARNING
        )
        return page_urls(config, [], secure=False)
    outside = [url for url in urls if urlsplit(url).hostname != "localhost"]
    return outside + [url for url in urls if url not in outside]
