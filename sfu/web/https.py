"""What a server that speaks https has besides its port: the certificate, its renewal, and a port of plain http."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from sfu.errors import ConfigError
from sfu.process.metrics import Counters
from sfu.settings.config import Config
from sfu.web import edge
from sfu.web.certificate import Certificate
from sfu.web.challenges import Challenges
from sfu.web.renewal import Renewal
from sfu.web.tls import Tls, self_signed_context


@dataclass
class Https:
    """The parts for `edge.serve`, and what `run` keeps up to date. `renewal` is there for SFU_TLS_DOMAIN."""

    tls: Tls
    certificate: Certificate
    plain: Sequence[trio.SocketListener]
    challenges: Challenges
    renewal: Renewal | None = None

    @property
    def missing(self) -> bool:
        """Whether browsers warn of the certificate until there is one."""
        return self.renewal is not None and self.renewal.missing

    async def run(self, counters: Counters) -> None:
        """Watches and renews the certificate until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.certificate.run)
            if self.renewal is not None:
                nursery.start_soon(self.renewal.run, self.certificate.reload, counters)

    def hang_up(self) -> None:
        """SIGHUP: takes up what the operator has changed."""
        if self.renewal is not None:
            self.renewal.hang_up()
        else:
            self.certificate.reload()


def check_https(config: Config, *, self_signed: bool) -> None:
    """Raises ConfigError for settings that exclude each other, one of which is an option of the command."""
    for name, given in (("SFU_TLS_CERT", config.tls_cert), ("SFU_TLS_DOMAIN", config.tls_domain)):
        if self_signed and given:
            raise ConfigError(f"--self-signed and {name} exclude each other: omit one of them.")
    if config.redirect_port and not (self_signed or config.secure):
        raise ConfigError("SFU_REDIRECT_PORT needs https to redirect to: set SFU_TLS_DOMAIN or SFU_TLS_CERT as well.")


async def open_https(config: Config, counters: Counters, self_signed_for: Sequence[str]) -> Https | None:
    """Loads or makes the certificate, and opens the port of plain http; None for a server that speaks http.

    `self_signed_for` are the hosts of a certificate that is made now, none for one that the settings name. Raises
    ConfigError.
    """
    if not config.secure and not self_signed_for:
        return None
    plain, challenges, renewal = await edge.listen_plain(config), Challenges(), None
    if self_signed_for:
        tls = Tls(self_signed_context(self_signed_for))
    elif config.tls_cert and config.tls_key:
        tls = Tls.of_files(config.tls_cert, config.tls_key)
    else:
        renewal = Renewal(config, challenges, http=bool(plain))
        tls = renewal.tls
    return Https(tls, Certificate(tls, counters), plain, challenges, renewal)
