"""Clients that generators make of the OpenAPI description: nothing is left out, and they do what the README does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from support.pythons import UV

from sfu.api.routes import ROUTES

if TYPE_CHECKING:
    from conftest import Backend

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

GENERATOR = "openapi-python-client==0.29.1"
TYPES = ("openapi-typescript@7.13.0", "typescript@5.9.3")

IN_PYTHON = """
import os
from made import AuthenticatedClient
from made.api.rooms import change_room, create_room, get_room
from made.api.tokens import inspect_token, issue_token
from made.models import InspectRequest, Metadata, RoomChange, RoomRequest, TokenRequest

client = AuthenticatedClient(base_url=os.environ["SFU_URL"], token=os.environ["KEY"])
with client:
    create_room.sync(client=client, body=RoomRequest(room_id="team-meeting", name="Team meeting"))
    metadata = Metadata.from_dict({"course": {"level": ["B2", 1, None]}})
    change_room.sync("team-meeting", client=client, body=RoomChange(metadata=metadata))
    room = get_room.sync("team-meeting", client=client)
    wanted = TokenRequest(room_id="team-meeting", user_name="alice", duration=3600)
    issued = [issue_token.sync(client=client, body=wanted, idempotency_key="one") for _ in "12"]
    valid = inspect_token.sync(client=client, body=InspectRequest(token=issued[0].token)).valid
    print(room.name, room.metadata["course"], issued[0].id == issued[1].id, valid)
"""
IN_TYPESCRIPT = """
import type { components, paths, webhooks } from './made';

declare const process: { env: Record<string, string> };
type Path = '/api/v1/rooms' | '/api/v1/tokens';
type Body<P extends Path> = paths[P]['post']['requestBody']['content']['application/json'];
type Answer<P extends Path> = paths[P]['post']['responses'][201]['content']['application/json'];
export type Left = webhooks['participant.left']['post']['requestBody']['content']['application/json'];

async function post<P extends Path>(path: P, body: Body<P>): Promise<Answer<P>> {
  const headers = { Authorization: `Bearer ${process.env.KEY}`, 'Content-Type': 'application/json' };
  const response = await fetch(process.env.SFU_URL + path, { method: 'POST', headers, body: JSON.stringify(body) });
  return (await response.json()) as Answer<P>;
}

const metadata: components['schemas']['Metadata'] = { course: { level: ['B2', 1, null] } };
const room = await post('/api/v1/rooms', { room_id: 'team-meeting', name: 'Team meeting', metadata });
const issued = await post('/api/v1/tokens', { room_id: 'team-meeting', user_name: 'alice', duration: 3600 });
console.log(room.name, JSON.stringify(room.metadata), issued.token.split('.').length);
"""


async def run(folder: Path, *command: str | Path, **variables: str) -> str:
    """What a program prints. It must succeed."""
    done = await trio.run_process(
        [*map(str, command)],
        cwd=folder,
        env=os.environ | variables,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


async def fetched(folder: Path, *command: str | Path) -> None:
    """Skips the test if what it needs cannot be had."""
    done = await trio.run_process(
        [*map(str, command)], cwd=folder, capture_stdout=True, capture_stderr=True, check=False
    )
    if done.returncode:
        pytest.skip(f"{command[0]} cannot fetch what this test needs: {done.stderr.decode()[-300:]}")


async def described(backend: Backend, folder: Path) -> Path:
    """The description, as the server serves it."""
    path = folder / "openapi.json"
    await trio.to_thread.run_sync(urllib.request.urlretrieve, f"{backend.server.url}/api/v1/openapi.json", path)
    return path


async def test_openapi_python_client(backend: Backend, tmp_path: Path) -> None:
    python = tmp_path / "env/bin/python"
    await run(tmp_path, UV, "venv", "--quiet", "--no-project", "--python", sys.executable, tmp_path / "env")
    await fetched(tmp_path, UV, "pip", "install", "--quiet", "--python", python, GENERATOR, "ruff")
    description = await described(backend, tmp_path)
    said = await run(
        tmp_path,
        *(python.with_name("openapi-python-client"), "generate", "--fail-on-warning", "--meta", "none"),
        *("--path", description, "--output-path", tmp_path / "made"),
        PATH=f"{python.parent}:{os.environ['PATH']}",
    )
    assert "arning" not in said
    made = {path.stem for path in (tmp_path / "made/api").glob("*/*.py")} - {"__init__"}
    assert made == {route.name for route in ROUTES}
    (tmp_path / "program.py").write_text(IN_PYTHON)
    found = await run(tmp_path, python, "program.py", **backend.variables)
    assert found == "Team meeting {'level': ['B2', 1, None]} True True\n"


async def test_openapi_typescript(backend: Backend, tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm is installed")
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    await fetched(tmp_path, npm, "install", "--no-audit", "--no-fund", *TYPES)
    programs = tmp_path / "node_modules/.bin"
    description = await described(backend, tmp_path)
    options = ("--output", "made.d.ts", "--default-non-nullable", "false")  # what has a default may be left out
    await run(tmp_path, programs / "openapi-typescript", description, *options)
    (tmp_path / "program.ts").write_text(IN_TYPESCRIPT)
    options = ("--strict", "--target", "es2022", "--module", "es2022", "--moduleResolution", "bundler")
    await run(tmp_path, programs / "tsc", *options, "made.d.ts", "program.ts")
    found = await run(tmp_path, "node", "program.js", **backend.variables)
    assert found == 'Team meeting {"course":{"level":["B2",1,null]}} 3\n'
