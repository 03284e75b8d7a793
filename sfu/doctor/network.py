"""Checks of the network: ports, advertised addresses, what the outside sees, and DNS."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address

import ifaddr
import trio

from sfu.calls.reach import Scope, scope_of
from sfu.doctor import certificate
from sfu.doctor.finding import Context, Finding, failed, note, ok, skipped
from sfu.doctor.sockets import Bound, Protocol, bound, family, named, overlaps
from sfu.network.interfaces import is_bridge, local_addresses, useful
from sfu.settings.values import ANY_HOST


async def ports(context: Context) -> Finding:
    """Whether the server has its ports, or could have them."""
    config = context.config
    ours = await trio.to_thread.run_sync(family, context.running.pid) if context.running else set()
    wanted: list[tuple[Protocol, int]] = [("tcp", config.port), *(("udp", port) for port in config.udp_ports)]
    for protocol, port in wanted:
        try:
            there = await trio.to_thread.run_sync(bound, protocol, port)
        except OSError:
            return _bindable(context, protocol, port) if not ours else skipped("This system does not tell who listens.")
        others = [one for one in overlaps(config.host, there) if one.pid not in ours]
        if others and not (ours and any(one.pid is None for one in others)):
            return _taken(protocol, port, others, mine=bool(ours))
        if ours and not there:
            return failed(
                f"Nothing listens on {protocol.upper()} {port}, although the server runs.",
                "Restart the server; its log says why it has no such port.",
            )
    udp = f"UDP {config.udp_ports[0]}" + (f"-{config.udp_ports[-1]}" if len(config.udp_ports) > 1 else "")
    text = f"TCP {config.port} and {udp}"
    return ok(f"{text} are the running server's" if ours else f"{text} are free")


def _taken(protocol: str, port: int, others: Sequence[Bound], *, mine: bool) -> Finding:
    who = named(next((one.pid for one in others if one.pid is not None), None))
    beside = " as well as by the running server" if mine else ""
    return failed(
        f"{protocol.upper()} {port} is taken by {who}{beside}.", "Stop that program, or set another port with SFU_PORT."
    )


def _bindable(context: Context, protocol: str, port: int) -> Finding:
    """Without the kernel's tables: tries to take the port."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    host = "0.0.0.0" if context.config.host == ANY_HOST else context.config.host
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as sock:
        try:
            sock.bind((host, port))
        except OSError as error:
            why = error.strerror or str(error)
            return failed(f"{protocol.upper()} {port} cannot be used: {why}.", "Free it, or set another SFU_PORT.")
    return ok(f"{protocol.upper()} {port} is free")


def advertised(context: Context) -> Sequence[str]:
    """The addresses that browsers are told, from the running server or from the settings."""
    if context.running is not None:
        return context.running.advertised
    config = context.config
    found = useful(local_addresses(() if config.host == ANY_HOST else (config.host,)))
    return config.public_ip or [local.address for local in found]


async def addresses(context: Context) -> Finding:
    hosts = advertised(context)
    scopes = {host: scope_of(host) for host in hosts}
    shown = ", ".join(hosts)
    if max(scopes.values(), default=Scope.MACHINE) == Scope.MACHINE:
        fix = "Remove SFU_HOST, so that the server listens on every address."
        return note(f"{shown or 'No address'}: only this machine can reach the server.", fix)
    local = _interfaces()
    inside = [host for host in hosts if is_bridge(local.get(host, ""))]
    reached = ",".join(host for host in hosts if host not in inside and scopes[host] > Scope.MACHINE)
    if inside and not context.config.public_ip:
        return note(
            f"{', '.join(inside)} of {local[inside[0]]} is advertised, which only containers of this machine reach.",
            f"Set SFU_PUBLIC_IP={reached}." if reached else "Set SFU_PUBLIC_IP to the address that people reach.",
        )
    if max(scopes.values()) < Scope.INTERNET:
        return note(
            f"{shown}: private, so only people in the same network reach the server.",
            f"If others are to: SFU_PUBLIC_IP=203.0.113.9,{reached} with the public address of this machine.",
        )
    elsewhere = [host for host in hosts if scopes[host] == Scope.INTERNET and host not in local]
    return ok(
        f"{shown}" + (f"; {', '.join(elsewhere)} is not on this machine but before it (NAT)" if elsewhere else "")
    )


def _interfaces() -> dict[str, str]:
    """The names of this machine's interfaces by address."""
    found = {}
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            found[ip.ip if isinstance(ip.ip, str) else ip.ip[0]] = adapter.nice_name
    return found


async def dns(context: Context) -> Finding:
    """Whether the name that people open leads to this server."""
    names = await certificate.domains(context)
    if not names:
        return skipped("No domain is known.", "Name it: `sfu doctor --domain meet.example.org`.")
    name = names[0]
    try:
        rows = await trio.socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return failed(f"{name} has no address ({error.strerror or error}).", f"Add an A or AAAA record for {name}.")
    found = list(dict.fromkeys(str(row[4][0]) for row in rows))
    ours = {*advertised(context), *context.config.public_ip, *_interfaces()}
    strange = [address for address in found if address not in ours]
    text = f"{name} is {', '.join(found)}"
    if not strange:
        return ok(text)
    if context.config.trusted_proxies:
        return ok(f"{text}, which is not this machine but may be the proxy's")
    mine = ", ".join(host for host in ours if scope_of(host) == Scope.INTERNET) or "not known to it"
    return failed(
        f"{text}, but {strange[0]} is no address of this server; its public address is {mine}.",
        f"Correct the {'AAAA' if ip_address(strange[0]).version == 6 else 'A'} record of {name}, or set SFU_PUBLIC_IP.",
    )
