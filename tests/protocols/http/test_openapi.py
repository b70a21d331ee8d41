"""The OpenAPI document: valid, as recorded, and true of what the port takes and answers."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import hypothesis
import openapi_spec_validator
import pytest
import pytest_twisted
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gatewayd.assets.fetch import PACKAGES
from gatewayd.config.auth import AuthConfig
from gatewayd.config.model import GatewayConfig
from gatewayd.config.rates import RateRule
from gatewayd.messages.discovery import Endpoints, TypedEndpoint
from gatewayd.messages.generations import Generation
from gatewayd.messages.json_form.documents import read_document
from gatewayd.messages.json_form.fields import DATA, DOCUMENT, ENDPOINT, PARAMETERS, REQUEST_ID, SCORE, TARGET
from gatewayd.messages.json_form.requests import decode_request
from gatewayd.pb import DataContentProto, DocumentProto
from gatewayd.protocols.http.openapi import openapi
from gatewayd.protocols.http.pages import description, documentation, graphiql
from tests.golden_replay.speaking import load
from tests.paths import ROOT
from tests.processes import Gateway
from tests.protocols.harness import in_thread, served

EXPOSED = {
    "/results": {"methods": ["GET", "POST"], "summary": "s"},
    "/tag": {"http_path": "/my/tag"},
}
GOLDEN: dict[str, dict[str, Any]] = {
    "default http gateway": {},
    "with options": {
        "title": "T",
        "description": "D",
        "expose_endpoints": EXPOSED,
        "expose_graphql_endpoint": True,
    },
    "no debug no crud": {"no_debug_endpoints": True, "no_crud_endpoints": True},
}
ODD = {
    "/a{b}": {"methods": ["PUT", "PATCH", "HEAD"], "operation_id": "same", "status_code": 201},
    "/b": {"operation_id": "same", "tags": ["mine"], "deprecated": True, "response_description": "d"},
    "/hidden": {"include_in_schema": False},
    "/post": {"summary": "the gateway's own comes first"},
}


def document(full: bool = True, **settings: Any) -> dict[str, Any]:
    return openapi(GatewayConfig(**settings), full=full)


TEXT = {"properties": {"text": {}, "id": {}}, "required": ["text"]}


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ({"/b": TypedEndpoint(TEXT, TEXT, "In", "Out"), "/a": TypedEndpoint(TEXT, TEXT, "In", "Out")}, "/b"),
        (
            {
                "/top": TypedEndpoint(TEXT, TEXT, "In", "Out", parameters={"required": ["top"]}),
                "/image": TypedEndpoint({"properties": {"url": {}}}, TEXT, "In", "Out"),
                "/sized": TypedEndpoint({**TEXT, "required": ["text", "size"]}, TEXT, "In", "Out"),
                "/talk": TypedEndpoint(TEXT, TEXT, "In", "Out", streams=True),
                "/echo": TypedEndpoint(TEXT, TEXT, "In", "Out", parameters={"properties": {"top": {}}}),
            },
            "/echo",
        ),
        ({"/image": TypedEndpoint({}, TEXT, "In", "Out")}, "/image"),
        ({"/talk": TypedEndpoint(TEXT, TEXT, "In", "Out", streams=True)}, "/"),
    ],
)
def test_the_query_to_try_is_for_an_endpoint_that_takes_it(
    typed: dict[str, TypedEndpoint], named: str
) -> None:
    endpoints = Endpoints(
        dict.fromkeys(typed, ""),
        generation=Generation.SECOND,
        typed=typed,
        streaming=frozenset(name for name, one in typed.items() if one.streams),
    )
    paths = openapi(GatewayConfig(expose_graphql_endpoint=True), full=True, endpoints=endpoints)["paths"]
    shown = paths["/graphql"]["post"]["requestBody"]["content"]["application/json"]["example"]["query"]
    assert shown == f'{{ docs(data: [{{text: "hello"}}], execEndpoint: "{named}") }}'


REFUSALS = {
    "auth": ({"auth": AuthConfig()}, {"401", "403"}, {"401", "403"}),
    "allowed_hosts": ({"allowed_hosts": ("a.example",)}, {"421"}, {"421"}),
    "allowed_origins": ({"allowed_origins": ("https://a.example",)}, {"403", "415"}, set()),
    "rates": ({"rates": (RateRule(requests=1.0),)}, {"429"}, set()),
    "nothing": ({}, set(), set()),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_are_described_where_the_settings_have_them(case: str) -> None:
    settings, post, status = REFUSALS[case]
    paths = document(**settings)["paths"]
    assert set(paths["/post"]["post"]["responses"]) == {"200", "422"} | post
    assert set(paths["/status"]["get"]["responses"]) == {"200"} | status
    assert set(paths["/"]["get"]["responses"]) == {"200"}


def outline(document: dict[str, Any]) -> dict[str, Any]:
    """What the recording has of a document."""
    return {
        "openapi": document["openapi"],
        "tags": [tag["name"] for tag in document["tags"]] if "tags" in document else None,
        "paths": {
            path: {
                method: {"tags": operation.get("tags"), "responses": sorted(operation["responses"])}
                for method, operation in item.items()
            }
            for path, item in document["paths"].items()
        },
        "schemas": list(document["components"]["schemas"]),
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_it_has_the_recorded_paths_tags_answers_and_schemas(name: str) -> None:
    recorded = load("openapi_paths.json")[name]
    for item in recorded["paths"].values():
        for operation in item.values():
            del operation["summary"]

    found = outline(document(**GOLDEN[name]))
    for operation in found["paths"].get("/graphql", {}).values():
        operation["responses"].remove("400")  # which the reference answers, too, and does not describe

    assert found == {key: recorded[key] for key in found}


def test_title_description_and_summary_are_the_settings() -> None:
    found = document(**GOLDEN["with options"])

    assert (found["info"]["title"], found["info"]["description"]) == ("T", "D")
    assert found["paths"]["/results"]["get"]["summary"] == "s"


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("settings", [*GOLDEN.values(), {"expose_endpoints": ODD}])
def test_it_is_valid_by_an_independent_validator(settings: dict[str, Any], full: bool) -> None:
    openapi_spec_validator.validate(json.loads(json.dumps(document(full, **settings))))


def test_a_websocket_port_has_three_paths_whatever_the_settings() -> None:
    for settings in GOLDEN.values():
        assert sorted(document(False, **settings)["paths"]) == ["/", "/dry_run", "/status"]


def test_options_of_exposed_endpoints_are_documented() -> None:
    paths = document(expose_endpoints=ODD)["paths"]

    assert "/hidden" not in paths
    assert sorted(paths["/a%7Bb%7D"]) == ["head", "patch", "put"]
    assert sorted(paths["/a%7Bb%7D"]["put"]["responses"]) == ["201", "422"]
    assert paths["/b"]["post"]["tags"] == ["mine"]
    assert paths["/b"]["post"]["deprecated"] is True
    assert paths["/b"]["post"]["responses"]["200"]["description"] == "d"
    assert paths["/post"]["post"]["tags"] == ["Debug"]
    ids = [operation["operationId"] for item in paths.values() for operation in item.values()]
    assert len(ids) == len(set(ids))


def test_an_answered_document_has_the_fields_of_the_table() -> None:
    message = DocumentProto()
    message.scores["s"].value = 1.0

    found = read_document(message)

    assert list(found) == [field.name for field in DOCUMENT]
    assert list(found["scores"]["s"]) == [field.name for field in SCORE]  # type: ignore[index]


VALUES = {
    "text": "x", "unsigned": 3, "number": 1.5, "numbers": [1.5], "blob": "AAEC", "array": [1.5, 2.5],
    "object": {"k": "v"}, "documents": [{"id": "c"}], "scores": {"s": {"value": 1.5, "ref_id": "r"}},
}  # fmt: skip


@pytest.mark.parametrize("field", DOCUMENT, ids=lambda field: field.name)
def test_every_field_of_the_table_is_read_and_bad_ones_are_refused_by_name(field: Any) -> None:
    def decode(value: Any) -> Any:
        body = json.dumps({"data": [{"id": "d", field.name: value}]}).encode()
        return decode_request(body, content_type=None, endpoint="/", request_id="r")

    (message,) = DataContentProto.FromString(decode(VALUES[field.kind]).documents).docs.docs
    assert read_document(message)[field.name] is not None

    wrong: Any = {} if field.kind not in ("object", "scores") else 1
    with pytest.raises(Exception, match=rf"body\.data\.0\.{field.name}: ") as caught:
        decode(wrong)
    assert type(caught.value).__name__ == "BadRequest"


def test_the_request_has_the_fields_of_the_table() -> None:
    schema = document()["components"]["schemas"]["JinaRequestModel"]
    body = {
        DATA.name: [{"id": "d"}],
        TARGET.name: "t",
        PARAMETERS.name: {"k": 1},
        REQUEST_ID.name: "r",
        ENDPOINT.name: "/e",
    }

    request = decode_request(json.dumps(body).encode(), content_type=None, endpoint=None, request_id=None)

    assert list(schema["properties"]) == list(body)
    assert (request.target, request.endpoint, request.request_id) == ("t", "/e", "r")
    assert request.parameters
    assert request.documents


@pytest.mark.parametrize("model", ["JinaRequestModel", "JinaEndpointRequestModel"])
def test_the_body_that_pages_fill_in_has_every_field_and_changes_nothing(model: str) -> None:
    paths = document(expose_endpoints=EXPOSED, expose_graphql_endpoint=True)["paths"]
    operations = [operation for item in paths.values() for operation in item.values()]
    contents = [
        each["requestBody"]["content"]["application/json"] for each in operations if "requestBody" in each
    ]
    bodies = [each["example"] for each in contents if each["schema"].get("$ref", "").endswith(f"/{model}")]
    schema = document(expose_endpoints=EXPOSED)["components"]["schemas"][model]

    assert bodies
    for body in bodies:
        assert list(body) == list(schema["properties"])
        request = decode_request(json.dumps(body).encode(), content_type=None, endpoint=None, request_id=None)
        (found,) = DataContentProto.FromString(request.documents).docs.docs
        assert (found.text, request.target, request.parameters, request.endpoint) == ("hello", "", b"", "/")
        assert len(request.request_id) == 32


def test_what_is_read_has_no_body() -> None:
    item = document(expose_endpoints={"/a": {"methods": ["GET", "HEAD", "POST", "DELETE"]}})["paths"]["/a"]

    assert {method for method in item if "requestBody" in item[method]} == {"post", "delete"}


def test_every_body_has_an_example() -> None:
    for full in (True, False):
        for item in document(full, expose_endpoints=ODD, expose_graphql_endpoint=True)["paths"].values():
            for operation in item.values():
                if "requestBody" in operation:
                    assert "example" in operation["requestBody"]["content"]["application/json"]
                for parameter in operation.get("parameters", ()):
                    assert "example" in parameter


@pytest_twisted.ensureDeferred
async def test_pages_and_their_files_are_served_with_their_types() -> None:
    def get(url: str) -> tuple[dict[str, str], bytes]:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return {name.lower(): value for name, value in answer.headers.items()}, answer.read()

    settings = {"title": "<T>"}
    async with served(**settings) as gateway:
        config = GatewayConfig(**settings)
        for page in (description(config, full=True), *documentation(config)):
            headers, body = await in_thread(get, gateway.url + page.path)
            assert headers["content-type"] == page.content_type.decode()
            assert body == page.body
            if page.path.startswith("/docs/assets/"):
                assert "immutable" in headers["cache-control"]
            else:
                assert headers["cache-control"] == "no-cache"
        headers, body = await in_thread(get, gateway.url + "/docs")
        assert b"<title>&lt;T&gt; - Swagger UI</title>" in body
        assert "script-src 'self';" in headers["content-security-policy"]


def test_pages_name_only_files_that_are_served() -> None:
    pages = [*documentation(GatewayConfig()), *graphiql(GatewayConfig())]
    paths = {page.path for page in pages}
    for page in pages:
        if page.content_type.startswith(b"text/html"):
            for address in re.findall(rb'(?:src|href)="([^"]+)"', page.body):
                base = page.path.rpartition("/")[0]
                assert f"{base}/{address.decode()}" in paths


def test_no_page_shows_a_picture_from_elsewhere() -> None:
    for page in (*documentation(GatewayConfig()), *graphiql(GatewayConfig())):
        if page.path.endswith((".js", ".css")) or page.content_type.startswith(b"text/html"):
            assert not re.findall(rb"""https?://[^"'` )]+\.(?:svg|png|ico|woff2?|css)\b""", page.body), (
                page.path
            )
        if page.content_type.startswith(b"text/html"):
            assert b"//" not in page.body.replace(b"<!--", b"")


