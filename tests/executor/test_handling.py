"""One executor's answers, without a server."""

import asyncio
import threading

import numpy as np
import pytest
from docarray import Document, DocumentArray

from gatewayd import Executor, dynamic_batching, monitor, requests
from gatewayd.config import ExecutorConfig
from gatewayd.executor.handling import Handling
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.messages.wire import DATA, decode_answer, field, split
from gatewayd.pb import DataRequestProto, StatusProto
from tests.paths import ROOT

GOLDEN34 = ROOT / "tests" / "golden34" / "grpc"
SPEC = ExecutorSpec("exec_a", shard=0, replica=1)


def message(endpoint, *texts, parameters=None, routes=("gateway",), request_id="r"):
    request = DataRequestProto()
    request.header.request_id, request.header.exec_endpoint = request_id, endpoint
    if parameters is not None:
        request.parameters.update(parameters)
    for name in routes:
        request.routes.add(executor=name)
    request.data.docs.SetInParent()
    for text in texts:
        request.data.docs.docs.add(id=text, text=text)
    return request.SerializeToString()


def run(executor, *conversation, spec=SPEC, on_fatal=None):
    """The answers to several messages (or lists of messages), all sent at once."""

    async def converse():
        handling = Handling(executor, spec, on_fatal or (lambda reason: None))
        try:
            return await asyncio.wait_for(
                asyncio.gather(
                    *(handling.handle(one if isinstance(one, list) else [one]) for one in conversation)
                ),
                timeout=10,
            )
        finally:
            handling.close()

    return [(DataRequestProto.FromString(one.message), one.failed) for one in asyncio.run(converse())]


def texts(answer):
    return [doc.text for doc in answer.data.docs.docs]


class Kinds(Executor):
    @requests(on="/seen")
    def seen(self, docs, parameters, **kwargs):
        return {"parameters": parameters, "more": sorted(kwargs), "matrix": kwargs["docs_matrix"] is None}

    @requests(on="/few")
    def few(self, docs, parameters, docs_matrix):
        docs.append(Document(text=str(len(docs_matrix))))

    @requests(on="/coroutine")
    async def coroutine(self, docs, **kwargs):
        return docs[::-1]

    @requests(on="/stop")
    def stop(self, **kwargs):
        raise StopIteration("odd")

    @requests(on="/nasty")
    def nasty(self, **kwargs):
        class Nasty(Exception):
            def __repr__(self):
                raise RuntimeError("no")

        raise Nasty("\ud800")

    @requests(on="/array")
    def array(self, **kwargs):
        return DocumentArray([Document(id="x", embedding=np.array([1.5, 2.0]))])


def test_an_unbound_endpoint_gets_the_very_bytes_back():
    async def converse():
        handling = Handling(Kinds(), SPEC, lambda reason: None)
        asked = message("/nobody", "x")
        assert (await handling.handle([asked])).message is asked
        handling.close()

    asyncio.run(converse())


def test_a_handler_sees_its_keywords_and_floats():
    ((answer, _),) = run(Kinds(), message("/seen", parameters={"n": 1, "Kinds": {"n": 2}}))

    seen = answer.parameters["__results__"]["exec_a/rep-1"]
    assert seen["parameters"]["n"] == 2.0
    assert list(seen["more"]) == ["docs_map", "docs_matrix", "tracing_context"]
    assert seen["matrix"] is True


class Keys(Executor):
    @requests
    def keys(self, docs_map, **kwargs):
        return {"keys": list(docs_map)}


@pytest.mark.parametrize(
    ("deployment", "senders", "keys"),
    [
        ("join", ["a", "b/shard-0"], ["a", "b"]),
        ("join", ["a/uses_after-0", "b/shard-1"], ["a", "b"]),
        ("b/uses_after-0", ["b/shard-0", "b/shard-1"], ["b/shard-0", "b/shard-1"]),
    ],
)
def test_docs_map_has_deployments_as_keys_and_shards_only_inside_their_own(deployment, senders, keys):
    received = [message("/x", "doc", routes=("gateway", sender)) for sender in senders]
    spec = ExecutorSpec(deployment)
    ((answer, failed),) = run(Keys(), received, spec=spec)

    assert not failed
    assert answer.parameters["__results__"][spec.runtime_name]["keys"] == keys


def test_a_handler_that_names_its_keywords_gets_just_those():
    ((answer, failed),) = run(Kinds(), message("/few", "a"))

    assert (texts(answer), failed) == (["a", "1"], False)


