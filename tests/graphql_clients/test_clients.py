"""Subscriptions as other people's clients get them: graphql-ws of npm, and gql of Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted

from gatewayd.errors import CallFailed
from tests.graphql_clients.conftest import Client
from tests.protocols.graphql.test_subscriptions import CHAT, FIRST, STREAM, raising, second, texts
from tests.protocols.harness import in_thread, served, until
from tests.protocols.streamed import StreamingDispatcher

pytestmark = pytest.mark.graphql_clients


def of_first(*found: Any) -> StreamingDispatcher:
    """Streams texts, and what is raised among them."""

    def streamed(request: Any) -> list[Any]:
        return [each if isinstance(each, Exception) else texts(each)(request)[0] for each in found]

    return StreamingDispatcher(endpoints=FIRST, streamed=streamed)


Streaming = Callable[..., StreamingDispatcher]
GENERATIONS = pytest.mark.parametrize(
    ("streaming", "query"), [(of_first, CHAT), (second, STREAM)], ids=["first", "second"]
)


def words(operation: Any) -> list[str]:
    """The texts of the documents that came, of both generations."""
    return [each["data"]["doc"]["text"] for each in operation["results"]]


@GENERATIONS
@pytest_twisted.ensureDeferred
async def test_every_document_comes_in_order_and_then_the_end(
    client: Client, streaming: Streaming, query: str
) -> None:
    expected = [f"word {index}" for index in range(100)]
    async with served(("http",), streaming(*expected), expose_graphql_endpoint=True) as gateway:
        (found,) = await in_thread(client.carry_out, gateway.port, [{"query": query}])
    assert words(found) == expected
    assert found["errors"] is None


@GENERATIONS
@pytest_twisted.ensureDeferred
async def test_an_error_in_the_middle_comes_behind_what_was_there_and_the_connection_goes_on(
    client: Client, streaming: Streaming, query: str
) -> None:
    dispatcher = streaming("a", "b", CallFailed("s", ["h:1"], "mid boom", "UNKNOWN"))
    async with served(("http",), dispatcher, expose_graphql_endpoint=True) as gateway:
        found = await in_thread(client.carry_out, gateway.port, [{"query": query}] * 2)
    for each in found:
        assert words(each) == ["a", "b"]
        assert "mid boom" in each["errors"][0]["message"]


@GENERATIONS
@pytest_twisted.ensureDeferred
async def test_one_that_leaves_in_the_middle_ends_its_stream_alone(
    client: Client, streaming: Streaming, query: str
) -> None:
    dispatcher = streaming(*["x" * 50_000] * 400)
    operations = [{"query": query, "most": 3}, {"query": query, "most": 2}]
    async with served(("http",), dispatcher, expose_graphql_endpoint=True) as gateway:
        found = await in_thread(client.carry_out, gateway.port, operations)
        await until(lambda: all(each.cancels for each in dispatcher.opened))
    assert [len(each["results"]) for each in found] == [3, 2]
    assert len(dispatcher.opened) == 2
    assert all(each.answers for each in dispatcher.opened)


@pytest_twisted.ensureDeferred
async def test_many_at_once_share_a_connection(client: Client) -> None:
    dispatcher = of_first("a", "b", "c")
    async with served(("http",), dispatcher, expose_graphql_endpoint=True) as gateway:
        found = await in_thread(client.carry_out, gateway.port, [{"query": CHAT}] * 20, at_once=True)
    assert [words(each) for each in found] == [["a", "b", "c"]] * 20


@pytest_twisted.ensureDeferred
async def test_what_an_executor_raised_and_what_is_no_query_is_told(client: Client) -> None:
    dispatcher = StreamingDispatcher(endpoints=FIRST, streamed=raising)
    operations = [{"query": CHAT}, {"query": "subscription { nope }"}]
    async with served(("http",), dispatcher, expose_graphql_endpoint=True) as gateway:
        raised, refused = await in_thread(client.carry_out, gateway.port, operations)
    assert raised["errors"][0]["extensions"] == {"executor": "Speaks", "exception": "ValueError"}
    assert "Cannot query field 'nope'" in refused["errors"][0]["message"]
