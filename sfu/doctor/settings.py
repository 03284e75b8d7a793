"""Checks of the settings: unknown ones, those that contradict each other, and those that a restart has yet to apply."""

from __future__ import annotations

from collections.abc import Callable

from sfu.doctor.finding import Context, Finding, failed, note, ok, skipped
from sfu.settings import values
from sfu.settings.config import Config, as_texts, unknown

Holds = Callable[[Config], object]
CONTRADICTIONS: tuple[tuple[Holds, str, str], ...] = (
    (
        lambda config: config.loopback and config.trusted_proxies,
        "SFU_HOST is a loopback address, so media reaches nobody: it does not pass through a proxy.",
        "Remove SFU_HOST, and close the TCP port in the firewall instead.",
    ),
    (
        lambda config: config.tcp_port is None and config.port < 1024 and config.port not in (80, 443),
        "Browsers send no media over TCP to SFU_PORT: below 1024 they use 80 and 443 only.",
        "Use one of these, or set SFU_TCP_PORT.",
    ),
    (
        lambda config: config.base_path and not config.trusted_proxies,
        "SFU_BASE_PATH is for a proxy, but SFU_TRUSTED_PROXIES names none.",
        "Name the proxy in SFU_TRUSTED_PROXIES.",
    ),
    (
        lambda config: config.trusted_proxies and config.ping_s + config.pong_s >= 60,
        "SFU_PING_S and SFU_PONG_S together are 60 s or more, after which proxies close quiet WebSockets.",
        "Lower SFU_PING_S.",
    ),
    (
        lambda config: config.room_files_bytes < config.file_bytes,
        "SFU_FILE_BYTES is more than SFU_ROOM_FILES_BYTES: the largest files fit no room.",
        "Lower SFU_FILE_BYTES.",
    ),
    (
        lambda config: config.files_bytes < config.room_files_bytes,
        "SFU_ROOM_FILES_BYTES is more than SFU_FILES_BYTES, so one room can take the space of all.",
        "Lower SFU_ROOM_FILES_BYTES.",
    ),
    (
        lambda config: config.workers > values.cores(),
        "SFU_WORKERS is more than the cores of this machine: they take turns, and delay grows.",
        "Lower SFU_WORKERS, or remove it.",
    ),
    (lambda config: not config.limits, "SFU_LIMITS=off is for load tests.", "Remove SFU_LIMITS."),
)
"""What contradicts itself, what that leads to, and what to do. The first that holds is shown."""


async def settings(context: Context) -> Finding:
    source = str(context.env_file) if context.env_file else "the environment"
    if strange := unknown(context.env):
        return failed(strange[0], f"Correct or remove the line in {source}.")
    for holds, text, fix in CONTRADICTIONS:
        if holds(context.config):
            return failed(text, fix)
    if context.running is not None:
        return _applied(context, context.running.settings, source)
    return ok(f"from {source}; no server runs to compare them with")


def _applied(context: Context, running: dict[str, str], source: str) -> Finding:
    """Whether the running server has the settings that this command has."""
    ours = as_texts(context.config)
    differing = [name for name, text in ours.items() if name in running and running[name] != text]
    if differing:
        name = differing[0]
        more = f" {len(differing) - 1} more differ." if len(differing) > 1 else ""
        return note(
            f"The running server has {name}={running[name]}, but {source} says {ours[name]}.{more}",
            "Restart the server, or give this command the server's settings with --env-file.",
        )
    return ok(f"from {source}, as the running server has them")


async def proxies(context: Context) -> Finding:
    running, named = context.running, context.config.trusted_proxies
    if running is None:
        return skipped("Only a running server sees the headers of proxies.")
    if running.ignored:
        address = running.ignored[-1]
        return note(
            f"Requests from {address} have forwarding headers that the server ignores.",
            f"If this is your proxy: SFU_TRUSTED_PROXIES={address}. If not, somebody tries to forge an address.",
        )
    if not named:
        return ok("none named, and no request had forwarding headers")
    if not running.proxies:
        return note(
            "SFU_TRUSTED_PROXIES names proxies, but no request of theirs had forwarding headers yet.",
            "Open the page through the proxy, then run this again. If nothing changes, let the proxy send "
            "X-Forwarded-For and X-Forwarded-Proto.",
        )
    return ok(f"headers of {', '.join(running.proxies)} are believed")