def test_a_coroutine_method_is_awaited():
    ((answer, _),) = run(Kinds(), message("/coroutine", "a", "b"))

    assert texts(answer) == ["b", "a"]
    assert [route.executor for route in answer.routes] == ["gateway", "exec_a"]


@pytest.mark.parametrize(
    ("endpoint", "name", "description"),
    [
        ("/stop", "StopIteration", "StopIteration('odd')"),
        ("/nasty", "Nasty", "<Nasty that cannot be shown: RuntimeError>"),
    ],
)
def test_exceptions_that_are_hard_to_carry_are_carried(endpoint, name, description):
    ((answer, failed),) = run(Kinds(), message(endpoint, "a"))

    assert failed
    assert answer.header.status.exception.name == name
    assert answer.header.status.description == description
    assert [route.executor for route in answer.routes] == ["gateway"]


def test_plain_methods_run_one_at_a_time_and_coroutines_together():
    class Counting(Executor):
        running, most = 0, 0
        lock, together = threading.Lock(), asyncio.Event()

        def enter(self):
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)

        @requests(on="/plain")
        def plain(self, **kwargs):
            self.enter()
            threading.Event().wait(0.01)
            with self.lock:
                self.running -= 1

        @requests(on="/coroutine")
        async def coroutine(self, **kwargs):
            self.enter()
            if self.most == 3:
                self.together.set()
            # Nobody gets past here before all three have come.
            await self.together.wait()

    plain, coroutine = Counting(), Counting()
    run(plain, *[message("/plain")] * 3)
    run(coroutine, *[message("/coroutine")] * 3)

    assert (plain.most, coroutine.most) == (1, 3)


def test_arrays_are_converted_when_configured():
    spec = ExecutorSpec("exec_a", ExecutorConfig(output_array_type="list"))

    ((answer, _),) = run(Kinds(), message("/array"), spec=spec)

    assert answer.data.docs.docs[0].embedding.cls_name == "list"


def test_pickled_documents_are_refused_and_protobuf_ones_are_read():
    documents = DocumentArray([Document(id="x", text="x")])
    messages = []
    for form in ("pickle-array", "protobuf-array"):
        request = DataRequestProto()
        request.header.exec_endpoint = "/few"
        request.data.docs_bytes = documents.to_bytes(protocol=form)
        messages.append(request.SerializeToString())

    (refused, refused_failed), (read, read_failed) = run(Kinds(), *messages)

    assert refused_failed
    assert "unsafe to read" in refused.header.status.description
    assert (read_failed, texts(read)) == (False, ["x", "1"])


def test_an_exception_to_exit_on_is_reported_after_its_answer_is_made():
    spec = ExecutorSpec("exec_a", ExecutorConfig(exit_on_exceptions=("StopIteration",)))
    told = []

    ((_, failed),) = run(Kinds(), message("/stop"), spec=spec, on_fatal=told.append)

    assert failed
    assert told == ["StopIteration('odd')"]


