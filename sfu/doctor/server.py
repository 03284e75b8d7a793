"""The doctor's part in the running server: what only it knows, and invitations to connection tests."""

from __future__ import annotations

import os

import msgspec
import trio

from sfu.calls.registry import Calls
from sfu.doctor.finding import Running
from sfu.operator.control import Call, Control
from sfu.settings.config import as_texts
from sfu.web.proxies import Seen

LOOK_S = 0.5
"""How often an invitation looks for news of its devices."""
ALIVE_S = 20.0
"""After so long without news it repeats the last, so that the command knows that the server still runs."""


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """A request without arguments."""


class Secret(msgspec.Struct, forbid_unknown_fields=True):
    secret: str


def add_doctor(control: Control, calls: Calls, seen: Seen, *, secure: bool) -> None:
    """Registers the handlers of `sfu doctor`. `secure`: the server itself speaks https."""
    config, probes = calls.config, calls.probes

    async def doctor(_asked: Nothing, _call: Call) -> Running:
        return Running(
            pid=os.getpid(),
            secure=secure,
            advertised=tuple(calls.workers.advertised),
            udp_port=config.udp_ports[0],
            tcp_port=config.public_tcp_port,
            peers=len(calls.rooms.peers),
            database=calls.admission.store.database.state,
            settings=as_texts(config),
            proxies=seen.lately(trusted=True),
            ignored=seen.lately(trusted=False),
        )

    async def probe_open(_asked: Nothing, _call: Call) -> dict[str, str]:
        return {"secret": probes.invite().secret}

    async def probe_close(asked: Secret, _call: Call) -> None:
        if (invitation := probes.find(asked.secret)) is not None:
            probes.end(invitation)

    async def probe_devices(_asked: Nothing, call: Call) -> None:
        """An invitation for as long as the command listens: its secret first, then the devices whenever they change."""
        invitation = probes.invite()
        try:
            await call.tell({"secret": invitation.secret, "lasts_s": invitation.expires_s - trio.current_time()})
            told: object = None
            told_s = 0.0
            while probes.find(invitation.secret) is not None:
                state, now_s = invitation.state(), trio.current_time()
                if state != told or now_s - told_s > ALIVE_S:
                    told, told_s = state, now_s
                    await call.tell({"devices": state})
                await trio.sleep(LOOK_S)
        finally:
            probes.end(invitation)

    control.add("doctor", Nothing, doctor)
    control.add("probe_open", Nothing, probe_open)
    control.add("probe_close", Secret, probe_close)
    control.add("probe_devices", Nothing, probe_devices)
