"""`sfu coturn-config`: prints the configuration of a coturn that relays media to this server, and to nowhere else."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from ipaddress import ip_address

from sfu.errors import ConfigError
from sfu.network.turn import TurnUrl, parse_url
from sfu.settings.config import Config
from sfu.workers.addresses import Addresses

NAME, HELP = "coturn-config", "print the configuration of a TURN server"
DESCRIPTION = "Prints a turnserver.conf for coturn as the TURN server of SFU_TURN_URLS, with SFU_TURN_SECRET."

FIXED = """\
# Only UDP, and only to this server: nobody can use the relay for anything else.
no-tcp-relay
no-multicast-peers
denied-peer-ip=0.0.0.0-255.255.255.255
denied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
{peers}

# Allocations of one participant, who needs one for each network interface and URL, and of all together.
user-quota=50
total-quota=2000

fingerprint
no-cli
no-dtls
no-rfc5780
no-stun-backward-compatibility
response-origin-only-with-rfc5780
syslog"""
TLS = """\
cert=/etc/coturn/fullchain.pem
pkey=/etc/coturn/privkey.pem
no-tlsv1
no-tlsv1_1"""


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """It has none."""


async def run(config: Config, _options: argparse.Namespace) -> None:
    """Prints the file. Raises ConfigError."""
    print(turnserver_conf(config))


def turnserver_conf(config: Config) -> str:
    """A turnserver.conf for the settings, with their secret. Raises ConfigError if coturn cannot do what they say."""
    if not config.turn_urls:
        raise ConfigError("SFU_TURN_URLS and SFU_TURN_SECRET are not set: they name the TURN server to configure.")
    urls = [parse_url(url) for url in config.turn_urls]
    peers = "\n".join(f"allowed-peer-ip={address}" for address in _advertised(config))
    return "\n".join(
        [
            "# For SFU_TURN_URLS and SFU_TURN_SECRET, made by `sfu coturn-config`.",
            f"realm={urls[0].host}",
            "use-auth-secret",
            f"static-auth-secret={config.turn_secret}",
            "",
            *_listening(urls),
            "",
            FIXED.format(peers=peers),
        ]
    )


def _listening(urls: Sequence[TurnUrl]) -> list[str]:
    """Ports and TLS. coturn also accepts TLS on its port without."""
    plain, secure = (_port(urls, scheme) for scheme in ("turn", "turns"))
    lines = [f"listening-port={plain or secure}"]
    if plain and secure and plain != secure:
        lines.append(f"tls-listening-port={secure}")
    return [*lines, TLS if secure else "no-tls"]


def _port(urls: Sequence[TurnUrl], scheme: str) -> int | None:
    ports = list(dict.fromkeys(url.port for url in urls if url.scheme == scheme))
    if len(ports) > 1:
        named = " and ".join(map(str, ports))
        raise ConfigError(
            f"SFU_TURN_URLS has {scheme}: URLs with the ports {named}, but coturn listens on one: use one."
        )
    return ports[0] if ports else None


def _advertised(config: Config) -> Sequence[str]:
    """The addresses that browsers send media to; loopback only if there is no other."""
    addresses = Addresses(config)
    addresses.read()
    found = [one.address for one in addresses.advertised]
    return [address for address in found if not ip_address(address).is_loopback] or found
