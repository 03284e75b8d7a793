"""The OpenAPI description is complete and true: by the table, by Quart's, by real answers, by schemathesis."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest
import trio
from test_api_auth import REQUESTS

from sfu.api import openapi, refusals
from sfu.api.routes import PREFIX, ROUTES
from sfu.api.schemas import DEFINITIONS
from sfu.api.validation import check
from sfu.refusals import Refusal
from sfu.store import Store
from sfu.store.events import TYPES
from sfu.web.app import SECURITY_HEADERS, public_dir

if TYPE_CHECKING:
    from support.rest import Rest, Tenant

pytest_plugins = ["support.rest"]

EXAMPLES = 5
"""Of each route; enough to meet every keyword of its schema."""


def documented() -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, item in openapi.document()["paths"].items() for method in item}


async def test_every_quart_route_is_documented_and_the_other_way_round(rest: Rest) -> None:
    served = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in rest.app.url_map.iter_rules()
        if rule.rule.startswith(PREFIX)
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert served == documented() == {(route.method, PREFIX + route.path) for route in ROUTES}


async def test_it_is_served_as_it_is_made(rest: Rest) -> None:
    reply = await rest("GET", "/openapi.json", key="")
    assert reply.json == json.loads(json.dumps(openapi.document()))
    assert reply.headers["content-type"] == "application/json"


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(openapi.document())
    for name in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert name in openapi.document()["components"]["schemas"]


def test_generators_of_clients_can_read_it() -> None:
    """No schema contains itself, every event is described, and the examples are valid requests."""
    document = openapi.document()
    schemas = document["components"]["schemas"]
    sorter = TopologicalSorter(
        {name: re.findall(r'"#/components/schemas/(\w+)"', json.dumps(one)) for name, one in schemas.items()}
    )
    sorter.prepare()  # raises CycleError
    assert set(document["webhooks"]) == set(TYPES)
    bodies = [
        (content["schema"]["$ref"].rpartition("/")[2], content["example"])
        for item in document["paths"].values()
        for operation in item.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        if "example" in content
    ]
    assert {name for name, _ in bodies} == set(openapi._EXAMPLES)
    for name, example in bodies:
        check(DEFINITIONS[name], example)


def test_every_code_of_the_api_has_a_meaning_of_its_own() -> None:
    found = openapi.document()["x-codes"]
    assert {cls.code for cls in vars(refusals).values() if isinstance(cls, type) and issubclass(cls, Refusal)} - {
        Refusal.code
    } <= found.keys()
    assert {"database_unavailable", "token_expired", "bad_request", "internal", "body_too_large"} <= found.keys()
    assert not {"files_off", "token_required", "too_many_joins"} & found.keys()  # those of calls
    assert Refusal.default not in {one["description"] for one in found.values()}
    assert found["bad_field"]["status"] == 422


async def test_every_answer_is_as_documented(rest: Rest, store: Store, acme: Tenant, issue: Any) -> None:
    """Status, type and every field of what comes back, where there is something to come back."""
    await store.sessions.admit_anonymous(acme.company.id, "team", "alice")
    grant, _ = await issue(acme.company)
    _, admin = await store.keys.create_admin("operator")
    document = openapi.document()
    for route in ROUTES:
        path, body = REQUESTS[route.name]
        operation = document["paths"][PREFIX + route.path][route.method.lower()]
        key = admin.reveal() if route.access == "admin" else None
        replies = [await rest(route.method, path.format(token=grant.id), body, key=key)]
        replies.append(
            await rest(route.method, path.format(token="absent").replace("team", "absent"), body, key="pk_x")
        )
        for reply in replies:
            answer = operation["responses"][str(reply.status)]
            assert {name.lower() for name in answer.get("headers", {})} - {"link"} <= reply.headers.keys()
            kind = reply.headers.get("content-type", "").partition(";")[0]
            assert kind in answer.get("content", {"": None})
            if kind == "application/problem+json":
                assert document["x-codes"][reply.json["code"]]["status"] == reply.status
            if kind.endswith("json"):
                schema = {**answer["content"][kind]["schema"], "components": document["components"]}
                jsonschema_rs.Draft202012Validator(schema).validate(reply.json)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # the stricter of the two
async def test_schemathesis_finds_nothing(store: Store, clock: Any, acme: Tenant) -> None:
    """Every check it has, on requests made from the description: valid ones, invalid ones, and sequences of them."""
    from support.rest import serving

    async with serving(store, clock, limits=False) as rest:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{rest.port}/api/v1/openapi.json"),
            *("--checks", "all", "--max-examples", str(EXAMPLES), "--generation-database", "none", "--no-color"),
            *("--header", f"Authorization: Bearer {acme.key}", "--seed", "1"),
            *("--suppress-health-check", "filter_too_much"),  # few strings that it makes can stand in a path
        ]
        run = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    report = run.stdout.decode()
    assert run.returncode == 0, report
    assert re.search(r"\b(\d+) generated, \1 passed|No issues found", report) or acme.key in report, report


# --- for people ------------------------------------------------------------------------------------------------------


class Assets(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not any(name == "style" or name.startswith("on") for name, _ in attrs)


async def test_the_page_has_no_asset_from_another_host(rest: Rest) -> None:
    reply = await rest("GET", "/docs", key="")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"] == SECURITY_HEADERS["Content-Security-Policy"]
    assets = Assets()
    assets.feed(reply.body.decode())
    assert assets.found
    assert all(re.fullmatch(r"(\.\./\.\./)?\w[\w./]+", asset) for asset in assets.found)
    for path in (public_dir() / "docs.js", public_dir() / "docs.css", *(public_dir() / "docs").glob("*.js")):
        assert "//" not in re.sub(r"/\*.*?\*/|^ *//.*$", "", path.read_text(), flags=re.S | re.M)
