"""The lines that a start prints: the addresses to open, the ports that must be reachable, and what will not work."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from ipaddress import ip_address
from pathlib import Path

from sfu import __version__
from sfu.calls.reach import Scope, scope_of
from sfu.settings import settings_file
from sfu.settings.config import Config
from sfu.settings.values import data_dir
from sfu.store.records import Company
from sfu.tenancy.links import page_urls
from sfu.web.https import Https
from sfu.workers.addresses import Addresses


def announce(
    config: Config,
    media: Addresses,
    default: Company,
    https: Https | None,
    self_signed: bool,
    env_file: Path | None,
) -> None:
    """Prints the URLs to open, the ports that must be reachable, and what will not work."""
    command, given = _command(), settings_file.option(env_file)
    secure, addresses = https is not None, [one.address for one in media.advertised]
    others = [address for address in addresses if not ip_address(address).is_loopback]
    urls = page_urls(config, addresses, config.tls_domain, secure=secure)
    first, last = config.udp_ports[0], config.udp_ports[-1]
    ports = f"{first}" if last == first else f"{first}-{last}"
    rows = [("Open", url) for url in urls]
    rows.append(("Ports", f"TCP {config.port} and UDP {ports}"))
    rows += [("Media", text) for text in (*media.explain(), *_private(config, addresses))]
    if self_signed:
        rows.append(("Note", "The certificate is new at every start: browsers show a warning; choose to continue."))
    elif https is not None and https.missing:
        rows.append(("Note", "The certificate is not here yet: browsers show a warning until it is. The log tells."))
    elif others and not secure and not config.trusted_proxies:
        rows.append(("Note", "Over http, browsers allow camera and microphone on localhost only."))
        rows.append(("", f"For a phone, start with: {command} serve --self-signed{given}"))
    if default.created_at == default.updated_at:  # its key was never rotated, so nobody knows it
        shows = f"shows one for the REST API, {urls[0]}/api/v1/docs"
        where = "" if env_file else _place(config)
        rows.append(("API key", f"{where}{command} company rotate-key {default.name}{given}   {shows}"))
    lines, shown = [f"sfu {__version__} is ready. Stop it with Ctrl-C."], ""
    for label, text in rows:
        lines.append(f"  {label if label != shown else '':7} {text}")
        shown = label
    try:
        print("\n".join(lines), flush=True)
    except OSError:  # standard output was closed, with its terminal or pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _private(config: Config, addresses: list[str]) -> list[str]:
    """Who reaches the server if none of its addresses is public."""
    if not Scope.MACHINE < max(map(scope_of, addresses), default=Scope.MACHINE) < Scope.INTERNET:
        return []
    seen = "; the server of SFU_STUN saw no public one" if config.stun else ", or SFU_STUN to have it found"
    told = "private: only people in this network reach it; for others set SFU_PUBLIC_IP to the public address"
    return [told + seen]


def _place(config: Config) -> str:
    """The variables without which a command of another shell would work on another database. No passwords."""
    folder = "" if config.data_dir == data_dir() else f"SFU_DATA_DIR={shlex.quote(str(config.data_dir))} "
    return folder + ("SFU_DATABASE_URL=… " if config.database_url else "")


def _command() -> str:
    """What to type to run this program: its name if the shell finds it, else its path."""
    program = Path(sys.argv[0]).absolute()
    if program.name != "sfu" or shutil.which("sfu") == str(program):
        return "sfu"
    folder = Path.cwd()
    if folder == Path("/") or not program.is_relative_to(
        folder
    ):  # a service starts in /, its operator's shell does not
        return str(program)
    return str(program.relative_to(folder))
