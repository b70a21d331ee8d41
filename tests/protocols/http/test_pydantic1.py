"""Typed HTTP by schemas in the form of pydantic 1: the recorded exchanges (golden34: http_pydantic1.json)."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import pytest_twisted

from gatewayd.config.model import GatewayConfig
from gatewayd.messages.discovery import Endpoints, TypedEndpoint
from gatewayd.messages.generations import Generation
from gatewayd.messages.request import Request, Response
from gatewayd.protocols.http.openapi import openapi
from gatewayd.protocols.http.schemas import referred
from tests.golden34_data import golden
from tests.protocols.harness import FakeDispatcher, answer_to, in_thread, served
from tests.protocols.http.test_http import call


def schema(name: str) -> dict[str, Any]:
    """The schema of a class as its executor tells it, which the reference's document has as a component."""
    components = golden("openapi_pydantic1")["components"]["schemas"]
    found: dict[str, Any] = json.loads(
        json.dumps(components).replace("#/components/schemas/", "#/definitions/")
    )
    return {**found[name], "definitions": {"execs__Nested": found["execs__Nested"]}}


def endpoint(taken: str, given: str, parameters: str | None = None) -> TypedEndpoint:
    return TypedEndpoint(
        schema(taken),
        schema(given),
        taken,
        given,
        parameters=None if parameters is None else schema(parameters),
        parameters_name=parameters or "",
    )


TYPED = {
    "/echo": endpoint("In", "In"),
    "/len": endpoint("In", "Out"),
    "/rich": endpoint("Rich", "Rich"),
    "/params": endpoint("In", "In", "Params"),
}
KNOWN = Endpoints(dict.fromkeys(TYPED, ""), generation=Generation.SECOND, typed=TYPED)
CASES = [
    case
    for case in golden("http_pydantic1")
    if case["request"]["method"] == "POST" and "json" in case["request"] and case["request"]["path"] in TYPED
]


# What is answered with another status than was recorded, and why.
BETTER = {
    "missing required": "the reference notices it in the executor, and answers 500",
    "typed parameters missing": "the reference notices it in the executor, and answers 500",
    "int for string": "schemas do not say whether pydantic 1 reads them, which takes 5 for a text",
    "rich tensor ragged": "the reference reads the whole again as another document, and loses what was sent",
}


def of_second(request: Request) -> Response:
    return attrs.evolve(answer_to(request), routes=())


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
@pytest_twisted.ensureDeferred
async def test_a_recorded_exchange_goes_as_recorded_or_better(case: dict[str, Any]) -> None:
    asked, recorded = case["request"], case["response"]
    async with served(dispatcher=FakeDispatcher(of_second, endpoints=KNOWN)) as gateway:
        status, _, body = await in_thread(call, gateway.port, "POST", asked["path"], asked["json"])
    was = int(recorded["status_line"].split()[1])
    if case["name"] in BETTER:
        assert (status, was != status) == (422, True), "no departure any more"
        return
    assert status == was
    if status == 200 and asked["path"] == "/echo":
        # The executor itself adds to texts, and nulls; what schemas say of a field is the gateway's.
        (found,), (expected,) = json.loads(body)["data"], recorded["json"]["data"]
        for name in ("flag", "num", "price"):
            assert found[name] == expected[name]
    if status == 422:
        (first, *_) = json.loads(body)["detail"]
        assert first["loc"][-1] == recorded["json"]["detail"][0]["loc"][-1]


def test_there_are_cases() -> None:
    assert len(CASES) > 10
    assert BETTER.keys() <= {case["name"] for case in CASES}


def test_openapi_of_it_resolves() -> None:
    document = openapi(GatewayConfig(), full=True, endpoints=KNOWN)
    schemas = document["components"]["schemas"]
    assert set(referred(document["paths"])) | set(referred(schemas)) == schemas.keys()
    assert "definitions" not in json.dumps(document)
