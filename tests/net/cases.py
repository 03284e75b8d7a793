"""The networks that a call is tried in: what each is like, and what is to happen there.

Rules are nftables' (nft(8)), of the chain that forwards. `lan` and `wan` are the sides of alice's router, `in` and
`out` those of the gate in front of the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SERVER, TAKEN = "203.0.113.9", "203.0.113.77"
"""The server's public address, and one that is nobody's."""
PRIVATE = "10.0.0.5"
SERVER6 = "2001:db8:1::9"
RELAY = "192.0.2.6"
RELAY_PORT, STUN_PORT = 443, 3478

NAT = f"""
table ip gate {{
    chain raw {{
        type filter hook prerouting priority -300
        iifname "out" meta l4proto udp ip daddr {SERVER} notrack ip daddr set {PRIVATE}
        iifname "in" meta l4proto udp ip saddr {PRIVATE} notrack
    }}
    chain leaving {{
        type filter hook postrouting priority 100
        oifname "out" meta l4proto udp ip saddr {PRIVATE} ip saddr set {SERVER}
    }}
    chain pre {{
        type nat hook prerouting priority dstnat
        iifname "out" meta l4proto tcp ip daddr {SERVER} dnat to {PRIVATE}
    }}
    chain post {{
        type nat hook postrouting priority srcnat
        oifname "out" meta l4proto tcp ip saddr {PRIVATE} snat to {SERVER}
    }}
}}
"""
"""What a cloud does: the server has a private address, and the gate the public one (1:1). UDP leaves no state there,
so a change of the public address takes effect at once."""
NO_UDP = 'iifname "lan" meta l4proto udp drop'
ONLY_443 = 'iifname "lan" tcp dport != 443 drop\niifname "lan" meta l4proto != tcp drop'


@dataclass(frozen=True, slots=True)
class Case:
    """`expect` is the way that alice's media takes, or the cause that her page names. `others`: bob, whose network lets
    everything through, is in the call before her."""

    name: str
    about: str
    expect: str
    settings: Mapping[str, str] = field(default_factory=dict)
    server: tuple[str, ...] = (f"{SERVER}/24",)
    home: str = ""  # rules of alice's router
    gate: str = ""  # rules of the gate in front of the server
    nat: str = ""  # a whole table of the gate
    symmetric: bool = False
    bridges: bool = False
    mtu: int = 1500
    port: int = 8080
    page: str = SERVER
    others: bool = True
    cheap: bool = False

    @property
    def calls(self) -> bool:
        """Whether there is to be a call."""
        return self.expect in ("udp", "tcp", "relay")


CASES = (
    Case("open", "UDP is open", "udp"),
    Case("dropped", "the client's network drops UDP", "tcp", home=NO_UDP, cheap=True),
    Case("rejected", "the client's network rejects UDP", "tcp", home='iifname "lan" meta l4proto udp reject'),
    Case("tcp-443", "the client's network lets out TCP 443 only, and the server has that port", "tcp",
         home=ONLY_443, port=443),
    Case("turn", "the client's network drops UDP, a proxy has the TCP port, and a TURN server has TCP 443", "relay",
         home=NO_UDP, settings={
             "tcp_port": "0", "public_ip": SERVER, "turn_secret": "0123456789abcdef",
             "turn_urls": f"turn:{RELAY}:{RELAY_PORT}?transport=tcp",
         }),
    Case("blocked", "the client's network drops UDP, and a proxy has the TCP port", "network", home=NO_UDP,
         settings={"tcp_port": "0"}),
    Case("ipv6", "there is IPv6 only", "udp", server=(f"{SERVER6}/64",), page=f"[{SERVER6}]"),
    Case("nat-right", "1:1 NAT, and SFU_PUBLIC_IP has its address", "udp", server=(f"{PRIVATE}/24",), nat=NAT,
         settings={"public_ip": SERVER}),
    Case("nat-missing", "1:1 NAT, and no setting", "address", server=(f"{PRIVATE}/24",), nat=NAT, others=False),
    Case("nat-stun", "1:1 NAT, and SFU_STUN", "udp", server=(f"{PRIVATE}/24",), nat=NAT,
         settings={"stun": f"{RELAY}:{STUN_PORT}"}),
    Case("nat-wrong", "1:1 NAT, and SFU_PUBLIC_IP has an address that is nobody's", "server",
         server=(f"{PRIVATE}/24",), nat=NAT, settings={"public_ip": TAKEN}, others=False),
    Case("nat-wrong-stun", "the same, and SFU_STUN", "address", server=(f"{PRIVATE}/24",), nat=NAT,
         settings={"public_ip": TAKEN, "stun": f"{RELAY}:{STUN_PORT}"}, others=False),
    Case("symmetric", "the client's router has another port for each destination", "udp", symmetric=True),
    Case("docker", "the server has networks of containers, too", "udp", bridges=True),
    Case("mtu", "the way to the client carries 1,280 bytes", "udp", mtu=1280),
    Case("closed", "the server's firewall drops UDP", "tcp", gate='iifname "out" meta l4proto udp drop',
         others=False),
    Case("closed-all", "the server's firewall drops UDP, and a proxy has the TCP port", "server",
         gate='iifname "out" meta l4proto udp drop', settings={"tcp_port": "0"}, others=False),
    Case("one-way", "the server's firewall drops UDP that leaves, and a proxy has the TCP port", "partial",
         gate='iifname "in" meta l4proto udp drop', settings={"tcp_port": "0"}, others=False),
)  # fmt: skip
