"""Inputs: what is refused, what is raised, and that nothing is read before there is room to send it."""

from __future__ import annotations

import asyncio
import itertools
import threading

import numpy as np
import pytest
from docarray import Document, DocumentArray

from gatewayd.client.client import Client
from gatewayd.client.errors import BadClient, BadClientInput
from gatewayd.client.inputs import async_batches, batches


@pytest.mark.parametrize("wrong", [5, [5], [None], [[Document()]], [object()], ["x", ["a"]]])
def test_what_no_document_can_be_made_of_is_refused(wrong):
    with pytest.raises(BadClientInput, match=r"no Document can be made of a"):
        list(batches(wrong, 10))


@pytest.mark.parametrize("kind", [Client(), Client(asyncio=True)])
def test_inputs_can_be_checked_before_they_are_posted(kind):
    for right in ("x", [Document()], DocumentArray.empty(2), lambda: ["x"], [{"text": "x"}], None, []):
        kind.check_input(right)
    for wrong in (5, [object()], lambda: [5]):
        with pytest.raises(BadClientInput):
            kind.check_input(wrong)
    rest = iter(["x", "y"])
    kind.check_input(rest)
    assert list(rest) == ["x", "y"]


def test_a_waiting_client_refuses_asynchronous_generators_in_words(client):
    async def inputs():
        yield "x"

    for given in (inputs, inputs()):
        with pytest.raises(BadClientInput, match=r"asynchronous inputs need an asynchronous client"):
            client.post("/tag", given)


def test_a_document_that_cannot_be_sent_is_refused(either):
    with pytest.raises(BadClientInput, match="the documents cannot be sent"):
        either.post("/tag", Document(scores={"cos": 0.25}))


def test_parameters_without_a_json_form_are_refused(either):
    with pytest.raises(BadClient, match=r"parameters\.when: a object cannot be sent"):
        either.post("/tag", "x", parameters={"when": object()})


def test_a_function_is_called_once_and_what_it_returns_is_the_input():
    calls = iter([DocumentArray.empty(3)])

    assert [len(batch) for batch in batches(lambda: next(calls), 2)] == [2, 1]


def test_a_vector_is_one_document_and_a_matrix_one_per_row():
    assert [len(batch) for batch in batches(np.arange(3), 10)] == [1]
    assert [len(batch) for batch in batches(np.zeros((3, 2)), 10)] == [3]


def test_batches_take_no_more_than_they_give():
    taken = itertools.count()
    stream = batches((str(number) for number in taken), 3)

    assert [doc.text for doc in next(stream)] == ["0", "1", "2"]
    assert next(taken) == 3


def test_asynchronous_inputs_are_cut_the_same_way():
    async def numbers():
        for number in range(5):
            yield str(number)

    async def later():
        return numbers()

    async def sizes(inputs):
        return [len(batch) async for batch in async_batches(inputs, 2)]

    assert asyncio.run(sizes(numbers())) == [2, 2, 1]
    assert asyncio.run(sizes(numbers)) == [2, 2, 1]
    assert asyncio.run(sizes(later)) == [2, 2, 1]
    assert asyncio.run(sizes("text")) == [1]


def test_a_waiting_client_refuses_asynchronous_inputs(client):
    async def numbers():
        yield "x"

    async def later():
        return "x"

    for inputs in (numbers(), numbers, later):
        with pytest.raises(BadClientInput, match=r"Client\(asyncio=True\)"):
            client.post("/tag", inputs)


# -- through a gateway -------------------------------------------------------------------------------


class Moody(Exception):
    pass


def test_what_a_generator_raises_reaches_the_caller(either):
    def inputs():
        yield "x"
        raise Moody("not today")

    with pytest.raises(Moody, match="not today"):
        either.post("/tag", inputs(), request_size=1)
    # ... and the client is as good as new.
    assert either.post("/tag", "x").texts == ["xA"]


def test_what_an_asynchronous_generator_raises_reaches_the_caller(gateway, protocol):
    async def inputs():
        yield "x"
        raise Moody("not today")

    async def post():
        client = Client(host="127.0.0.1", port=gateway.ports[protocol], protocol=protocol, asyncio=True)
        with pytest.raises(Moody):
            async for _ in client.post("/tag", inputs()):
                pass
        await client.close()

    asyncio.run(post())


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("prefetch", [1, 3])
def test_a_generator_is_read_no_further_than_prefetch(either, prefetch, in_order):
    ahead = []
    sent = itertools.count(1)
    answered = itertools.count(1)
    answers = [0]

    def inputs():
        for number in range(30):
            ahead.append(next(sent) - answers[0])
            yield str(number)

    def count(response):
        answers[0] = next(answered)

    either.post(
        "/identity",
        inputs(),
        request_size=1,
        prefetch=prefetch,
        results_in_order=in_order,
        on_always=count,
    )

    assert answers[0] == 30
    assert max(ahead) <= prefetch