def test_files_of_packages_come_with_their_licences() -> None:
    for package in PACKAGES:
        folder = ROOT / "gatewayd" / "assets" / f"{package.name}-{package.version}"
        assert (folder / "LICENSE").stat().st_size > 500


REC = {"name": "exec_a", "uses": "Rec", "py_modules": str(ROOT / "tests" / "executors.py")}


@pytest.fixture(scope="module")
def running() -> Iterator[Gateway]:
    gateway = Gateway({"gateway": {"expose_endpoints": EXPOSED}, "executors": [REC]})
    yield gateway
    output = gateway.output
    gateway.stop()
    assert "Traceback" not in output, output


@pytest.mark.slow
def test_no_request_made_from_it_is_an_internal_error_and_answers_are_as_it_says(running: Gateway) -> None:
    port = running.ports["http"]
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]
    operations = {
        (one.path, one.method): one for one in (found.ok() for found in schema.get_all_operations())
    }
    assert len(operations) == 11
    # The others are described, and served, like /index.
    alike = {("/search", "post"), ("/update", "put"), ("/delete", "delete"), ("/my/tag", "post")}

    for operation in (one for key, one in operations.items() if key not in alike):

        @hypothesis.settings(
            max_examples=8,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )
        @hypothesis.given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            case.call_and_validate(checks=checks, timeout=20)

        ask()
