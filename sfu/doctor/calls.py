"""The server's call to itself, and how many calls this machine carries."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Literal
from urllib.parse import parse_qs

import msgspec
import trio

from sfu.calls.reach import Scope, scope_of
from sfu.doctor import certificate, process
from sfu.doctor.finding import Context, Finding, Run, failed, note, ok, skipped
from sfu.doctor.nat import mapped
from sfu.network.interfaces import local_addresses
from sfu.network.turn import parse_url
from sfu.operator import control
from sfu.settings.config import Config

PATH_S = 8.0
"""Timeout for one path. With a way there is, it takes a fraction of a second."""
PATHS = 6
"""Most paths of a leg that are tested, so that a machine with many addresses does not take minutes."""
CLOSE_S = 5.0
"""How long the running server may take to end the invitation."""
MEASURE_S = 3
"""How long rooms of 6 talk to measure what they cost."""
LOST = 0.05
"""Share of lost packets above which the machine was too busy to be measured."""

Leg = Literal["udp", "tcp", "relay"]


class _Path(msgspec.Struct):
    host: str
    port: int


class _Outcome(msgspec.Struct):
    """What sfu/media/probe/call.py prints."""

    path: _Path
    stage: str
    ms: int
    packets: int
    reason: str


def call(leg: Leg) -> Run:
    """The check of one leg: sound goes through the running server and back, at each advertised address."""

    async def run(context: Context) -> Finding:
        running = context.running
        if running is None:
            return skipped("Needs the running server.")
        if leg == "tcp" and not running.tcp_port:
            return ok("off (SFU_TCP_PORT, or an SFU_PORT that browsers refuse)")
        if leg == "relay" and not context.config.turn_urls:
            return ok("no TURN server named; networks that let out only TLS need one (SFU_TURN_URLS)")
        paths = _paths(context.config, leg, running.advertised, running.tcp_port if leg == "tcp" else running.udp_port)
        outcomes = await _outcomes(context, paths)
        if leg != "relay" and (outside := await _behind(context, paths, outcomes)):
            return _unproven(leg, outside)
        return _judged(leg, paths, outcomes)

    return run


def _paths(config: Config, leg: Leg, hosts: Sequence[str], port: int) -> list[dict[str, Any]]:
    """Each advertised address that people elsewhere use; through each TURN server, the first one."""
    useful = [host for host in hosts if scope_of(host) > Scope.MACHINE] or list(hosts)
    if leg != "relay":
        return [{"leg": leg, "host": host, "port": port} for host in useful[:PATHS]]
    return [{"leg": leg, "host": useful[0], "port": port, "relay": _relay(url)} for url in config.turn_urls[:PATHS]]


def _relay(url: str) -> dict[str, Any]:
    parsed, secure = parse_url(url), url.startswith("turns:")
    asked = parse_qs(url.partition("?")[2]).get("transport", ["tcp" if secure else "udp"])[0]
    return {"host": parsed.host, "port": parsed.port, "transport": asked, "secure": secure}


async def _outcomes(context: Context, paths: Sequence[dict[str, Any]]) -> list[_Outcome]:
    """Runs the media client with an invitation that the running server makes and ends."""
    assert context.running is not None
    scheme, address = "wss" if context.running.secure else "ws", certificate.local_address(context)
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    url = f"{scheme}://{context.domain or host}:{address[1]}{context.config.base_path}/ws"
    made = await control.ask(context.config, "probe_open")
    asked = {"url": url, "connect": address, "secret": made["secret"], "paths": paths, "timeout_s": PATH_S}
    try:
        async with process.lines("call", stdin=msgspec.json.encode(asked)) as lines, aclosing(lines) as each:  # type: ignore[type-var]
            return [msgspec.json.decode(line, type=_Outcome) async for line in each]
    finally:
        with trio.move_on_after(CLOSE_S, shield=True):  # also after a timeout
            await control.ask(context.config, "probe_close", secret=made["secret"])


async def _behind(
    context: Context, paths: Sequence[dict[str, Any]], outcomes: Sequence[_Outcome]
) -> dict[str, Any] | None:
    """The path that failed, if it is the only one and leads to the public address of the NAT before this machine, as a
    STUN server sees it: many routers let nobody inside reach them there (no hairpinning, RFC 4787 section 6)."""
    bad = [path for path, outcome in zip(paths, outcomes, strict=False) if outcome.stage != "ok"]
    lost = [outcome.stage for outcome in outcomes if outcome.stage != "ok"]
    if len(outcomes) < len(paths) or len(bad) != 1 or lost != ["ice"] or context.config.stun is None:
        return None
    if bad[0]["host"] in {local.address for local in local_addresses(())}:
        return None
    try:
        seen = await mapped(*context.config.stun)
    except OSError:
        return None
    return bad[0] if seen == bad[0]["host"] else None


def _unproven(leg: Leg, path: dict[str, Any]) -> Finding:
    return note(
        f"{_where(leg, path)} is the router's address, as the STUN server sees it, and this machine cannot reach "
        "itself there. Many routers are so; people elsewhere may get in all the same.",
        f"To be sure: `sfu doctor --phone`, with the phone in another network. If that fails, forward {leg.upper()} "
        f"{path['port']} of the router to this machine.",
    )


def _judged(leg: Leg, paths: Sequence[dict[str, Any]], outcomes: Sequence[_Outcome]) -> Finding:
    bad = [(path, outcome) for path, outcome in zip(paths, outcomes, strict=False) if outcome.stage != "ok"]
    if not bad and len(outcomes) == len(paths):
        return ok(
            "; ".join(f"{_where(leg, path)} in {outcome.ms} ms" for path, outcome in zip(paths, outcomes, strict=True))
        )
    if not bad:
        return failed("The test ended before it was done.", "Run it again; the server's log may say why.")
    path, outcome = bad[0]
    works = len(outcomes) - len(bad)
    text = f"{_where(leg, path)}: {_STAGES[outcome.stage]} ({outcome.reason})."
    if works:
        text += f" {works} of {len(outcomes)} work."
    return failed(text, _fix(leg, path, outcome))


def _where(leg: Leg, path: dict[str, Any]) -> str:
    if leg == "relay":
        relay = path["relay"]
        return f"TURN {relay['host']}:{relay['port']} over {'TLS' if relay['secure'] else relay['transport'].upper()}"
    host = f"[{path['host']}]" if ":" in path["host"] else path["host"]
    return f"{leg.upper()} {host}:{path['port']}"


_STAGES = {
    "signalling": "the server's signalling does not answer",
    "ice": "no media path",
    "dtls": "a path, but no encryption on it",
    "media": "a path, but sound does not come back",
}


def _fix(leg: Leg, path: dict[str, Any], outcome: _Outcome) -> str:
    if outcome.stage == "signalling":
        return "The server's log says why it refuses WebSockets."
    if leg == "relay":
        return (
            "Run `sfu coturn-config` again for the TURN server's file and restart both. Its ports and its way to "
            "this server's UDP port must be open."
        )
    advice = f"Open {leg.upper()} {path['port']} in the firewall of this machine and of the provider."
    if path["host"] in {local.address for local in local_addresses(())}:
        return advice
    return (
        f"{advice} {path['host']} is not on this machine: correct SFU_PUBLIC_IP if it is wrong. Some routers let a "
        "machine not reach its own public address; then `sfu doctor --phone` tells."
    )


class _Progress(msgspec.Struct, tag="progress"):
    text: str


class _Measured(msgspec.Struct, tag="measured"):
    """What sfu/media/probe/capacity.py prints."""

    us_per_forward: float
    forwards_per_s: float
    in_bps: float
    out_bps: float
    lost: float


async def capacity(context: Context) -> Finding:
    """Rooms of 6 at 720p that the workers carry up to SFU_MAX_LOAD, from a short measurement of one worker."""
    if context.running is not None and context.running.peers:
        return skipped(
            f"{context.running.peers} people are in calls, which a measurement would disturb.",
            "Run it when nobody is there: `sfu doctor --only capacity`.",
        )
    measured = None
    async with process.lines("capacity", str(MEASURE_S)) as lines, aclosing(lines) as each:  # type: ignore[type-var]
        async for line in each:
            said = msgspec.json.decode(line, type=_Progress | _Measured)
            if isinstance(said, _Progress):
                context.progress(said.text)
            else:
                measured = said
    if measured is None:
        return failed("The measurement ended without a result.", "Please report this line.")
    return _capacity(context.config, measured)


def _capacity(config: Config, measured: _Measured) -> Finding:
    workers = config.workers
    cores_per_room = measured.us_per_forward * measured.forwards_per_s / 1e6
    rooms = int(workers * config.max_load / cores_per_room) if cores_per_room else 0
    who = f"{workers} media worker{'s' if workers > 1 else ''}"
    text = (
        f"about {rooms} rooms of 6 at 720p with {who}: {_rate(rooms * measured.out_bps)} out and "
        f"{_rate(rooms * measured.in_bps)} in ({measured.us_per_forward:.0f} µs a forwarded packet)"
    )
    if measured.lost > LOST:
        return note(f"{text}, but {measured.lost:.0%} of the packets were lost.", "Measure again on a quiet machine.")
    if rooms < 1:
        return note(f"{text}.", "Use a faster machine, or fewer and smaller videos (SFU_LAST_N).")
    return ok(text)


def _rate(bps: float) -> str:
    return f"{bps / 1e9:.1f} Gbit/s" if bps >= 1e9 else f"{bps / 1e6:.0f} Mbit/s"
