"""Keeps the certificate of new connections up to date: loads its files when they change, and tells its days."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import trio

from sfu.errors import ConfigError
from sfu.logs import line
from sfu.process.background import repeat
from sfu.process.metrics import Counters, family
from sfu.web.tls import Tls, names_of

log = logging.getLogger("sfu.tls")

LOOK_S = 2.0
"""How often the files are looked at. Changes are taken up when they are as old: files are written one by one."""
DAY = timedelta(days=1)
"""How often the log tells the days left."""
SHORT_DAYS, SHORT = 14, 0.25
"""The log warns when so many days or such a share of the lifetime is left, whichever is less. Renewals come before."""


class Certificate:
    """The certificate in `tls`, for as long as `run` runs."""

    def __init__(self, tls: Tls, counters: Counters) -> None:
        self._tls, self._counters = tls, counters
        self._seen = tls.state()
        self._told = datetime.min.replace(tzinfo=UTC)

    async def run(self) -> None:
        """Watches the files until cancelled."""
        self._tell("certificate")
        await repeat("certificate", self._look, LOOK_S, self._counters)

    def reload(self) -> None:
        """Loads the files at once. If they cannot be used, the current certificate stays until they change."""
        if self._tls.files is None:
            return
        try:
            self._tls.reload()
        except ConfigError as error:
            log.warning("%s", line("certificate_kept", reason=repr(str(error)), days_left=days_left(self._tls)))
        else:
            self._tell("certificate_renewed")

    def metrics(self) -> str:
        """The days left as Prometheus text: 0 while there is no certificate, and none without TLS files."""
        text = "Days until the certificate of https expires; 0 while there is none."
        days = days_left(self._tls) or 0
        return family("sfu_certificate_days_left", "gauge", text, [({}, days)]) if self._tls.files else ""

    async def _look(self) -> None:
        seen = await trio.to_thread.run_sync(self._tls.state)
        settled, self._seen = seen == self._seen, seen
        if settled and seen != self._tls.loaded:
            self.reload()
        if datetime.now(UTC) - self._told >= DAY:
            self._tell("certificate")

    def _tell(self, event: str) -> None:
        """The names and days of the certificate; a warning if they are few."""
        days, leaf = days_left(self._tls), self._tls.leaf
        self._told = datetime.now(UTC)
        if days is None or leaf is None:
            return
        lifetime = (leaf.not_valid_after_utc - leaf.not_valid_before_utc) / DAY
        level = logging.WARNING if days < min(SHORT_DAYS, SHORT * lifetime) else logging.INFO
        hint = repr("It has expired: browsers refuse it." if days < 0 else "It was not renewed yet.")
        names = ",".join(names_of(leaf))
        log.log(level, "%s", line(event, names=names, days_left=days, hint=hint if level == logging.WARNING else ""))


def days_left(tls: Tls) -> float | None:
    """To a tenth, below 0 after the end; None without a certificate of files."""
    return None if tls.leaf is None else round((tls.leaf.not_valid_after_utc - datetime.now(UTC)) / DAY, 1)
