"""The Dockerfile and the compose files. No daemon runs: the steps of the Dockerfile run in a Debian of their own."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import wheels
from support.process import ROOT, free_port
from support.vm import chroot
from support.waiting import eventually

from sfu.settings.config import Config

DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
GIVEN = {"DOMAIN": "meet.example.org", "PUBLIC_IP": "203.0.113.9", "POSTGRES_PASSWORD": "a1", "TURN_SECRET": "b2" * 16}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of `deploy`, with an empty file of settings."""
    copy = shutil.copytree(DEPLOY, tmp_path / "checkout" / "deploy")
    (copy / "sfu.env").touch()
    return copy


def compose(file: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [wheels.program("docker-compose"), "-f", str(file), "config", "--format", "json"]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env, check=False)


def services(file: Path) -> dict[str, Any]:
    done = compose(file, **GIVEN)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def test_hadolint_finds_nothing_wrong() -> None:
    done = subprocess.run([wheels.program("hadolint"), str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_server_alone(folder: Path) -> None:
    found = services(folder / "compose.yml")
    assert list(found) == ["sfu"]
    assert found["sfu"]["network_mode"] == "host"
    assert Path(found["sfu"]["build"]["context"]) == folder.parent
    assert (folder.parent / found["sfu"]["build"]["dockerfile"]).read_text() == DOCKERFILE.read_text()


def test_a_published_port_instead_of_the_machines_network(folder: Path) -> None:
    file = folder / "compose.yml"
    text = file.read_text().replace("network_mode: host", "").replace("#ports", "ports")
    file.write_text(text.replace("#environment", "environment"))
    found = services(file)["sfu"]
    ports = {(port["target"], port["protocol"], port["published"]) for port in found["ports"]}
    assert ports == {(8080, "tcp", "8080"), (8080, "udp", "8080")}
    assert Config.from_env(found["environment"]).public_ip


def test_the_server_accepts_the_settings_of_the_whole_set(folder: Path) -> None:
    found = services(folder / "compose-full.yml")
    assert set(found) == {"sfu", "postgres", "coturn", "caddy"}
    config = Config.from_env(found["sfu"]["environment"])
    assert config.public_ip == (GIVEN["PUBLIC_IP"],)
    assert config.turn_urls
    assert f"{GIVEN['POSTGRES_PASSWORD']}@127.0.0.1/sfu" in config.database_url
    assert found["sfu"]["read_only"] is True


@pytest.mark.parametrize("missing", GIVEN)
def test_what_is_not_given_is_named(missing: str, folder: Path) -> None:
    done = compose(folder / "compose-full.yml", **GIVEN | {missing: ""})
    assert done.returncode != 0
    assert missing in done.stderr


def steps(stage: int) -> Iterator[tuple[str, str]]:
    """The instructions of a stage of the Dockerfile, in order."""
    text = re.sub(r"^#.*\n|\\\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    for line in re.split(r"^FROM .*\n", text, flags=re.MULTILINE)[stage].splitlines():
        if line:
            word, _, rest = line.partition(" ")
            yield word, rest


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_steps_of_the_dockerfile_make_a_healthy_server(tmp_path: Path) -> None:
    """Both stages in one folder, one after the other."""
    port = free_port()
    settings = {"SFU_PORT": str(port), "SFU_HOST": "127.0.0.1", "SFU_WORKERS": "1"}
    with chroot("trixie", tmp_path / "image") as machine:
        folder, user, env, commands = "/", "root", dict[str, str](), dict[str, list[str]]()
        for word, rest in [*steps(1), *steps(2)]:
            if word == "RUN":
                machine.does(rest, user=user, folder=folder)
            elif word == "WORKDIR":
                folder = rest
                machine.does(f"mkdir -p {rest}", user="root")
            elif word == "COPY" and not rest.startswith("--from=build /opt/sfu "):
                *sources, target = rest.split()
                into = machine.folder / folder.strip("/") / target
                for source in sources:
                    if (ROOT / source).is_dir():
                        shutil.copytree(ROOT / source, into)
                    else:
                        shutil.copy(ROOT / source, into)
            elif word == "ENV":
                env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            elif word == "USER":
                user, folder = rest, "/"
            elif word in ("CMD", "HEALTHCHECK"):
                commands[word] = json.loads(rest[rest.index("[") :])
        shutil.rmtree(machine.folder / "src")
        with machine.started(*commands["CMD"], user=user, env=env | settings) as server:
            check = commands["HEALTHCHECK"]
            eventually(lambda: machine.run(*check, user=user, env=env | settings).returncode == 0, "it is healthy", 60)
            assert (machine.folder / "var/lib/sfu/sfu.db").exists()
            server.terminate()
            assert server.wait(15) == 0
