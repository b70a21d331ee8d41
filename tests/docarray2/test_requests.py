"""Requests with typed documents: what the reference was recorded with, and what it does not have."""

import asyncio

import pytest
from docarray import BaseDoc, DocList
from pydantic import BaseModel

import gatewayd
from gatewayd import Executor, dynamic_batching, requests
from gatewayd.config import ExecutorConfig
from gatewayd.executor.handling import Handling
from gatewayd.executor.spec import ExecutorSpec
from gatewayd.messages.wire import decode_call_list, split
from gatewayd.pb import DataRequestProto as FirstRequest
from gatewayd.pb import HeaderProto, StatusProto, second
from tests.docarray2 import annotated
from tests.docarray2.golden import CONVERSATIONS, EXECUTORS, answers, request

SINGLE = "/jina.JinaSingleDataRequestRPC/process_single_data"
BY_NUMBER = {case["n"]: case for case in CONVERSATIONS}
# Those of the gateway's whose answers are the executor's: rich documents, parameters, errors, docs_bytes.
THROUGH_A_GATEWAY = (0, 1, 2, 4, 6, 7, 10, 11, 18, 19, 20, 21, 22)
# Straight to an executor.
STRAIGHT = (3, 9, 13, 26, 32, 34)


def handled(executor, *messages, name=None):
    """What comes of messages that are sent at once."""

    async def converse():
        name_ = name or type(executor).__name__.lower()
        handling = Handling(executor, ExecutorSpec(name_), lambda reason: None)
        try:
            asked = (handling.handle(one if isinstance(one, list) else [one]) for one in messages)
            return await asyncio.wait_for(asyncio.gather(*asked), 10)
        finally:
            handling.close()

    return asyncio.run(converse())


def run(executor, *messages, name=None):
    """The answers to messages that are sent at once."""
    made = handled(executor, *messages, name=name)
    return [second.DataRequestProto.FromString(one.message) for one in made]


def message(endpoint, *documents, **parameters):
    made = second.DataRequestProto()
    made.header.exec_endpoint = endpoint
    made.parameters.update(parameters)
    for each in documents:
        made.data.docs.docs.add().ParseFromString(each.to_protobuf().SerializeToString())
    return made.SerializeToString()


def texts(answer):
    return [doc.data["text"].text for doc in answer.data.docs.docs]


def documents(answer):
    return answer.data.docs.docs


def without_made_up_ids(found, recorded):
    """The documents of two answers; ids that an executor has made are like no other."""
    for one, other in zip(found, recorded, strict=True):
        if len(other.data["id"].text) == 32:
            assert len(one.data["id"].text) == 32
            one.data["id"].text = other.data["id"].text
    return list(found), list(recorded)


@pytest.mark.parametrize(
    "number", [*THROUGH_A_GATEWAY, *STRAIGHT], ids=lambda n: f"{n}: {BY_NUMBER[n]['name']}"
)
def test_a_recorded_request_gets_the_recorded_documents_and_status(number):
    sent = request(number)
    if BY_NUMBER[number]["method"].endswith("process_data"):
        sent = decode_call_list(sent)
    recorded = second.DataRequestProto.FromString(answers(number)[0])

    (found,) = run(EXECUTORS.A(), sent, name="a")

    status, expected = found.header.status, recorded.header.status
    assert (status.code, status.exception.name) == (expected.code, expected.exception.name)
    assert list(status.exception.args) == list(expected.exception.args)
    # The last line names the release of pydantic.
    assert status.description.split("\n    For")[0] == expected.description.split("\n    For")[0]
    assert status.exception.executor == expected.exception.executor
    if number != 13:  # its gateway or executor does not bind the endpoint: the bytes are the same anyway
        found_documents, recorded_documents = without_made_up_ids(documents(found), documents(recorded))
        assert found_documents == recorded_documents


def test_a_name_of_each_generation():
    assert (gatewayd.BaseDoc, gatewayd.DocList) == (BaseDoc, DocList)
    with pytest.raises(ImportError, match=r"docarray 0.21, and .* is installed"):
        gatewayd.Document  # noqa: B018


