"""What executors with typed documents tell of their endpoints, next to what the reference's told."""

import pytest

from gatewayd import Executor, requests
from gatewayd.executor.handling import Handling
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.messages.structs import read_struct
from gatewayd.pb import second
from tests.docarray2.golden import ENDPOINTS, EXECUTORS


def told(cls):
    handling = Handling(cls(), ExecutorSpec("a"), lambda reason: None)
    handling.close()
    return second.EndpointsProto.FromString(handling.discovery)


def without_what_releases_change(schema):
    """A schema without examples, which are made up, and without what pydantic 2.11 and later say besides."""
    if isinstance(schema, list):
        return [without_what_releases_change(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: without_what_releases_change(value)
        for key, value in schema.items()
        if key != "example" and not (key == "additionalProperties" and value is True)
    }
    if "properties" in kept:
        kept.pop("description", None)
    return kept


@pytest.mark.parametrize("name", ["A", "S", "Def"])
def test_endpoints_and_schemas_are_those_of_the_reference(name):
    expected = ENDPOINTS[f"executor {name}"]["decoded"]

    found = told(getattr(EXECUTORS, name))

    assert list(found.endpoints) == expected["endpoints"]
    schemas, known = without_what_releases_change(read_struct(found.schemas)), expected["schemas"]
    assert schemas.keys() == known.keys()
    for endpoint, schema in schemas.items():
        recorded = without_what_releases_change(known[endpoint])
        if (name, endpoint) == ("A", "/none"):
            # No return annotation: what comes in goes out, where the reference says LegacyDocumentJina.
            recorded["output"] = recorded["input"]
        assert schema == recorded, endpoint


def test_the_endpoints_that_stream_are_named_and_docstrings_told():
    class Documented(Executor):
        @requests(on="/words")
        async def words(self, doc: EXECUTORS.In, **kwargs) -> EXECUTORS.Out:
            """Word by word."""
            yield EXECUTORS.Out(text=doc.text)

        @requests(on="/echo")
        def echo(self, docs, **kwargs):
            """As it is."""

    found = told(Documented)

    assert list(found.streaming) == ["/words"]
    assert dict(found.descriptions) == {"/words": "Word by word.", "/echo": "As it is."}