class Batched(Executor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = []

    @dynamic_batching(preferred_batch_size=3, timeout=10_000)
    @requests(on="/upper")
    def upper(self, docs, parameters, docs_matrix, **kwargs):
        self.calls.append((len(docs), parameters, docs_matrix, "docs_map" in kwargs))
        for doc in docs:
            doc.text = doc.text.upper()

    @dynamic_batching(preferred_batch_size=2, timeout=1)
    @requests(on=["/short", "/late"])
    async def short(self, docs, **kwargs):
        return docs[:1]

    @dynamic_batching(
        preferred_batch_size=10,
        timeout=10_000,
        flush_all=False,
        custom_metric=lambda doc: "?" if doc.text == "?" else 10 / len(doc.text),
        use_custom_metric=True,
    )
    @requests(on="/measured")
    def measured(self, docs, **kwargs):
        self.calls.append([doc.text for doc in docs])

    @dynamic_batching(preferred_batch_size=2)
    @requests(on="/dict")
    def dictionary(self, **kwargs):
        return {"n": 1}


def test_a_metric_says_when_a_batch_is_full_and_where_it_is_cut():
    executor = Batched()
    answers = run(executor, message("/measured", "aa", "aaaa"), message("/measured", "aaaaa", "aa"))

    assert executor.calls == [["aa", "aaaa", "aaaaa"], ["aa"]]
    assert [texts(answer) for answer, _ in answers] == [["aa", "aaaa"], ["aaaaa", "aa"]]


def test_what_a_metric_raises_and_what_is_no_number_fails_its_own_request_alone():
    executor = Batched()
    answers = run(
        executor, message("/measured", ""), message("/measured", "?"), message("/measured", "a", "b")
    )

    assert [failed for _, failed in answers] == [True, True, False]
    said = [answer.header.status.description for answer, _ in answers]
    assert "division by zero" in said[0]
    assert "the custom_metric of dynamic_batching must return a number, not '?'" in said[1]
    assert executor.calls == [["a"], ["b"]]


@pytest.mark.parametrize(("executor", "endpoint"), [(Kinds, "/seen"), (Batched, "/upper")])
def test_documents_of_another_generation_are_refused_by_name(executor, endpoint):
    _, _, _, typed = split((GOLDEN34 / "00_req0.bin").read_bytes())
    request = message(endpoint) + b"".join(field(DATA, typed))

    async def converse():
        handling = Handling(executor(), SPEC, lambda reason: None)
        try:
            return await handling.handle([request])
        finally:
            handling.close()

    handled = asyncio.run(converse())
    assert handled.failed
    status = StatusProto.FromString(decode_answer(handled.message).status)
    assert "docarray 0.30 and later" in status.description


def test_requests_with_equal_parameters_are_handled_in_one_call_and_dealt_back():
    executor = Batched()

    answers = run(
        executor,
        message("/upper", "a", parameters={"p": 1}, request_id="1"),
        message("/upper", "b", "c", parameters={"p": 1}, request_id="2"),
    )

    assert executor.calls == [(3, {"p": 1.0}, None, False)]
    assert [texts(answer) for answer, _ in answers] == [["A"], ["B", "C"]]
    assert [answer.header.request_id for answer, _ in answers] == ["1", "2"]
    assert [answer.routes[-1].executor for answer, _ in answers] == ["exec_a", "exec_a"]


def test_a_batch_that_does_not_fill_is_handled_when_its_time_is_over():
    ((answer, failed),) = run(Batched(), message("/late", "a"))

    assert (texts(answer), failed) == (["a"], False)


@pytest.mark.parametrize(
    ("endpoint", "description"),
    [
        ("/short", "Dynamic Batching requires input size to equal output size."),
        ("/dict", "TypeError("),
    ],
)
def test_a_batch_must_return_as_many_documents_as_it_got(endpoint, description):
    answers = run(Batched(), message(endpoint, "a"), message(endpoint, "b"))

    assert [failed for _, failed in answers] == [True, True]
    assert all(description in answer.header.status.description for answer, _ in answers)
    assert [texts(answer) for answer, _ in answers] == [["a"], ["b"]]


def test_a_batched_endpoint_cannot_take_unmerged_requests():
    ((answer, failed),) = run(Batched(), [message("/upper", "a"), message("/upper", "b")])

    assert failed
    assert "no_reduce" in answer.header.status.description


class Headed(Executor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = []

    @requests(on="/plain")
    def plain(self, headers, response_headers=None, **kwargs):
        response_headers["x-one"] = ["a", "b"]
        return {"headers": headers}

    @requests(on="/bare")
    def bare(self, **kwargs):
        return {"more": sorted(kwargs)}

    @requests(on="/batched")
    @dynamic_batching(preferred_batch_size=3, timeout=10_000)
    def batched(self, docs, headers, response_headers, **kwargs):
        self.calls.append((len(docs), headers))
        response_headers["x-size"] = str(len(docs))
        if headers.get("x-t") == "bad":
            raise ValueError("bad")

    @requests(on="/unaware")
    @dynamic_batching(preferred_batch_size=3, timeout=10_000)
    def unaware(self, docs, **kwargs):
        self.calls.append((len(docs), sorted(kwargs)))


def headed(executor, *conversation):
    """The answers to pairs of a message and the metadata of its call, and how often metadata was read."""
    read = []

    def metadata(pairs):
        read.append(pairs)
        return pairs

    async def converse():
        handling = Handling(executor, SPEC, lambda reason: None)
        try:
            return await asyncio.wait_for(
                asyncio.gather(
                    *(
                        handling.handle([one], lambda pairs=pairs: metadata(pairs))
                        for one, pairs in conversation
                    )
                ),
                timeout=10,
            )
        finally:
            handling.close()

    return asyncio.run(converse()), read


def test_a_method_that_names_headers_gets_those_of_the_call_and_gives_some():
    metadata = (("user-agent", "g"), ("endpoint", "/plain"), ("x-t", "a"), ("x-t", "b"), ("r-bin", b"\xff"))
    (answer,), _ = headed(Headed(), (message("/plain", "a"), metadata))

    assert answer.headers == (("x-one", "a"), ("x-one", "b"))
    results = DataRequestProto.FromString(answer.message).parameters["__results__"]
    assert dict(results["exec_a/rep-1"]["headers"]) == {"x-t": "a, b", "r-bin": "/w"}
    assert "x-one" not in repr(answer)


def test_metadata_is_read_for_no_other_method():
    (answer,), read = headed(Headed(), (message("/bare"), (("x-t", "a"),)))

    results = DataRequestProto.FromString(answer.message).parameters["__results__"]
    assert list(results["exec_a/rep-1"]["more"]) == [
        "docs", "docs_map", "docs_matrix", "parameters", "tracing_context",
    ]  # fmt: skip
    assert (answer.headers, read) == ((), [])


def test_a_batch_has_one_set_of_headers():
    executor = Headed()
    answers, _ = headed(
        executor,
        *((message("/batched", "a"), (("x-t", "a"),)) for _ in range(3)),
        *((message("/batched", "b", "c", "d"), (("x-t", tenant),)) for tenant in ("b", "bad")),
    )

    assert sorted(executor.calls, key=str) == [(3, {"x-t": tenant}) for tenant in ("a", "b", "bad")]
    assert [answer.headers for answer in answers] == [(("x-size", "3"),)] * 5
    assert [answer.failed for answer in answers] == [False] * 4 + [True]


def test_headers_keep_requests_apart_only_for_a_method_that_takes_them():
    executor = Headed()
    headed(executor, *((message("/unaware", "a"), (("x-t", str(tenant)),)) for tenant in range(3)))

    assert executor.calls == [(3, ["docs_matrix", "parameters", "tracing_context"])]


def test_a_drain_handles_what_waits_and_what_comes_later():
    executor = Batched()

    async def converse():
        handling = Handling(executor, SPEC, lambda reason: None)
        waiting = asyncio.ensure_future(handling.handle([message("/upper", "a")]))
        await asyncio.sleep(0)
        await handling.drain()
        first = await waiting
        later = await handling.handle([message("/upper", "b")])
        handling.close()
        return first, later

    answers = [DataRequestProto.FromString(one.message) for one in asyncio.run(converse())]

    assert [texts(answer) for answer in answers] == [["A"], ["B"]]


def test_a_request_given_up_while_it_waits_is_left_out_of_its_batch():
    executor = Batched()

    async def converse():
        handling = Handling(executor, SPEC, lambda reason: None)
        given_up = asyncio.ensure_future(handling.handle([message("/upper", "a")]))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        await handling.handle([message("/upper", "b", "c", "d")])
        handling.close()

    asyncio.run(converse())

    assert [count for count, *_ in executor.calls] == [3]


class Leaving(Executor):
    @requests(on="/plain")
    def plain(self, **kwargs):
        raise SystemExit(3)

    @requests(on="/async")
    async def waiting(self, **kwargs):
        raise SystemExit(3)


@pytest.mark.parametrize("endpoint", ["/plain", "/async"])
def test_a_method_that_exits_fails_its_request_and_no_other(endpoint):
    (first, failed), (_, other_failed) = run(Leaving(), message(endpoint, "a"), message("/nowhere", "b"))

    assert failed
    assert first.header.status.description == "SystemExit(3)"
    assert not other_failed


class Yielding(Executor):
    @requests(on="/plain")
    def plain(self, docs, **kwargs):
        yield docs[0]
        yield DocumentArray([Document(text="more")])

    @requests(on="/async")
    async def waiting(self, docs, **kwargs):
        yield docs[0]
        await asyncio.sleep(0)
        yield Document(text="more")

    @monitor()
    @requests(on="/timed")
    def timed(self, docs, **kwargs):
        yield docs[0]
        yield Document(text="more")

    @requests(on="/async_timed")
    @monitor()
    async def async_timed(self, docs, **kwargs):
        yield docs[0]
        yield Document(text="more")

    @requests(on="/returned")
    def returned(self, docs, **kwargs):
        return (doc for doc in [docs[0], Document(text="more")])

    @requests(on="/async_returned")
    async def async_returned(self, docs, **kwargs):
        return (doc for doc in [docs[0], Document(text="more")])

    @requests(on="/wrong")
    def wrong(self, **kwargs):
        yield 5


@pytest.mark.parametrize(
    "endpoint", ["/plain", "/async", "/timed", "/async_timed", "/returned", "/async_returned"]
)
def test_what_a_generator_yields_is_one_answer(endpoint):
    ((answer, failed),) = run(Yielding(), message(endpoint, "a", "b"))

    assert not failed
    assert texts(answer) == ["a", "more"]


def test_a_generator_of_anything_else_fails():
    ((answer, failed),) = run(Yielding(), message("/wrong", "a"))

    assert failed
    assert "must yield Document / DocumentArray, but yields 5" in answer.header.status.description