def test_documents_of_the_first_generation_are_refused_by_name():
    made = FirstRequest()
    made.header.exec_endpoint = "/echo"
    made.data.docs.docs.add(id="a", text="b")

    (found,) = handled(EXECUTORS.A(), made.SerializeToString())

    header, _, _, data = split(found.message)
    status = HeaderProto.FromString(header).status
    assert status.code == StatusProto.ERROR
    assert "the documents are in the format of docarray 0.21" in status.description
    assert data == made.data.SerializeToString()


def test_a_pickle_is_not_read():
    made = second.DataRequestProto()
    made.header.exec_endpoint = "/echo"
    made.data.docs_bytes = b"\x80\x04N."

    (found,) = run(EXECUTORS.A(), made.SerializeToString())

    assert "docs_bytes holds documents in a form that is not read here" in found.header.status.description


def test_annotations_that_are_texts_are_read():
    executor = annotated.Annotated()

    batch, single = run(
        executor,
        message("/batch", annotated.Question(text="a")),
        message("/single", annotated.Question(text="b"), top=2.0),
    )

    assert executor.forms["/batch"].output is annotated.Reply
    assert (texts(batch), texts(single)) == (["a!"], ["b 2"])


def test_an_annotation_that_cannot_be_read_says_which():
    class Broken(Executor):
        @requests(on="/broken")
        def broken(self, docs: "DocList[Nobody]", **kwargs):  # noqa: F821
            """Never called."""

    with pytest.raises(TypeError, match=r"Broken.broken: the type of docs, 'DocList\[Nobody\]', cannot"):
        Broken()


@pytest.mark.parametrize(
    ("form", "error"),
    [
        (
            {"docs": int},
            r"docs is annotated with int, which is not DocList\[...\] of",
        ),
        ({"docs": BaseDoc}, r"annotated with BaseDoc: write DocList\[BaseDoc\]"),
        ({"doc": DocList[BaseDoc]}, r"which is not a class of documents \(a BaseDoc\)"),
        ({"doc": BaseDoc, "return": int}, "what it returns is annotated with int"),
    ],
)
def test_types_that_are_none_of_documents_are_refused(form, error):
    def batch(self, docs, **kwargs):
        """Never called."""

    def single(self, doc, **kwargs):
        """Never called."""

    function = single if "doc" in form else batch
    function.__annotations__ = form
    cls = type("Wrong", (Executor,), {"method": requests(on="/wrong")(function)})

    with pytest.raises(TypeError, match=error):
        cls()


def test_the_decorators_schemas_win():
    class Schemas(Executor):
        @requests(on="/a", request_schema=DocList[EXECUTORS.In], response_schema=DocList[EXECUTORS.Out])
        def a(self, docs, **kwargs):
            return DocList[EXECUTORS.Out]([EXECUTORS.Out(text=doc.text) for doc in docs])

    form = Schemas().forms["/a"]

    assert (form.input, form.output) == (EXECUTORS.In, EXECUTORS.Out)


def test_a_generator_that_takes_docs_is_refused():
    with pytest.raises(
        TypeError, match=r"Wrong\.f yields, so it .* must take doc, a document, in place of docs"
    ):

        class Wrong(Executor):
            @requests
            async def f(self, docs, **kwargs):
                yield docs


def test_an_untyped_method_keeps_fields_that_it_does_not_know():
    class Untyped(Executor):
        @requests
        def untyped(self, docs, **kwargs):
            for doc in docs:
                doc.text += str(doc.num)

    (found,) = run(Untyped(), message("/any", EXECUTORS.In(text="a", num=7)))

    assert texts(found) == ["a7"]
    assert documents(found)[0].data["num"].integer == 7


