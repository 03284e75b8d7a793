"""`sfu admin-key`: makes, lists and revokes keys that manage the companies of this server over REST."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from sfu import logs
from sfu.commands import key as keys
from sfu.commands import output
from sfu.operator.audit import commander, record_command

if TYPE_CHECKING:
    from sfu.settings.config import Config

NAME, HELP = "admin-key", "print a key that manages companies over REST"
DESCRIPTION = (
    "Makes an admin key and prints it. It creates, changes and disables companies and reads their usage over REST, and "
    "does nothing inside of them. It works until it is revoked."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `sfu admin-key`."""
    parser.add_argument("--name", type=output.text, default="admin", help="what the key is for (default: admin)")
    others = parser.add_mutually_exclusive_group()
    others.add_argument("--list", action="store_true", help="list the admin keys that work instead")
    others.add_argument("--revoke", metavar="KEY", help="revoke the key with this id or beginning (ak_…) instead")


async def run(config: Config, options: argparse.Namespace) -> None:
    """Raises ConfigError, or a Refusal that names the problem."""
    from sfu.store.data import open_data

    async with open_data(config, create=False) as store:
        working = [key for key in await store.keys.working() if key.company_id is None]
        if options.list:
            keys.show(working)
        elif options.revoke is not None:
            key = keys.pick(working, options.revoke)
            await store.keys.revoke(None, key.id, author=commander())
            record_command("revoke_admin_key", key_id=key.id, name=logs.quoted(key.name))
            print(f"The admin key {key.name!r} is revoked.")
        else:
            key, text = await store.keys.create_admin(keys.named(options.name), author=commander())
            record_command("create_admin_key", key_id=key.id, name=logs.quoted(key.name))
            print("An admin key of this server. It is shown only once:", file=sys.stderr)
            print(text.reveal())
