"""``stream_doc`` of Flows and Deployments that run, through a gateway."""

import asyncio
import time

import pytest
from docarray import Document

from gatewayd import Deployment, Executor, Flow, requests
from gatewayd.client.errors import BadServerFlow
from gatewayd.flow.description import FlowBuildLevelError

pytestmark = pytest.mark.slow


class Words(Executor):
    @requests(on="/words")
    async def words(self, doc, parameters, **kwargs):
        for word in doc.text.split():
            yield Document(text=word * int(parameters.get("times", 1)))

    @requests(on="/fail")
    async def fail(self, doc, **kwargs):
        yield Document(text="first")
        raise ValueError("on purpose")

    @requests(on="/slow")
    async def slow(self, doc, **kwargs):
        for number in range(3):
            yield Document(text=str(number))
            await asyncio.sleep(0.3)


class Shout(Executor):
    @requests(on="/words")
    def shout(self, docs, **kwargs):
        for doc in docs:
            doc.text += "!"


@pytest.fixture(scope="module")
def flow():
    with Flow().add(name="words", uses=Words).add(name="shout", uses=Shout) as flow:
        yield flow


def test_documents_flow_through_what_follows(flow):
    got = flow.stream_doc("/words", Document(text="a b c"), parameters={"times": 2})

    assert [one.text for one in got] == ["aa!", "bb!", "cc!"]


def test_they_come_as_they_are_made(flow):
    begun = time.monotonic()
    documents = flow.stream_doc("/slow", "x")

    assert next(documents).text == "0"
    first_s = time.monotonic() - begun
    assert [one.text for one in documents] == ["1", "2"]
    assert time.monotonic() - begun - first_s > 0.3


def test_an_error_is_raised_after_what_came(flow):
    texts = []
    with pytest.raises(BadServerFlow, match="on purpose"):
        for one in flow.stream_doc("/fail", "x"):
            texts.append(one.text)

    assert texts == ["first"]


def test_an_asynchronous_deployment_is_iterated():
    async def collect():
        with Deployment(uses=Words, asyncio=True) as deployment:
            return [one.text async for one in deployment.stream_doc("/words", "a b")]

    assert asyncio.run(collect()) == ["a", "b"]


def test_one_that_does_not_run_says_so():
    with pytest.raises(FlowBuildLevelError, match="does not run"):
        Flow().stream_doc("/words", "x")