def test_a_single_document_changed_in_place_is_the_answer():
    class Changes(Executor):
        @requests(on="/sync")
        def sync(self, doc: EXECUTORS.In, **kwargs):
            doc.text += "!"

        @requests(on="/coroutine")
        async def coroutine(self, doc: EXECUTORS.In, **kwargs) -> EXECUTORS.Out:
            await asyncio.sleep(0)
            return EXECUTORS.Out(text=doc.text)

        @requests(on="/wrong")
        def wrong(self, doc: EXECUTORS.In, **kwargs):
            return 5

    pair = EXECUTORS.In(text="a"), EXECUTORS.In(text="b")
    sync, coroutine, wrong, none = run(
        Changes(), *(message(on, *pair) for on in ("/sync", "/coroutine", "/wrong")), message("/sync")
    )

    assert (texts(sync), texts(coroutine), texts(none)) == (["a!", "b!"], ["a", "b"], [])
    assert (
        "takes doc, so it must return a BaseDoc or `None`, but getting 5" in wrong.header.status.description
    )


def test_parameters_of_a_model_do_not_see_results_of_earlier_executors():
    class Strict(BaseModel, extra="forbid"):
        top: int

    class Takes(Executor):
        @requests(on="/takes")
        def takes(self, docs: DocList[EXECUTORS.In], parameters: Strict, **kwargs):
            docs[0].text = repr(parameters)

    (found,) = run(Takes(), message("/takes", EXECUTORS.In(text=""), top=1.0, __results__={"a": {}}))

    assert texts(found) == ["Strict(top=1)"]


def test_what_does_not_fit_the_method_is_told_without_a_traceback(caplog):
    (parameters,) = run(EXECUTORS.A(), message("/params", EXECUTORS.In(text="")), name="a")
    (documents,) = run(EXECUTORS.A(), message("/echo", EXECUTORS.Nested()), name="a")

    for found, names in ((parameters, "for Params"), (documents, "for In")):
        assert found.header.status.exception.name == "ValidationError"
        assert names in found.header.status.description
        assert not found.header.status.exception.stacks
    assert "Traceback" not in caplog.text
    assert "ValidationError" in caplog.text


class Batches(Executor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.sizes = []

    @requests(on="/cut")
    @dynamic_batching(preferred_batch_size=2, timeout=20)
    def cut(self, docs: DocList[EXECUTORS.In], **kwargs) -> DocList[EXECUTORS.Out]:
        self.sizes.append(len(docs))
        if any(doc.text == "bad" for doc in docs):
            raise ValueError("bad")
        return DocList[EXECUTORS.Out]([EXECUTORS.Out(text=doc.text + "!") for doc in docs])

    @requests(on="/all")
    @dynamic_batching(preferred_batch_size=2, timeout=20, flush_all=True)
    def all(self, docs: DocList[EXECUTORS.In], **kwargs) -> DocList[EXECUTORS.In]:
        self.sizes.append(len(docs))


def batch(endpoint, *texts):
    return message(endpoint, *(EXECUTORS.In(text=each) for each in texts))


def test_a_batch_is_cut_into_calls_of_the_preferred_size():
    executor = Batches()

    one, two = run(executor, batch("/cut", "a"), batch("/cut", "b", "c", "d"))

    assert executor.sizes == [2, 2]
    assert (texts(one), texts(two)) == (["a!"], ["b!", "c!", "d!"])


def test_with_flush_all_a_batch_is_one_call():
    executor = Batches()

    run(executor, batch("/all", "a"), batch("/all", "b", "c", "d"))

    assert executor.sizes == [4]


def test_a_part_that_fails_fails_the_requests_with_documents_in_it():
    good, bad = run(Batches(), batch("/cut", "a"), batch("/cut", "b", "c", "bad"))

    assert texts(good) == ["a!"]
    assert bad.header.status.description == "ValueError('bad')"


def test_batching_is_refused_where_the_parameters_have_a_model():
    class Refused(Executor):
        @requests(on="/refused")
        @dynamic_batching(preferred_batch_size=2)
        def refused(self, docs: DocList[EXECUTORS.In], parameters: EXECUTORS.Params, **kwargs):
            """Never called."""

    with pytest.raises(ValueError, match="whose parameters are a Params cannot share a batch"):
        Refused()


def test_a_type_of_arrays_has_no_effect_and_says_so(caplog):
    spec = ExecutorSpec("a", ExecutorConfig(output_array_type="list"))

    Handling(EXECUTORS.A(), spec, lambda reason: None).close()

    assert "a: output_array_type has no effect on documents of docarray 0.40 and later" in caplog.text
