"""The SDKs, from their packages and against a server: what their READMEs show, and everything that they can do."""

from __future__ import annotations

import json
import urllib.parse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from support import node
from support.packages import Run, cases, example
from support.receivers import Reply as Answer
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


SURFACE = {
    "python": """
import json, os, sys
from datetime import UTC, datetime, timedelta
from sfu_rooms_client import ApiError, Client, Unreachable, verify_webhook

client = Client(os.environ["SFU_URL"] + "/", os.environ["KEY"])
room, etag = client.rooms.get_versioned("team")
(person,) = client.participants.list("team")
client.participants.mute("team", person["session_id"])
client.participants.remove("team", person["session_id"])
for name in (".", "a/b?c=d&e", "Zoë 👩", *(f"room-{number:03}" for number in range(120))):
    client.rooms.create(name)
client.rooms.change(".", locked=True, if_match=client.rooms.get_versioned(".")[1])
bulk = client.tokens.bulk([{"room_id": "a/b?c=d&e", "user_name": "bob", "user_id": "7"},
                           {"room_id": "team", "user_name": "eve", "permissions": {"moderate": True}}])
later = datetime.now(UTC) + timedelta(days=2)
keyed = [client.tokens.issue("team", "zoe", not_before=later, metadata={"a": [1]}, idempotency_key="7") for _ in "12"]
client.tokens.revoke(bulk[0]["id"])

def refused(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except ApiError as error:
        return [type(error).__name__, error.status, error.code, error.field, bool(error.request_id), error.retry_after]

client.rooms.change("team", description="new")
print(json.dumps({
    "team": [room["room_id"], person["user_name"]],
    "rooms": len(list(client.rooms.list())),
    "names": [client.rooms.get(name)["room_id"] for name in (".", "a/b?c=d&e", "Zoë 👩")],
    "again": client.rooms.get_or_create(".", locked=False)["locked"],
    "state": [client.tokens.get(one["id"])["state"] for one in [*bulk, *keyed]],
    "same": keyed[0] == keyed[1],
    "listed": [one["user_name"] for one in client.tokens.list(user="7")],
    "inspected": client.tokens.inspect(bulk[0]["token"])["code"],
    "sessions": [client.sessions.get(one["id"])["user_name"] for one in client.sessions.list("team", user="alice")],
    "rooms_of": len(client.sessions.rooms_of("nobody")),
    "link": client.link("a b", preview=False).removeprefix(os.environ["SFU_URL"]),
    "audit": client.request("GET", "/audit", query={"limit": 1, "room": "team"})["items"][0]["action"],
    "absent": refused(client.rooms.get, "absent"),
    "field": refused(client.rooms.create, "wrong", max_participants=0),
    "old": refused(client.rooms.delete, "team", if_match=etag),
    "no call": refused(client.rooms.end_call, "."),
    "key": refused(Client(os.environ["SFU_URL"], "pk_wrong").rooms.get, "team"),
    "down": refused(Client("http://127.0.0.1:9", "x", attempts=1).rooms.get, "team"),
    "gone": client.rooms.delete("team") or refused(client.rooms.get, "team")[2],
    "verified": [verify_webhook(secret, headers, body.encode(), now=now)["type"]
                 for secret, headers, body, now in json.load(sys.stdin)],
}))
""",
    "js": """
import { readFileSync } from 'node:fs';
import { ApiError, Client, verifyWebhook } from 'sfu-rooms-client';

const { SFU_URL, KEY } = process.env;
const client = new Client(`${SFU_URL}/`, KEY);
const { room, etag } = await client.rooms.getVersioned('team');
const [person] = await client.participants.list('team');
await client.participants.mute('team', person.session_id);
await client.participants.remove('team', person.session_id);
const many = Array.from({ length: 120 }, (_, number) => `room-${String(number).padStart(3, '0')}`);
for (const name of ['.', 'a/b?c=d&e', 'Zoë 👩', ...many]) await client.rooms.create(name);
await client.rooms.change('.', { locked: true }, { ifMatch: (await client.rooms.getVersioned('.')).etag });
const bulk = await client.tokens.bulk([{ room_id: 'a/b?c=d&e', user_name: 'bob', user_id: '7' },
  { room_id: 'team', user_name: 'eve', permissions: { moderate: true } }]);
const wanted = { not_before: new Date(Date.now() + 2 * 86_400_000), metadata: { a: [1] } };
const keyed = [];
for (const _ of '12') keyed.push(await client.tokens.issue('team', 'zoe', wanted, { idempotencyKey: '7' }));
await client.tokens.revoke(bulk[0].id);

async function refused(asked) {
  try {
    await asked;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return [error.name, error.status, error.code, error.field, Boolean(error.requestId), error.retryAfter];
  }
}
async function all(items, take = (one) => one) {
  const found = [];
  for await (const one of items) found.push(await take(one));
  return found;
}

await client.rooms.change('team', { description: 'new' });
console.log(JSON.stringify({
  team: [room.room_id, person.user_name],
  rooms: (await all(client.rooms.list())).length,
  names: await all(['.', 'a/b?c=d&e', 'Zoë 👩'], async (name) => (await client.rooms.get(name)).room_id),
  again: (await client.rooms.getOrCreate('.', { locked: false })).locked,
  state: await all([...bulk, ...keyed], async (one) => (await client.tokens.get(one.id)).state),
  same: JSON.stringify(keyed[0]) === JSON.stringify(keyed[1]),
  listed: await all(client.tokens.list({ user: '7' }), (one) => one.user_name),
  inspected: (await client.tokens.inspect(bulk[0].token)).code,
  sessions: await all(client.sessions.list({ room: 'team', user: 'alice' }),
    async (one) => (await client.sessions.get(one.id)).user_name),
  rooms_of: (await client.sessions.roomsOf('nobody')).length,
  link: client.link('a b', { preview: false }).slice(SFU_URL.length),
  audit: (await client.request('GET', '/audit', undefined, { query: { limit: 1, room: 'team' } })).items[0].action,
  absent: await refused(client.rooms.get('absent')),
  field: await refused(client.rooms.create('wrong', { max_participants: 0 })),
  old: await refused(client.rooms.delete('team', { ifMatch: etag })),
  'no call': await refused(client.rooms.endCall('.')),
  key: await refused(new Client(SFU_URL, 'pk_wrong').rooms.get('team')),
  down: await refused(new Client('http://127.0.0.1:9', 'x', { attempts: 1 }).rooms.get('team')),
  gone: (await client.rooms.delete('team')) ?? (await refused(client.rooms.get('team')))[2],
  verified: await all(JSON.parse(readFileSync(0, 'utf8')),
    async ([secret, headers, body, now]) => (await verifyWebhook(secret, new Headers(headers), body, { now })).type),
}));
""",
}


