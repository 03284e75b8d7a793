"""`sfu doctor --phone`: a QR code to the page that tests a device, and what both ends saw, in sentences."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import msgspec

from sfu.calls.reach import Scope, scope_of
from sfu.doctor import certificate
from sfu.doctor.finding import Context, Finding, failed, note, ok
from sfu.errors import ConfigError
from sfu.operator import control

PAGE = "phone.html"
LEGS = {"udp": "UDP", "tcp": "TCP", "relay": "TURN"}


class Leg(msgspec.Struct):
    """A leg as the running server tells of it: calls/probes.py, `LegView`."""

    heard: str
    address: str
    transport: str
    media: bool
    ms: int
    cause: str | None


class Device(msgspec.Struct):
    client: str
    secure: bool
    open: bool
    done: bool
    legs: dict[str, Leg]

    @property
    def ended(self) -> bool:
        return self.done or not self.open


async def link(context: Context) -> tuple[str, list[str]]:
    """The page's address without its secret, and what to know about it. Raises ConfigError without a server."""
    running, config = context.running, context.config
    if running is None:
        raise ConfigError(f"The test of a phone needs the running server. {context.absent}")
    names = await certificate.domains(context)
    hints = []
    proxied = bool(config.trusted_proxies)
    secure = running.secure or (proxied and bool(names))
    if names:
        host, port = names[0], 0 if proxied else config.port
    else:
        address = _most_public(running.advertised)
        host, port = f"[{address}]" if ":" in address else address, config.port
        if proxied:
            hints.append("People come through a proxy: name its domain with --domain, so that the link leads there.")
        if scope_of(address) < Scope.INTERNET:
            hints.append(
                "The link has a private address: the phone must be in the same network as this server (Wi-Fi)."
            )
    if not secure:
        hints.append(
            "The server speaks http. The test works, but calls from a phone do not: browsers give camera and "
            "microphone to https pages only. Set SFU_TLS_DOMAIN or SFU_TLS_CERT, or try `sfu serve --self-signed`."
        )
    elif not names:
        hints.append("The browser warns of the certificate, which is not for an address: choose to continue.")
    default = 443 if secure else 80
    place = host if port in (0, default) else f"{host}:{port}"
    return f"{'https' if secure else 'http'}://{place}{config.base_path}/{PAGE}", hints


def _most_public(addresses: Sequence[str]) -> str:
    """The address that most people reach; of several, IPv4 goes first."""
    ranked = sorted(addresses, key=lambda one: (-scope_of(one), ip_address(one).version))
    if not ranked:
        raise ConfigError("The server advertises no address.")
    return ranked[0]


def qr(url: str, *, coloured: bool = False) -> str:
    """A QR code for a terminal, in block characters that stand for light modules. `coloured`: white on black, since not
    every scanner reads the negative that a terminal with dark text would show."""
    import segno

    out = io.StringIO()
    segno.make(url, error="m", micro=False).terminal(out, compact=True)
    lines = out.getvalue().splitlines()
    return "\n".join(f"\033[97;40m{line}\033[0m" if coloured else line for line in lines)


async def watch(
    context: Context, count: int, opened: Callable[[str, float], None], told: Callable[[Device], None]
) -> list[Device]:
    """Invites devices, and returns when `count` of them have ended their test, or when the invitation is over.

    `opened` gets the secret and how long it lasts; `told` gets each device once, when it has ended.
    """
    ended: list[Device] = []

    class Enough(Exception):
        pass

    def on_progress(progress: Mapping[str, Any]) -> None:
        if "secret" in progress:
            opened(progress["secret"], progress["lasts_s"])
            return
        devices = msgspec.convert(progress["devices"], list[Device])
        for device in [one for one in devices if one.ended][len(ended) :]:
            ended.append(device)
            told(device)
        if len(ended) >= count:
            raise Enough

    with contextlib.suppress(Enough):
        await control.ask(context.config, "probe_devices", told=on_progress)
    return ended


def findings(context: Context, device: Device) -> Iterator[tuple[str, Finding]]:
    """What to print about a device, a line for each leg."""
    running = context.running
    assert running is not None
    yield "signalling", ok(f"works from {device.client}")
    works = [name for name, leg in device.legs.items() if leg.cause == "ok"]
    for name, leg in device.legs.items():
        port = running.tcp_port if name == "tcp" else running.udp_port
        yield name, _finding(name, leg, port, running.advertised, [one for one in works if one != name])
    if not device.secure and not context.config.trusted_proxies:
        yield (
            "https",
            note("The page came over http: the browser gives it neither camera nor microphone.", "Use https."),
        )


def _finding(name: str, leg: Leg, port: int, hosts: Sequence[str], others: Sequence[str]) -> Finding:
    label = LEGS[name] if name == "relay" else f"{LEGS[name]} {port}"
    fallback = f"; {' and '.join(LEGS[one] for one in others)} works as a fallback" if others else ""
    if leg.cause == "ok":
        seen = f", from {leg.address}" if leg.address else ""
        return ok(f"{label} works: media came back after {leg.ms} ms{seen}")
    if leg.cause is None:
        return failed(f"{label}: the device left before the end of the test{fallback}.", "Try again.")
    text, fix = _CAUSES[leg.cause]
    words = {"label": label, "hosts": ", ".join(hosts)}
    return failed(text.format(**words) + fallback + ".", fix.format(**words))


_CAUSES = {
    "closed": (
        "{label} does not arrive",
        "Open it in the provider's firewall and in this machine's. If other networks reach it, the device's blocks it.",
    ),
    "address": (
        "{label}: {hosts} cannot be reached from where the device is",
        "Set SFU_PUBLIC_IP to the address that people reach this server at.",
    ),
    "one_way": (
        "{label} arrives, but the server's answers do not reach the device",
        "Allow {label} in both directions in the firewalls of this machine and of the provider.",
    ),
    "no_media": (
        "{label} has a connection, but no media comes back",
        "A firewall lets only the first packets through. Allow {label} without inspection.",
    ),
    "relay_unreachable": (
        "{label}: the device gets no relay",
        "Open the TURN server's ports, and compare its secret with SFU_TURN_SECRET (`sfu coturn-config`).",
    ),
    "relay_blocked": (
        "{label}: the relay does not reach this server",
        "Let the TURN server send UDP to this server, and run `sfu coturn-config` again for its list of peers.",
    ),
}
