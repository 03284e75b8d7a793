"""Gets a certificate from an authority and renews it in time, without asking too often.

What an attempt leads to is kept in the data folder, so that a restart changes nothing about when to ask next. The
certificate lies there as a file; certificate.py takes it up like one of the operator's.
"""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from sfu.errors import ConfigError
from sfu.logs import line, quoted
from sfu.process.background import repeat
from sfu.process.metrics import Counters
from sfu.process.private import write_private
from sfu.settings.config import HTTPS_PORT, Config
from sfu.web.certificate import days_left
from sfu.web.challenges import Challenges, IssueFailed
from sfu.web.tls import Tls, names_of, self_signed_context, temporary_context

if TYPE_CHECKING:
    from sfu.web.acme import Authority

log = logging.getLogger("sfu.tls")

T = TypeVar("T")
EARLIEST = "0001-01-01T00:00:00+00:00"
USELESS = "The new certificate is for other domains, or its time is over for the most part."
RELOAD = "`systemctl reload sfu` (SIGHUP) tries again at once."
FOLDER, CERTIFICATE, ATTEMPTS = "acme", "certificate.pem", "attempts.json"
DUE, LATEST = 2 / 3, 5 / 6
"""Shares of the lifetime after which a certificate is renewed, by itself and at the latest if the authority wants it
later."""
ASK = timedelta(hours=6)
"""How often the authority is asked when it wants the certificate renewed (RFC 9773 section 4.3.3)."""
STEP_S = 60.0
"""Longest sleep: the clock of the machine may be set, or stand still meanwhile."""
PAUSE, LONGEST_PAUSE = timedelta(minutes=5), timedelta(hours=12)
"""After a failed check, doubled by each further one. Let's Encrypt allows five an hour."""
BRIEF, LONGEST_BRIEF = timedelta(seconds=5), timedelta(hours=1)
"""The same for an authority that was not reached, which costs it nothing."""
JITTER = 0.25
"""Up to this share is added to a pause, since many servers may wait for the same authority."""
LIMITED = timedelta(hours=1)
"""Least pause after the authority said that a limit is reached."""
DETAIL_CHARACTERS, HINT_CHARACTERS = 400, 1000
LOOKUP_S = 5.0
CHALLENGE_PORTS = {"http-01": 80, "tls-alpn-01": 443}
NO_CHECK = {"unreachable", "untrusted", "storage", "timeout", "unexpected", "serverInternal", "accountDoesNotExist"}
"""Codes of failures that counted against nobody: the authority checked no domain."""
HINTS = {
    "dns": "Make an A or AAAA record that leads {domains} to this server.",
    "connection": "The authority did not find this server there: let {domains} lead to it, and open TCP port {port} in "
    "the firewall and the router.",
    "caa": "The CAA record of the domain names another authority: change it, or SFU_ACME_DIRECTORY.",
    "rejectedIdentifier": "The authority gives no certificate for this name: check SFU_TLS_DOMAIN.",
    "rateLimited": "Too many certificates or failures: wait. Restarts and SIGHUP change nothing.",
    "invalidContact": "Check SFU_ACME_MAIL.",
    "externalAccountRequired": "The authority wants an account made by hand: choose another SFU_ACME_DIRECTORY.",
    "userActionRequired": "The authority has new terms: read them, remove account.json in {folder}, and start again.",
    "unreachable": "Let this machine reach {directory}: check its name servers and firewall.",
    "untrusted": "For an authority of your own, name the PEM file of its root in SFU_ACME_CA_FILE.",
    "storage": "Let this user write to {folder}, and check the disk.",
    "useless": "Check the clock of this machine, and that this user may write to {folder}.",
    "no_challenge": "Choose another authority with SFU_ACME_DIRECTORY.",
}
SAME = {
    "incorrectResponse": "connection", "unauthorized": "connection", "tls": "connection", "malformed": "connection",
    "unsupportedContact": "invalidContact",
}  # fmt: skip
"""Authorities use different codes where another server answers, or none."""


@dataclass(frozen=True)
class Attempts:
    """What came of the attempts since the last success: failed checks, and failures before any check.

    `until` is the end of the pause (RFC 3339, UTC), empty for none. `asked`: the authority itself wants that pause.
    `settings` are those that the attempts were made with.
    """

    checks: int = 0
    others: int = 0
    until: str = ""
    asked: bool = False
    settings: str = ""


