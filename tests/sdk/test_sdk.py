"""The SDKs, from their packages and against a server: what their READMEs show, and everything that they can do."""

from __future__ import annotations

import json
import urllib.parse
from typing import TYPE_CHECKING

from support.packages import Run, cases, example
from support.receivers import receiving
from support.waiting import until
from support.wire import joined

from sfu.tenancy import hooks

if TYPE_CHECKING:
    from conftest import Backend

RECEIVE = {
    "python": """
import base64, json, sys
for secret, headers, body in json.load(sys.stdin):
    os.environ["WEBHOOK_SECRET"] = secret
    print("status", receive(headers, base64.b64decode(body)))
""",
    "js": """
import { readFileSync } from 'node:fs';
for (const [secret, headers, body] of JSON.parse(readFileSync(0, 'utf8'))) {
  process.env.WEBHOOK_SECRET = secret;
  console.log('status', await receive(headers, Buffer.from(body, 'base64')));
}
""",
}


async def test_what_its_readme_shows(backend: Backend, language: str, sdk: Run) -> None:
    link = (await sdk(example(language, 0), **backend.variables)).strip()
    assert link.startswith(f"{backend.server.url}/?token=")
    ((token,),) = urllib.parse.parse_qs(urllib.parse.urlsplit(link).query).values()
    async with joined(backend.server.url, token=token) as alice:
        await alice.talks("hello")
    assert (await backend("GET", "/rooms/team-meeting")).json["name"] == "Team meeting"
    async with receiving() as receiver:
        made = (await backend("POST", "/webhooks", json.dumps({"url": receiver.url}).encode())).json
        await backend("POST", f"/webhooks/{made['id']}/test")
        await until(lambda: receiver.got)
    given = cases(made["secret"], hooks.shown(hooks.new_secret()).reveal(), receiver.got[0])
    program = {"python": "import os\n", "js": ""}[language] + example(language, 1) + RECEIVE[language]
    said = (await sdk(program, given)).splitlines()
    assert [line for line in said if line.startswith("status")] == ["status 204"] + ["status 400"] * 7
    assert "webhook.test" in said[0]
