"""Links that lead into a room, and the rooms that people name: a name, `company/room`, or a pasted link. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import parse_qs, quote, urlsplit

from sfu.refusals import BadValue
from sfu.settings.config import Config
from sfu.tenancy.names import spelled
from sfu.tenancy.tokens import claimed


@dataclass(frozen=True, slots=True)
class Named:
    """The room that somebody named. `text` is its name, perhaps with its company's before it (`company/room`).

    `key` is the key of its call, if a token names it. The token is not verified: it only says what is meant.
    """

    text: str
    key: str = ""


def named(text: str) -> Named:
    """The room that a name or a link names. Raises BadValue for a link that leads into no room."""
    if "://" not in text:
        return Named(spelled(text))
    query = parse_qs(urlsplit(text).query)
    if (key := claimed(query.get("token", [""])[0]).get("room", "")) and "/" in key:
        return Named(key.partition("/")[2], key)
    if room := query.get("room", query.get("invited", [""]))[0]:
        return Named(spelled(room))
    raise BadValue(f"The link {text[:200]!r} leads into no room. Give the room's name instead.")


def room_link(base: str, *, room: str = "", token: str = "") -> str:
    """The link into a room that needs no token, or with a token. `base` is the address of the page."""
    return f"{base.rstrip('/')}/?" + (f"token={token}" if token else f"room={quote(room, safe='')}")


def page_urls(config: Config, addresses: Sequence[str], names: Sequence[str] = (), *, secure: bool) -> list[str]:
    """Where browsers may open the page: at the `names` of the certificate, else at localhost and the `addresses`."""
    others = [address for address in addresses if not ip_address(address).is_loopback]
    hosts = list(names) or (others if config.host in others else ["localhost", *others])
    scheme, usual = ("https", 443) if secure else ("http", 80)
    port = "" if config.port == usual else f":{config.port}"
    return [f"{scheme}://{f'[{host}]' if ':' in host else host}{port}{config.base_path}" for host in hosts]
