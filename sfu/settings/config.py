"""Settings: environment variables parsed into one frozen dataclass, with default, unit and description.

The fields of `Config` are the only list of settings. `sfu --help` prints it. `docs/operating.md` repeats it, and a test
compares the two.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Any

from sfu.errors import ConfigError
from sfu.network import turn
from sfu.settings import values

PREFIX = "SFU_"
HTTP_PORT, HTTPS_PORT = 80, 443
SHARED_UDP = sys.platform == "linux"
"""Whether media workers can share a UDP port. Other systems deliver a datagram to an arbitrary one of the sockets."""

SERVER_FILES = frozenset({"SFU_TLS_CERT", "SFU_TLS_KEY", "SFU_ACME_CA_FILE"})
"""Settings of files that only the server reads. Other commands may have no right to read them."""

LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the settings table. `default` is for people to read; `unit` is empty for values without a unit."""

    variable: str
    attribute: str
    default: str
    unit: str
    help: str
    live: bool
    secret: bool


def _setting(
    default: Any,
    parse: Callable[[str], Any],
    text: str,
    *,
    unit: str = "",
    shown: str = "",
    secret: bool = False,
    live: bool = False,
) -> Any:
    """A field of Config. `parse` raises ValueError with a description of what is accepted.

    A callable `default` is called by each Config. `shown` replaces the default in help texts; a `secret` value is left
    out of the repr. A `live` setting can change while the server runs: its readers read it from the Config each time.
    """
    shown = shown or (f"{default:g}" if isinstance(default, float) else str(default))
    about = {"parse": parse, "unit": unit, "help": text, "shown": shown, "live": live}
    if callable(default):
        return field(default_factory=default, metadata=about)
    return field(default=default, repr=not secret, metadata=about)


def _bytes(default: int, low: int, high: int, text: str, *, live: bool = False) -> Any:
    return _setting(default, values.whole(low, high), text, unit="bytes", live=live)


def _seconds(default: float, text: str, low: float = 0.1, *, live: bool = False) -> Any:
    return _setting(default, values.decimal(low, 3600), text, unit="seconds", live=live)


