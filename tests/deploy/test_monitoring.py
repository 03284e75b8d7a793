"""Alerts and dashboard of deploy/: promtool accepts them, and a real server has every metric that they name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.debian import environment, program
from support.process import ROOT, Server
from support.waiting import eventually

DEPLOY = ROOT / "deploy"
RULES, DASHBOARD = DEPLOY / "prometheus-rules.yml", DEPLOY / "grafana-dashboard.json"
NAME = re.compile(r"\bsfu_\w+")


def promtool(*arguments: str) -> str:
    command = [program("promtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def families() -> Iterator[set[str]]:
    """The names of all metrics of a server that has just started, once its worker has reported."""
    server = Server()

    def found() -> set[str]:
        with urllib.request.urlopen(server.url + "/metrics", timeout=10) as answer:
            names = set(re.findall(r"^# TYPE (\w+)", answer.read().decode(), re.MULTILINE))
        return names if any(name.startswith("sfu_worker_load") for name in names) else set()

    try:
        server.start()
        yield eventually(found, "the worker has reported")
    finally:
        server.close()


def test_promtool_finds_nothing_wrong() -> None:
    assert "SUCCESS" in promtool("check", "config", str(DEPLOY / "prometheus.yml"))
    promtool("check", "rules", str(RULES))


def test_each_alert_is_raised_by_its_cause_and_none_without(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path)
    shutil.copy(Path(__file__).with_name("prometheus-rules-test.yml"), tmp_path)
    promtool("test", "rules", str(tmp_path / "prometheus-rules-test.yml"))
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    assert alerts == set(re.findall(r'alertname="(\w+)"', (tmp_path / "prometheus-rules-test.yml").read_text()))


def test_the_dashboards_queries_are_valid(tmp_path: Path) -> None:
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    assert len(queries) > 20
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", "--lint=none", str(file))


def test_panels_do_not_overlap() -> None:
    taken = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("file", [RULES, DASHBOARD], ids=lambda file: file.name)
def test_a_server_has_every_metric_that_is_named(file: Path, families: set[str]) -> None:
    named = {re.sub(r"_(bucket|sum|count)$", "", name) for name in NAME.findall(file.read_text())}
    assert len(named) >= 10
    assert named - families == set()


def dashboard() -> dict[str, list[dict[str, dict[str, int]]]]:
    found: dict[str, list[dict[str, dict[str, int]]]] = json.loads(DASHBOARD.read_text())
    return found
