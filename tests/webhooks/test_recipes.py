"""The recipes of docs/api.md verify what is sent, and nothing else."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support import node
from support.process import ROOT

from sfu.store.events import TYPES
from sfu.tenancy import hooks
from sfu.tenancy.keys import Secret
from sfu.webhooks.dispatcher import WAITS_S

PAGE = (ROOT / "docs" / "api.md").read_text()
BODY = '{"name":"Zoë 👩"}'.encode()
Verify = Callable[[Secret[bytes], dict[str, str], bytes], bool]


def recipe(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.partition("### Verify a message")[2], re.DOTALL)
    return str(found)


def in_python(secret: Secret[bytes], headers: dict[str, str], body: bytes) -> bool:
    space: dict[str, Any] = {}
    exec(recipe("python"), space)
    try:
        space["verify"](hooks.shown(secret).reveal(), headers, body)
    except ValueError:
        return False
    return True


def in_javascript(secret: Secret[bytes], headers: dict[str, str], body: bytes) -> bool:
    given = f"{json.dumps(hooks.shown(secret).reveal())}, {json.dumps(headers)}, Buffer.from('{body.hex()}', 'hex')"
    return bool(node.run(f"{recipe('js')}\ntry {{ verify({given}); out(true); }} catch {{ out(false); }}"))


@pytest.mark.parametrize("verify", [in_python, in_javascript])
def test_a_recipe_verifies(verify: Verify) -> None:
    old, new, other = hooks.new_secret(), hooks.new_secret(), hooks.new_secret()
    now = datetime.now(UTC)
    sent = hooks.headers("5c7f", now, BODY, [new, old])
    assert verify(new, sent, BODY)
    assert verify(old, sent, BODY)
    assert not verify(other, sent, BODY)
    assert not verify(new, sent, BODY + b" ")
    assert not verify(new, {**sent, "webhook-id": "5c80"}, BODY)
    assert not verify(new, hooks.headers("5c7f", now - timedelta(seconds=400), BODY, [new]), BODY)
    assert not verify(new, {**sent, "webhook-timestamp": str(int(sent["webhook-timestamp"]) + 1)}, BODY)


def test_the_vector_of_the_standard() -> None:
    """The example of its reference libraries."""
    secret = Secret(base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    at = datetime.fromtimestamp(1614265330, UTC)
    sent = hooks.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}', [secret])
    assert sent["webhook-timestamp"] == "1614265330"
    assert sent["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_waits_and_types_are_documented() -> None:
    said = re.search(r"comes after (.*?), and then every 24 h", " ".join(PAGE.split()))
    assert said is not None
    units = {"s": 1, "min": 60, "h": 3600}
    waits = [int(number) * units[unit] for number, unit in re.findall(r"(\d+) (s|min|h)", said[1])]
    assert waits == [*WAITS_S[:-1]]
    for kind in ("room.started", "participant.joined", "participant.left", "room.ended", "webhook.paused"):
        assert kind in TYPES
        assert f"| `{kind}` |" in PAGE