@pytest.mark.soak
async def test_everything_that_it_can_do(backend: Backend, language: str, sdk: Run) -> None:
    at = datetime(2026, 1, 31, tzinfo=UTC)
    old, new, other = hooks.new_secret(), hooks.new_secret(), hooks.new_secret()
    body = '{"type": "room.ended", "room_id": "Zoë"}'
    headers = hooks.headers("5c7f", at, body.encode(), [new, old])
    shown = [hooks.shown(one).reveal() for one in (old, new, other)]
    now = at.timestamp() + 299
    messages = [[secrets, headers, body, now] for secrets in (shown[0], shown[1], [shown[2], shown[1]])]
    token = (await backend("POST", "/tokens", b'{"room_id": "team", "user_name": "alice"}')).json["token"]
    async with joined(backend.server.url, token=token):
        found = json.loads(await sdk(SURFACE[language], json.dumps(messages), **backend.variables))
    assert found == {
        "team": ["team", "alice"],
        "rooms": 124,
        "names": [".", "a/b?c=d&e", "Zoë 👩"],
        "again": True,
        "state": ["revoked", "valid", "early", "early"],
        "same": True,
        "listed": ["bob"],
        "inspected": "token_revoked",
        "sessions": ["alice"],
        "rooms_of": 0,
        "link": "/?token=a+b&preview=off",
        "audit": "room.changed",
        "absent": ["ApiError", 404, "room_not_found", "", True, None],
        "field": ["ApiError", 422, "bad_field", "max_participants", True, None],
        "old": ["ApiError", 412, "room_changed", "", True, None],
        "no call": ["ApiError", 409, "no_call", "", True, None],
        "key": ["ApiError", 401, "api_key_invalid", "", True, None],
        "down": ["Unreachable", 0, "unreachable", "", False, None],
        "gone": "room_not_found",
        "verified": ["room.ended"] * 3,
    }


