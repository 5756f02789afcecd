"""The OpenAPI document: it says all there is, and the server does what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT, Server

from collab.server.api.openapi import describe, operation_id
from collab.server.api.routes import ROUTES

HERE = Path(__file__).parent
EXAMPLES = 5  # of each route, beside those that the schemas call for
SECONDS = 150
LIMITS = (
    "--requests-per-second-per-principal=0",
    "--requests-per-second-per-address=0",
    "--auth-failures-per-minute=0",
)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    made = json.loads(json.dumps(describe(ROUTES)))
    assert isinstance(made, dict)
    return made


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in the document."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from nodes(each)
    elif isinstance(value, list):
        for each in value:
            yield from nodes(each)


def test_every_route_is_in_the_document(document: dict[str, Any]) -> None:
    written = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }

    assert written == {str(route) for route in ROUTES}


def test_no_two_operations_have_one_name() -> None:
    names = [operation_id(route) for route in ROUTES]

    assert len(set(names)) == len(names)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    named = {node["$ref"] for node in nodes(document) if "$ref" in node}

    assert named
    assert {name.removeprefix("#/components/schemas/") for name in named} <= set(
        schemas
    )


def test_bounds_are_said_in_the_words_of_json_schema(document: dict[str, Any]) -> None:
    # pydantic leaves its own words where a bound comes after a validator.
    assert not [
        node for node in nodes(document) if {"ge", "le", "gt", "lt"} & set(node)
    ]


def test_nothing_is_taken_that_is_not_described(document: dict[str, Any]) -> None:
    taken = {
        content["schema"]["$ref"].rpartition("/")[2]
        for methods in document["paths"].values()
        for operation in methods.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        if "$ref" in content["schema"]
    }
    schemas = document["components"]["schemas"]

    assert taken
    for name in taken:
        if "properties" in schemas[name]:
            assert schemas[name]["additionalProperties"] is False


def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if status >= "400":
                    assert list(answer["content"]) == ["application/problem+json"]


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
def test_the_server_does_what_its_document_says(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve("--auth", "keys", *LIMITS)
    everything = "=read,write,presence,history,admin"
    made = server.run(
        *("key", "create", "--principal", "root", "--prefix", everything, "--json")
    )
    key = json.loads(made.stdout)["key"]

    run = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"),
            *("--config-file", str(HERE / "schemathesis.toml")),
            *("run", f"{server.url}/v1/openapi.json"),
            *("--header", f"Authorization: Bearer {key}"),
            *("--max-examples", str(EXAMPLES), "--seed", "1"),
            "--no-color",
        ],
        cwd=tmp_path,
        env=os.environ
        | {
            "SCHEMATHESIS_HOOKS": str(HERE / "generating.py"),
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )

    assert run.returncode == 0, run.stdout[-10_000:] + run.stderr
    tried = len(ROUTES) - 1  # it leaves out the route of the document itself
    assert f"{tried} selected / {tried} total" in run.stdout
    assert '"level": "error"' not in server.logs()