def test_the_clients_own_prefetch_bounds_every_post(gateway, protocol):
    ahead, answers = [], [0]

    def inputs():
        for number in range(20):
            ahead.append(number + 1 - answers[0])
            yield "x"

    def count(response):
        answers[0] += 1

    with Client(host="127.0.0.1", port=gateway.ports[protocol], protocol=protocol, prefetch=2) as client:
        client.post("/identity", inputs(), request_size=1, on_always=count)

    assert max(ahead) <= 2


def test_large_requests_fill_the_window_before_their_number_does(gateway, monkeypatch):
    monkeypatch.setattr("gatewayd.client.delivery.IN_FLIGHT_BYTES", 1_000_000)
    ahead, answers = [], [0]

    def inputs():
        for number in range(12):
            ahead.append(number + 1 - answers[0])
            yield bytes(400_000)

    def count(response):
        answers[0] += 1

    with Client(host="127.0.0.1", port=gateway.ports["grpc"]) as client:
        client.post("/identity", inputs(), request_size=1, on_always=count)

    assert answers[0] == 12
    assert max(ahead) <= 3


def test_an_endless_asynchronous_input_is_answered_while_it_goes_on(gateway, protocol):
    async def post():
        client = Client(host="127.0.0.1", port=gateway.ports[protocol], protocol=protocol, asyncio=True)
        question: asyncio.Queue[str] = asyncio.Queue()

        async def inputs():
            while True:
                yield await question.get()

        texts = []
        await question.put("x")
        answers = client.post("/tag", inputs(), request_size=1)
        async for docs in answers:
            # The next question depends on this answer: a client that read ahead would wait for ever.
            texts += docs.texts
            if len(texts) == 3:
                break
            await question.put(docs[0].text)
        await answers.aclose()
        await client.close()
        return texts

    assert asyncio.run(asyncio.wait_for(post(), 30)) == ["xA", "xAA", "xAAA"]


def test_inputs_and_callbacks_run_in_the_callers_thread(client):
    threads = set()

    def inputs():
        threads.add(threading.current_thread())
        yield "x"

    client.post("/tag", inputs(), on_done=lambda _: threads.add(threading.current_thread()))

    assert threads == {threading.current_thread()}


def test_a_callback_may_post_with_the_same_client(client):
    texts = []

    client.post("/tag", "x", on_done=lambda answer: texts.extend(client.post("/tag", answer.docs).texts))

    assert texts == ["xAA"]


class Shelf:
    """An iterable that is neither a collection nor an iterator."""

    def __iter__(self):
        return iter(())


NO_DOCUMENTS = {
    "a list": [],
    "a tuple": (),
    "a set": set(),
    "a DocumentArray": DocumentArray(),
    "a matrix": np.empty((0, 3)),
    "an iterable": Shelf(),
    "a function": lambda: DocumentArray(),
    "none at all": None,
}


@pytest.mark.parametrize("name", NO_DOCUMENTS)
def test_inputs_without_documents_are_one_request_for_their_parameters(client, name):
    inputs = NO_DOCUMENTS[name]

    (response,) = client.post("/results", inputs, parameters={"ids": ["a"]}, return_responses=True)

    assert len(response.docs) == 0
    assert response.parameters["__results__"]["exec_a/rep-0"]["n"] == 0


@pytest.mark.parametrize("iterator", [lambda: iter([]), lambda: (x for x in ()), lambda: map(str, [])])
def test_an_iterator_that_has_run_out_sends_nothing(client, iterator):
    assert client.post("/results", iterator(), return_responses=True) == []


def test_an_asynchronous_iterator_that_has_run_out_sends_nothing(gateway, protocol):
    async def nothing():
        for each in ():
            yield each

    async def post(inputs):
        where = {"host": "127.0.0.1", "port": gateway.ports[protocol], "protocol": protocol}
        async with Client(asyncio=True, **where) as client:
            return [answer async for answer in client.post("/results", inputs, return_responses=True)]

    assert asyncio.run(post(nothing())) == []
    assert len(asyncio.run(post([]))) == 1