AGAIN = {
    "python": """
import os
from sfu_rooms_client import ApiError, Client

client = Client(os.environ["SFU_URL"], "x", timeout_s=1)
print(client.tokens.issue("team", "alice")["token"])
client.rooms.delete("team")
for call in (client.rooms.delete, client.rooms.get, client.rooms.end_call, client.participants.list):
    try:
        call("other")
    except ApiError as error:
        print(error.status, error.code, error.retry_after)
""",
    "js": """
import { Client } from 'sfu-rooms-client';

const client = new Client(process.env.SFU_URL, 'x', { timeoutMs: 1000 });
console.log((await client.tokens.issue('team', 'alice')).token);
await client.rooms.delete('team');
for (const call of [() => client.rooms.delete('other'), () => client.rooms.get('other'),
  () => client.rooms.endCall('other'), () => client.participants.list('other')]) {
  try {
    await call();
  } catch (error) {
    console.log(error.status, error.code, error.retryAfter);
  }
}
""",
}


@pytest.mark.soak
async def test_what_it_sends_again(language: str, sdk: Run) -> None:
    """To a server that fails in every way: what had no answer is repeated, what was refused is not."""
    soon, late = (("Retry-After", "0"),), (("Retry-After", "3600"),)
    running = Answer(409, soon, b'{"code": "idempotency_running"}')
    answers = [
        *(Answer(503, soon), Answer(0), running, Answer(201, (), b'{"token": "made"}')),
        *(Answer(502, soon, b"<html>"), Answer(404)),
        Answer(404, (), b'{"code": "room_not_found"}'),
        Answer(302, (("Location", "http://127.0.0.1:9/"),)),
        Answer(503, late, b"[]"),
        *(Answer(429, soon, b'{"code": "too_many"}'),) * 4,
    ]
    left = iter(answers)
    async with receiving(lambda message: next(left)) as receiver:
        said = await sdk(AGAIN[language], SFU_URL=f"http://127.0.0.1:{receiver.port}")
    none = {"python": "None", "js": "null"}[language]
    late_s, soon_s = {"python": ("3600.0", "0.0"), "js": ("3600", "0")}[language]
    assert said.splitlines() == [
        "made",
        f"404 room_not_found {none}",
        f"302 http_error {none}",
        f"503 http_error {late_s}",
        f"429 too_many {soon_s}",
    ]
    assert len(receiver.got) == len(answers)
    keys = [message.headers.get("idempotency-key") for message in receiver.got]
    assert len(set(keys[:4])) == 1
    assert keys[0]
    assert keys[0] != keys[8]


@pytest.mark.soak
@pytest.mark.parametrize("language", ["js"])
async def test_its_types_fit_what_it_does(sdk: Run, tmp_path: Path) -> None:
    """The program above, as TypeScript sees it; that of Python is checked by mypy with all others."""
    node.package("typescript/package.json")
    (tmp_path / "node.d.ts").write_text("declare module 'node:fs'; declare const process: any;")
    programs = {"right.js": SURFACE["js"], "readme.js": example("js", 0), "receive.js": example("js", 1)}
    programs |= {"wrong.ts": "import { Client } from 'sfu-rooms-client';\nnew Client('', '').rooms.create(7);"}
    for name, program in programs.items():
        (tmp_path / name).write_text(program)
    options = (
        "--ignoreConfig",
        "--noEmit",
        "--checkJs",
        "--strict",
        "false",
        "--target",
        "es2024",
        "--module",
        "nodenext",
    )
    done = await trio.run_process(
        [str(node.MODULES / ".bin/tsc"), *options, "node.d.ts", *programs],
        cwd=tmp_path,
        capture_stdout=True,
        check=False,
    )
    (line,) = done.stdout.decode().splitlines()
    assert line.startswith("wrong.ts(2,")
    assert "'number' is not assignable" in line
