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

from sfu import turn, values
from sfu.errors import ConfigError

PREFIX = "SFU_"
SHARED_UDP = sys.platform == "linux"
"""Whether media workers can share a UDP port. Other systems deliver a datagram to an arbitrary one of the sockets."""

SERVER_FILES = frozenset({"SFU_TLS_CERT", "SFU_TLS_KEY"})
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


def _setting(
    default: Any, parse: Callable[[str], Any], text: str, *, unit: str = "", shown: str = "", secret: bool = False
) -> Any:
    """A field of Config. `parse` raises ValueError with a description of what is accepted.

    A callable `default` is called by each Config. `shown` replaces the default in help texts; a `secret` value is left
    out of the repr.
    """
    shown = shown or (f"{default:g}" if isinstance(default, float) else str(default))
    about = {"parse": parse, "unit": unit, "help": text, "shown": shown}
    if callable(default):
        return field(default_factory=default, metadata=about)
    return field(default=default, repr=not secret, metadata=about)


def _bytes(default: int, low: int, high: int, text: str) -> Any:
    return _setting(default, values.whole(low, high), text, unit="bytes")


def _seconds(default: float, text: str, low: float = 0.1) -> Any:
    return _setting(default, values.decimal(low, 3600), text, unit="seconds")


def _switch(default: bool, text: str) -> Any:
    return _setting(default, values.choice({"on": True, "off": False}), text, shown="on" if default else "off")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting. `Config()` has the defaults; `sfu serve` uses `from_env`."""

    host: str = _setting(
        values.ANY_HOST, values.host, "Address to listen on: * for all, 0.0.0.0 for all IPv4, :: for all IPv6."
    )
    port: int = _setting(
        8080, values.whole(1, 65535), "TCP and UDP port. Except on Linux, each further worker uses the next UDP port."
    )
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
        shown="every address listened on",
    )
    allowed_origins: tuple[str, ...] = _setting(
        (),
        values.origins,
        "Other sites' origins whose pages may connect or embed a call, comma-separated.",
        shown="none",
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
        (), turn.parse_urls, "TURN servers for networks that block UDP, comma-separated.", shown="none"
    )
    turn_secret: str = _setting(
        "", turn.parse_secret, "Secret of the TURN servers, coturn's static-auth-secret.", shown="none", secret=True
    )
    server_name: str = _setting(
        "", values.text, "Name of this server, unique among those that share a database.", shown="host name and port"
    )
    heartbeat_s: float = _seconds(10.0, "Interval at which ongoing sessions are recorded in the database.")
    allow_anonymous: bool = _switch(True, "off: every join needs a token.")
    workers: int = _setting(
        max(1, values.cores() - 1), values.whole(1, 256), "Number of media workers.", shown="cores - 1, at least 1"
    )
    limits: bool = _switch(
        True, "off: no rate limits, no maxima of peers and tracks. For load tests; needs a loopback SFU_HOST."
    )
    max_load: float = _setting(
        0.85, values.decimal(0.1, 1), "Load of a media worker above which it accepts no more peers.", unit="cores"
    )
    max_peers: int = _setting(
        100, values.whole(1, 10_000), "Most peers in a room created without a maximum of its own."
    )
    max_tracks: int = _setting(8, values.whole(2, 64), "Most tracks one peer may publish.")
    max_waiting: int = _setting(50, values.whole(1, 1000), "Most people waiting in the lobby of one room.")
    lobby_s: float = _seconds(600.0, "Longest wait in a lobby.")
    ban_s: int = _setting(
        43_200, values.whole(1, 31_536_000), "How long a removed participant who joined without a token is kept out.",
        unit="seconds",
    )  # fmt: skip
    chat_kept_s: int = _setting(
        86_400, values.whole(0, 315_360_000), "How long chat is kept, unless the room sets its own time. 0: not at "
        "all.",
        unit="seconds",
    )  # fmt: skip
    keep_open_chat: bool = _switch(
        False, "on: chat and files outlive the call also in rooms that anyone can enter by name."
    )
    history_days: int = _setting(
        365, values.whole(0, 36_500), "How long ended sessions and expired tokens are kept. 0: forever.", unit="days"
    )
    guest_history_days: int = _setting(
        30, values.whole(0, 36_500), "How long ended sessions without a token are kept, if that is shorter. 0: as long "
        "as others.", unit="days",
    )  # fmt: skip
    file_bytes: int = _bytes(10_485_760, 0, 1 << 30, "Largest file that may be shared in a call. 0: no files.")
    room_files_bytes: int = _bytes(209_715_200, 0, 1 << 40, "Most space for the files of one room.")
    files_bytes: int = _bytes(2_147_483_648, 0, 1 << 44, "Most space for the files of all rooms.")
    last_n: int = _setting(
        16, values.whole(0, 10_000), "Most videos sent to one peer: those of the last speakers. 0: all."
    )
    max_candidates: int = _setting(32, values.whole(1, 1000), "Most ICE candidates from one peer.")
    message_bytes: int = _bytes(65536, 1024, 1 << 24, "Longest WebSocket message.")
    section_bytes: int = _bytes(4096, 512, 65536, "Longest SDP answer, per media section of its offer.")
    messages_per_s: int = _setting(
        20, values.whole(1, 10_000), "Most WebSocket messages from one peer.", unit="per second"
    )
    messages_burst: int = _setting(60, values.whole(1, 10_000), "Most WebSocket messages from one peer at once.")
    head_bytes: int = _bytes(16384, 1024, 1 << 20, "Longest head of an HTTP request.")
    head_s: float = _seconds(5.0, "Timeout for the head of an HTTP request.")
    body_bytes: int = _bytes(65536, 0, 1 << 24, "Longest body of an HTTP request.")
    keep_alive_s: float = _seconds(75.0, "How long an idle HTTP connection is kept open.")
    join_s: float = _seconds(10.0, "Timeout from the connection to the first offer to somebody who may publish.")
    answer_s: float = _seconds(15.0, "Timeout for the answer to an offer.")
    ice_s: float = _seconds(15.0, "Timeout for ICE to find a media path.")
    dtls_s: float = _seconds(10.0, "Timeout for the DTLS handshake.")
    send_s: float = _seconds(10.0, "Timeout for one WebSocket message or one write to an HTTP connection.")
    ping_s: float = _seconds(20.0, "Time between WebSocket pings; plus SFU_PONG_S less than proxies' timeouts.")
    pong_s: float = _seconds(10.0, "Timeout for the pong, at least 3: a lost packet delays it by seconds.", low=3)
    hold_s: float = _seconds(
        15.0,
        "How long a peer whose WebSocket broke can resume; pages try after 1 to 3 seconds. A reloaded page gets its "
        "seat back for as long, up to 5 seconds.",
    )
    log_level: str = _setting(
        "info", values.choice({level: level for level in LOG_LEVELS}), "debug, info, warning or error."
    )

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
        if not self.limits and not self.loopback:
            raise ConfigError(
                f"SFU_LIMITS=off is not accepted while SFU_HOST is {self.host!r}: without limits the server must "
                "listen on loopback only, for example with SFU_HOST=127.0.0.1."
            )
        if self.udp_ports[-1] > 65535:
            raise ConfigError(
                f"SFU_PORT={self.port} is not accepted with {self.workers} workers (SFU_WORKERS): each needs a UDP "
                "port of its own, and the last would be above 65535."
            )

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
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host != values.ANY_HOST and ip_address(self.host).is_loopback


def settings() -> list[Setting]:
    """The settings table, in the order of Config."""
    return [
        Setting(_variable(spec.name), spec.name, spec.metadata["shown"], spec.metadata["unit"], spec.metadata["help"])
        for spec in fields(Config)
    ]


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