class Renewal:
    """The certificate for `config.tls_domain`. `tls` has it, or a self-signed one until there is one."""

    def __init__(self, config: Config, challenges: Challenges, *, http: bool) -> None:
        """`http`: whether a port of plain http is open, for the authority to look at."""
        self._config, self._challenges = config, challenges
        slug = re.sub(r"[^a-z0-9.-]+", "-", config.acme_directory.lower().removeprefix("https://"))
        self.folder = config.data_dir / FOLDER / slug[:100]
        self._file = self.folder / CERTIFICATE
        self.tls = self._kept()
        kinds = ["http-01", "tls-alpn-01"] if http else ["tls-alpn-01"]
        self._kinds = kinds[::-1] if config.port == HTTPS_PORT else kinds
        self._settings = f"{','.join(config.tls_domain)} {config.port} {config.plain_port if http else 0}"
        self._attempts = self._read()
        self._waiting = trio.CancelScope()
        self._authority: Authority | None = None

    @property
    def missing(self) -> bool:
        """Whether there is no certificate for these domains yet."""
        return self.tls.leaf is None or set(names_of(self.tls.leaf)) != set(self._config.tls_domain)

    async def run(self, taken_up: Callable[[], None], counters: Counters) -> None:
        """Renews until cancelled; no failure ends it. Calls `taken_up` once a new certificate is in its file."""
        if (until := self._paused()) > datetime.now(UTC):
            fields = {"domains": self._domains, "until": shown(until), "hint": "" if self._attempts.asked else RELOAD}
            log.warning("%s", line("certificate_waits", **fields))
        await repeat("renewal", partial(self._renew, taken_up), 0, counters)

    async def _renew(self, taken_up: Callable[[], None]) -> None:
        """Waits until it is time, or until it is time to ask again when that is, and renews."""
        due = await self._due()
        with trio.CancelScope() as self._waiting:
            await _sleep_until(min(due, datetime.now(UTC) + ASK))
        if datetime.now(UTC) >= due and not self._waiting.cancelled_caught:
            await self._attempt(taken_up)

    def hang_up(self) -> None:
        """The operator has changed something: ends the pause, unless the authority asked for it."""
        if not self._attempts.asked:
            self._attempts = replace(self._attempts, until="")
        self._waiting.cancel()

    @property
    def _domains(self) -> str:
        return ",".join(self._config.tls_domain)

    def _kept(self) -> Tls:
        """The certificate of an earlier run, or a self-signed one until there is one."""
        try:
            return Tls.of_files(self._file, self._file)
        except ConfigError as error:
            if self._file.exists():
                log.warning("%s", line("certificate_unusable", reason=repr(str(error))))
        tls = Tls(self_signed_context(self._config.tls_domain), (self._file, self._file))
        tls.loaded = tls.state()
        return tls

    def _paused(self) -> datetime:
        return datetime.fromisoformat(self._attempts.until or EARLIEST)

    def _renewed_at(self, wanted: datetime | None) -> datetime:
        """When to renew the current certificate, whatever the attempts so far."""
        leaf = self.tls.leaf
        if leaf is None or self.missing:
            return datetime.fromisoformat(EARLIEST)
        begin, lifetime = leaf.not_valid_before_utc, leaf.not_valid_after_utc - leaf.not_valid_before_utc
        return min(wanted or begin + DUE * lifetime, begin + LATEST * lifetime)

    async def _due(self) -> datetime:
        """When to make the next attempt. Asks the authority when it wants that, unless it is time anyway."""
        wanted, now = None, datetime.now(UTC)
        if self._renewed_at(None) > now:
            try:
                pem = await trio.Path(self._file).read_bytes()
                wanted = await self._in_thread(lambda authority: authority.renewal(pem))
            except (IssueFailed, OSError) as error:
                log.debug("renewal_info error=%r", error)
        return max(self._paused(), self._renewed_at(wanted))

    async def _in_thread(self, work: Callable[[Authority], T]) -> T:
        """What the authority answers, which takes up to minutes. The end of the server does not wait for it."""

        def blocking() -> T:
            from sfu.web.acme import Authority  # takes half a second, and memory that others do not need

            if self._authority is None:
                config = self._config
                self._authority = Authority(config.acme_directory, self.folder, config.acme_mail, config.acme_ca_file)
            return work(self._authority)

        return await trio.to_thread.run_sync(blocking, abandon_on_cancel=True)

    async def _attempt(self, taken_up: Callable[[], None]) -> None:
        """Asks for a certificate. A server that ends meanwhile pauses as after a failure."""
        before, kind = self._attempts, self._kinds[self._attempts.checks % len(self._kinds)]
        fields = {"domains": self._domains, "challenge": kind, "directory": self._config.acme_directory}
        log.info("%s", line("certificate_ordered", **fields))
        try:
            begun = replace(before, others=before.others + 1, asked=False)
            self._keep(begun, _brief(before.others + before.checks))
            pem = await self._in_thread(
                lambda authority: authority.issue(self._config.tls_domain, kind, self._challenges)
            )
            self._write(pem)
        except IssueFailed as error:
            await self._failed(error, kind, before)
        except OSError as error:
            await self._failed(IssueFailed("storage", str(error)), kind, before)
        else:
            taken_up()
            if self._renewed_at(None) <= datetime.now(UTC):
                await self._failed(IssueFailed("useless", USELESS), kind, before)
            else:
                self._forget()

    def _write(self, pem: bytes) -> None:
        """Keeps the certificate. Raises IssueFailed if it cannot be used or kept: both cost the authority one."""
        try:
            temporary_context(pem, pem)
            write_private(self._file, pem)
        except (ConfigError, OSError) as error:
            raise IssueFailed("useless", str(error)) from error

    async def _failed(self, error: IssueFailed, kind: str, before: Attempts) -> None:
        """Says what went wrong and what helps, and sets the pause."""
        now_tried, pause = self._next(error, before)
        until = datetime.now(UTC) + pause
        hint = HINTS.get(SAME.get(error.code, error.code), "").format(
            domains=self._domains, port=CHALLENGE_PORTS[kind], directory=self._config.acme_directory, folder=self.folder
        )
        try:
            self._keep(now_tried, pause)
        except OSError as unwritten:
            log.warning("attempt_not_kept error=%r", unwritten)
        fields = {
            "domains": self._domains, "challenge": kind, "code": error.code, "days_left": days_left(self.tls),
            "hint": quoted(" ".join(filter(None, (hint, "" if now_tried.asked else RELOAD))), HINT_CHARACTERS),
            "detail": quoted(error.detail, DETAIL_CHARACTERS), "next_try": shown(until),
            "resolves_to": await _resolved(self._config.tls_domain),
        }  # fmt: skip
        log.warning("%s", line("certificate_failed", **fields))

    def _next(self, error: IssueFailed, before: Attempts) -> tuple[Attempts, timedelta]:
        """What to remember of a failure, and the pause after it."""
        if error.code == "rateLimited":
            now_tried, pause = before, LIMITED
        elif error.code in NO_CHECK:
            now_tried, pause = replace(before, others=before.others + 1), _brief(before.others)
        else:
            now_tried = replace(before, checks=before.checks + 1, others=0)
            doubled = now_tried.checks - len(self._kinds)  # each kind is tried once before
            pause = BRIEF if doubled < 0 else min(PAUSE * 2.0 ** min(doubled, 20), LONGEST_PAUSE)
        if error.code == "useless":
            pause = LONGEST_PAUSE
        wanted = (error.retry_at - datetime.now(UTC)) if error.retry_at else timedelta(0)
        asked = error.retry_at is not None or error.code == "rateLimited"
        return replace(now_tried, asked=asked), max(pause * random.uniform(1, 1 + JITTER), wanted)

    def _read(self) -> Attempts:
        """What is known of earlier runs. Other settings may work at once, unless the authority asked for a pause."""
        try:
            found = Attempts(**json.loads((self.folder / ATTEMPTS).read_bytes()))
            datetime.fromisoformat(found.until or EARLIEST).astimezone(UTC)
        except FileNotFoundError:
            found = Attempts()
        except (OSError, ValueError, TypeError) as error:
            log.warning("attempts_unreadable error=%r", error)
            found = Attempts()
        kept = found.settings == self._settings or found.asked
        return replace(found if kept else Attempts(), settings=self._settings)

    def _keep(self, attempts: Attempts, pause: timedelta) -> None:
        """Writes down the attempts, and that nothing is to be tried for a while. Raises OSError."""
        self._attempts = replace(attempts, until=(datetime.now(UTC) + pause).isoformat())
        write_private(self.folder / ATTEMPTS, json.dumps(asdict(self._attempts), indent=1).encode() + b"\n")

    def _forget(self) -> None:
        self._attempts = Attempts(settings=self._settings)
        (self.folder / ATTEMPTS).unlink(missing_ok=True)


async def _resolved(domains: Sequence[str]) -> str:
    """Where the name servers of this machine say that the domains lead."""
    found = []
    for domain in domains:
        addresses = list[str]()
        with trio.move_on_after(LOOKUP_S), suppress(OSError):
            answers = await trio.socket.getaddrinfo(domain, HTTPS_PORT, type=trio.socket.SOCK_STREAM)
            addresses = [str(answer[4][0]) for answer in answers]
        found.append(",".join(addresses) or "nothing")
    return ";".join(found)


async def _sleep_until(when: datetime) -> None:
    while (left_s := (when - datetime.now(UTC)).total_seconds()) > 0:  # noqa: ASYNC110 -- the machine's clock has no event
        await trio.sleep(min(STEP_S, left_s))


def _brief(before: int) -> timedelta:
    """The pause after a failure before any check, which so many others came before."""
    return min(BRIEF * 2.0 ** min(before, 20), LONGEST_BRIEF)


def shown(when: datetime) -> str:
    return when.isoformat(timespec="seconds").replace("+00:00", "Z")