def _switch(default: bool, text: str, *, live: bool = False) -> Any:
    shown = "on" if default else "off"
    return _setting(default, values.choice({"on": True, "off": False}), text, shown=shown, live=live)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting. `Config()` has the defaults; `sfu serve` uses `from_env`. Only `adopt` changes one."""

    host: str = _setting(
        values.ANY_HOST, values.host, "Address to listen on: * for all, 0.0.0.0 for all IPv4, :: for all IPv6."
    )
    port: int = _setting(
        8080, values.whole(1, 65535), "TCP and UDP port. Except on Linux, each further worker uses the next UDP port.",
        shown="8080; with SFU_TLS_DOMAIN 443",
    )  # fmt: skip
    tcp_port: int | None = _setting(
        None,
        values.whole(1024, 65535, 0, 80, 443),
        "TCP port for media where UDP is blocked. 0: none.",
        shown="SFU_PORT",
    )
    public_ip: tuple[str, ...] = _setting(
        (),
        values.public_ip,
        "Addresses to which browsers send media, comma-separated.",
        shown="those of the interfaces",
    )
    stun: tuple[str, int] | None = _setting(
        None, values.stun_server, "STUN server that tells the public address behind a NAT, such as "
        "stun.example.org:3478.",
        shown="none",
    )  # fmt: skip
    allowed_origins: tuple[str, ...] = _setting(
        (),
        values.origins,
        "Other sites' origins whose pages may connect, embed a call or ask the REST API, comma-separated.",
        shown="none",
        live=True,
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _setting(
        (), values.networks, "Proxies whose forwarding headers are trusted, comma-separated.", shown="none"
    )
    base_path: str = _setting(
        "", values.base_path, "Path at which a proxy serves the rooms, such as /meet, if the proxy passes it on.",
        shown="none",
    )  # fmt: skip
    tls_cert: Path | None = _setting(
        None,
        values.file,
        "PEM file of a certificate with its chain. If set, the server speaks https only.",
        shown="none",
    )
    tls_key: Path | None = _setting(None, values.file, "PEM file of the certificate's private key.", shown="none")
    tls_domain: tuple[str, ...] = _setting(
        (), values.domains, "Domains for which the server gets a certificate by itself, comma-separated. With it, it "
        "speaks https only.", shown="none",
    )  # fmt: skip
    acme_directory: str = _setting(
        "https://acme-v02.api.letsencrypt.org/directory", values.https_url,
        "Authority from which SFU_TLS_DOMAIN gets its certificate: the URL of its ACME directory.",
        shown="Let's Encrypt",
    )  # fmt: skip
    acme_mail: str = _setting(
        "", values.mail, "Address for the authority's messages about the certificate.", shown="none"
    )
    acme_ca_file: Path | None = _setting(
        None, values.file, "PEM file with the root of an authority of your own, to trust its SFU_ACME_DIRECTORY.",
        shown="public ones",
    )  # fmt: skip
    redirect_port: int | None = _setting(
        None, values.whole(1, 65535, 0), "TCP port that redirects http to https, and where the authority looks. 0: "
        "none.", shown="none; with SFU_TLS_DOMAIN 80",
    )  # fmt: skip
    hsts_days: int = _setting(
        180, values.whole(0, 3650), "How long browsers insist on https, once they were here (HSTS). 0: not at all.",
        unit="days",
    )  # fmt: skip
    data_dir: Path = _setting(
        values.data_dir, values.path, "Folder for the database, the server key and shared files.",
        shown="~/.local/state/sfu, for root /var/lib/sfu",
    )  # fmt: skip
    database_url: str = _setting(
        "", str, "sqlite:////absolute/file.db or postgresql://user:password@host/name.",
        shown="sfu.db in SFU_DATA_DIR", secret=True,
    )  # fmt: skip
    server_key: str = _setting(
        "", str, "32 bytes in base64 or hex that encrypt companies' secrets in the database.",
        shown="the key in SFU_SERVER_KEY_FILE", secret=True,
    )  # fmt: skip
    server_key_file: Path | None = _setting(
        None, values.path, "File of the server key, made at the first start.", shown="server.key beside the database"
    )
    backup_passphrase: str = _setting(
        "", str, "Passphrase for `sfu backup` and `sfu restore`, if nobody is there to be asked.", shown="none",
        secret=True,
    )  # fmt: skip
    turn_urls: tuple[str, ...] = _setting(
        (), turn.parse_urls, "TURN servers for networks that block UDP, comma-separated.", shown="none", live=True
    )
    turn_secret: str = _setting(
        "", turn.parse_secret, "Secret of the TURN servers, coturn's static-auth-secret.", shown="none", secret=True,
        live=True,
    )  # fmt: skip
    server_name: str = _setting(
        "", values.text, "Name of this server, unique among those that share a database.", shown="host name and port"
    )
    heartbeat_s: float = _seconds(10.0, "Interval at which ongoing sessions are recorded in the database.")
    allow_anonymous: bool = _switch(True, "off: every join needs a token.", live=True)
    workers: int = _setting(
        max(1, values.cores() - 1), values.whole(1, 256), "Number of media workers.", shown="cores - 1, at least 1"
    )
    limits: bool = _switch(
        True, "off: no rate limits, no maxima of peers and tracks. For load tests; needs a loopback SFU_HOST."
    )
    key_requests: int = _setting(6000, values.whole(1, 10_000_000), "Most REST requests of a key a minute.", live=True)
    max_load: float = _setting(
        0.85, values.decimal(0.1, 1), "Load of a media worker above which it accepts no more peers.", unit="cores",
        live=True,
    )  # fmt: skip
    max_peers: int = _setting(
        100, values.whole(1, 10_000), "Most peers in a room created without a maximum of its own."
    )
    max_tracks: int = _setting(8, values.whole(2, 64), "Most tracks one peer may publish.")
    max_waiting: int = _setting(50, values.whole(1, 1000), "Most people waiting in the lobby of one room.", live=True)
    lobby_s: float = _seconds(600.0, "Longest wait in a lobby.", live=True)
    ban_s: int = _setting(
        43_200, values.whole(1, 31_536_000), "How long a removed participant who joined without a token is kept out.",
        unit="seconds", live=True,
    )  # fmt: skip
    chat_kept_s: int = _setting(
        86_400, values.whole(0, 315_360_000), "How long chat is kept, unless the room sets its own time. 0: not at "
        "all.",
        unit="seconds",
    )  # fmt: skip
    keep_open_chat: bool = _switch(
        False, "on: chat and files outlive the call also in rooms that anyone can enter by name."
    )
    audit_days: int = _setting(365, values.whole(0, 36_500), "How long the audit log is kept. 0: forever.", unit="days")
    history_days: int = _setting(
        365, values.whole(0, 36_500), "How long ended sessions and expired tokens are kept. 0: forever.", unit="days"
    )
    guest_history_days: int = _setting(
        30, values.whole(0, 36_500), "How long ended sessions without a token are kept, if that is shorter. 0: as long "
        "as others.", unit="days",
    )  # fmt: skip
    event_days: int = _setting(
        30, values.whole(0, 36_500), "How long events, and what webhooks were sent, are kept. 0: forever.", unit="days"
    )
    webhook_allow_private: bool = _switch(False, "on: webhooks may be http, and reach this machine and its networks.")
    file_bytes: int = _bytes(
        10_485_760, 0, 1 << 30, "Largest file that may be shared in a call. 0: no files.", live=True
    )
    room_files_bytes: int = _bytes(209_715_200, 0, 1 << 40, "Most space for the files of one room.", live=True)
    files_bytes: int = _bytes(2_147_483_648, 0, 1 << 44, "Most space for the files of all rooms.")
    last_n: int = _setting(
        16, values.whole(0, 10_000), "Most videos sent to one peer: those of the last speakers. 0: all."
    )
    max_candidates: int = _setting(32, values.whole(1, 1000), "Most ICE candidates from one peer.", live=True)
    message_bytes: int = _bytes(65536, 1024, 1 << 24, "Longest WebSocket message.")
    section_bytes: int = _bytes(4096, 512, 65536, "Longest SDP answer, per media section of its offer.", live=True)
    messages_per_s: int = _setting(
        20, values.whole(1, 10_000), "Most WebSocket messages from one peer.", unit="per second"
    )
    messages_burst: int = _setting(60, values.whole(1, 10_000), "Most WebSocket messages from one peer at once.")
    head_bytes: int = _bytes(16384, 1024, 1 << 20, "Longest head of an HTTP request.")
    head_s: float = _seconds(5.0, "Timeout for the head of an HTTP request.", live=True)
    body_bytes: int = _bytes(65536, 0, 1 << 24, "Longest body of an HTTP request.")
    keep_alive_s: float = _seconds(75.0, "How long an idle HTTP connection is kept open.")
    join_s: float = _seconds(
        10.0, "Timeout from the connection to the first offer to somebody who may publish.", live=True
    )
    answer_s: float = _seconds(15.0, "Timeout for the answer to an offer.")
    ice_s: float = _seconds(15.0, "Timeout for ICE to find a media path.")
    dtls_s: float = _seconds(10.0, "Timeout for the DTLS handshake.")
    send_s: float = _seconds(10.0, "Timeout for one WebSocket message or one write to an HTTP connection.")
    ping_s: float = _seconds(
        20.0, "Time between WebSocket pings; plus SFU_PONG_S less than proxies' timeouts.", live=True
    )
    pong_s: float = _seconds(
        10.0, "Timeout for the pong, at least 3: a lost packet delays it by seconds.", low=3, live=True
    )
    hold_s: float = _seconds(
        15.0,
        "How long a peer whose WebSocket broke can resume, at least 1: pages try after 1 to 3 seconds. A reloaded page "
        "gets its seat back for as long, up to 5 seconds.",
        low=1,
        live=True,
    )
    drain_s: float = _setting(
        5.0, values.decimal(0, 86_400), "How long calls go on after SIGTERM; new ones do not begin. 0: not at all.",
        unit="seconds", live=True,
    )  # fmt: skip
    metrics: tuple[str, int] | None = _setting(
        None, values.endpoint, "Address and port that serve /metrics instead of SFU_PORT, such as 127.0.0.1:9090.",
        shown="SFU_PORT, for this machine only",
    )  # fmt: skip
    metrics_token: str = _setting(
        "", values.token, "Bearer token for /metrics, from wherever it is asked.", shown="none", secret=True, live=True
    )
    log_level: str = _setting(
        "info", values.choice({level: level for level in LOG_LEVELS}), "debug, info, warning or error.", live=True
    )
    log_format: str = _setting(
        "text", values.choice({"text": "text", "json": "json"}), "Lines of the log: text, or json: an object per line."
    )
    access_log: bool = _switch(False, "on: the log has a line for each request to the REST API.", live=True)

    @classmethod
    def from_env(cls, env: Mapping[str, str], omit: Set[str] = frozenset()) -> Config:
        """Reads every SFU_* variable that is a setting, except those to `omit`; an empty one counts as unset.

        Raises ConfigError with the variable's name, its value and what is accepted.
        """
        given = {}
        for spec in fields(cls):
            variable = _variable(spec.name)
            text = env.get(variable, "").strip()
            if not text or variable in omit:
                continue
            if "\n" in text:  # not quoted here, since it may be a password's
                raise ConfigError(f"{variable} has more than one line. In a settings file, a quote may not be closed.")
            try:
                given[spec.name] = spec.metadata["parse"](text)
            except ValueError as error:
                shown = f"={text!r}" if spec.repr else ""
                raise ConfigError(f"{variable}{shown} is not accepted: it must be {error}.") from None
        if "tls_domain" in given:
            given.setdefault("port", HTTPS_PORT)
        config = cls(**given)
        config._check()
        return config

    def _check(self) -> None:
        """Checks that need more than one setting. Raises ConfigError."""
        for pair in (("tls_cert", "tls_key"), ("turn_urls", "turn_secret")):
            given, missing = sorted(pair, key=lambda name: not getattr(self, name))
            if getattr(self, given) and not getattr(self, missing):
                names = f"{_variable(given)} is set but {_variable(missing)} is not"
                raise ConfigError(f"{names}: both are needed, or neither.")
        if self.tls_domain and self.tls_cert:
            raise ConfigError("SFU_TLS_DOMAIN and SFU_TLS_CERT exclude each other: omit one of them.")
        if not self.limits and not self.loopback:
            raise ConfigError(
                f"SFU_LIMITS=off is not accepted while SFU_HOST is {self.host!r}: without limits the server must "
                "listen on loopback only, for example with SFU_HOST=127.0.0.1."
            )
        if (
            self.metrics
            and self.metrics[1] == self.port
            and (self.metrics[0] == self.host or values.ANY_HOST in (self.metrics[0], self.host))
        ):
            raise ConfigError(f"SFU_METRICS has the address and port of the pages, {self.port}: set another port.")
        if self.udp_ports[-1] > 65535:
            raise ConfigError(
                f"SFU_PORT={self.port} is not accepted with {self.workers} workers (SFU_WORKERS): each needs a UDP "
                "port of its own, and the last would be above 65535."
            )

    def adopt(self, new: Config) -> set[str]:
        """Takes over the live settings of `new`, in place, since everybody holds this object. Returns those that
        differed, by attribute."""
        live = [spec.name for spec in fields(Config) if spec.metadata["live"]]
        changed = {name for name in live if getattr(self, name) != getattr(new, name)}
        for name in changed:
            object.__setattr__(self, name, getattr(new, name))
        return changed

    @property
    def udp_ports(self) -> range:
        """The media workers' UDP ports: one if they can share it, else one each."""
        return range(self.port, self.port + (1 if SHARED_UDP else self.workers))

    @property
    def public_tcp_port(self) -> int:
        """The TCP port in ICE candidates, 0 for none: below 1024, browsers send media to ports 80 and 443 only."""
        reached = self.port if self.port >= 1024 or self.port in (80, 443) else 0
        return reached if self.tcp_port is None else self.tcp_port

    @property
    def secure(self) -> bool:
        """Whether the settings have the server speak https."""
        return bool(self.tls_cert or self.tls_domain)

    @property
    def plain_port(self) -> int:
        """The TCP port of plain http beside https, 0 for none."""
        default = HTTP_PORT if self.tls_domain and self.port != HTTP_PORT else 0
        return default if self.redirect_port is None else self.redirect_port

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host != values.ANY_HOST and ip_address(self.host).is_loopback


def settings() -> list[Setting]:
    """The settings table, in the order of Config."""
    found = []
    for spec in fields(Config):
        about = spec.metadata
        names, secret = (_variable(spec.name), spec.name), not spec.repr
        found.append(Setting(*names, about["shown"], about["unit"], about["help"], about["live"], secret))
    return found


def unknown(env: Mapping[str, str]) -> list[str]:
    """A warning for each SFU_* variable that is not a setting, with the most similar setting, if any."""
    known = [_variable(spec.name) for spec in fields(Config)]
    found = []
    for name in sorted(name for name in env if name.upper().startswith(PREFIX) and name not in known):
        close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.75)
        found.append(f"{name} is not a setting and is ignored." + (f" Did you mean {close[0]}?" if close else ""))
    return found


def _variable(attribute: str) -> str:
    return PREFIX + attribute.upper()


def as_texts(config: Config) -> dict[str, str]:
    """The value of each setting as text, by variable; without secrets, and without files that only the server reads."""
    shown = [spec for spec in fields(Config) if spec.repr and _variable(spec.name) not in SERVER_FILES]
    return {_variable(spec.name): _text(getattr(config, spec.name)) for spec in shown}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)
