"""What our Client makes of inputs and answers with docarray 0.40 and later."""

import pytest
from docarray import BaseDoc, DocList
from docarray.base_doc import AnyDoc

from gatewayd import Client
from gatewayd.client.documents import installed
from gatewayd.client.errors import BadClientInput, BadServerFlow, WrongReturnType
from gatewayd.client.inputs import batches, encoded_documents, encoded_parameters
from gatewayd.client.post import Post
from gatewayd.client.response import Response
from gatewayd.messages import wire
from gatewayd.messages.structs import parameters_of
from gatewayd.pb import DataContentProto, DocumentArrayProto, DocumentProto
from tests.docarray2.golden import EXECUTORS, decoded, request

In, Out = EXECUTORS.In, EXECUTORS.Out


def answer(documents, return_type=None):
    response = Response(b"".join(wire.field(wire.DATA, documents)))
    response.return_type = return_type
    return response


def test_documents_are_sent_as_jinas_client_sends_them():
    recorded = decoded(request(1)).data

    (batch,) = batches(DocList[In].from_protobuf(docarray_list(recorded)), 100)

    assert type(recorded).FromString(encoded_documents(batch)) == recorded


def docarray_list(content):
    from docarray.proto import DocListProto

    return DocListProto.FromString(content.docs.SerializeToString())


@pytest.mark.parametrize(
    ("inputs", "texts"),
    [
        (In(text="a"), [["a"]]),
        ([In(text="a"), In(text="b"), In(text="c")], [["a", "b"], ["c"]]),
        (DocList[In]([In(text="a")]), [["a"]]),
        ((In(text=text) for text in "abc"), [["a", "b"], ["c"]]),
        (lambda: In(text="a"), [["a"]]),
        (None, [[]]),
        ([], [[]]),
    ],
)
def test_inputs_are_cut_into_requests(inputs, texts):
    assert [[one.text for one in batch] for batch in batches(inputs, 2)] == texts


@pytest.mark.parametrize("wrong", ["text", {"text": "a"}, [b"x"], 3])
def test_other_inputs_are_refused(wrong):
    with pytest.raises(BadClientInput, match="derived from docarray's BaseDoc"):
        list(batches(wrong, 2))


def test_a_value_that_protobuf_cannot_hold_is_refused():
    with pytest.raises(BadClientInput, match=r"a In cannot be sent: .*num"):
        encoded_documents([In(text="a", num=2**40)])


@pytest.mark.parametrize("given", [None, {}])
def test_no_parameters_are_sent_as_results_that_are_empty(given):
    assert parameters_of(encoded_parameters(given)) == {"__results__": {}}


def test_documents_are_read_as_their_class():
    sent = encoded_documents([In(id="x", text="a")])

    (got,) = answer(sent, DocList[In]).docs
    (untyped,) = answer(sent).docs

    assert got == In(id="x", text="a")
    assert isinstance(untyped, AnyDoc)
    assert untyped.text == "a"


def test_docs_bytes_are_read_where_they_are_protobuf():
    written = DocList[In]([In(text="a")]).to_bytes(protocol="protobuf-array")

    (got,) = answer(b"".join(wire.field(0x12, written)), In).docs

    assert got.text == "a"


class Other(BaseDoc):
    missing: str


def test_documents_of_another_class_are_told():
    with pytest.raises(WrongReturnType, match=r"no Other.*return_type") as caught:
        _ = answer(encoded_documents([In(text="a")]), Other).docs

    assert isinstance(caught.value, ValueError)


def test_documents_of_the_first_generation_are_told():
    content = DataContentProto(docs=DocumentArrayProto(docs=[DocumentProto(id="d", text="a")]))

    with pytest.raises(BadServerFlow, match=r"docarray 0\.21, and this Client has docarray 0\.40 or later"):
        _ = answer(content.SerializeToString(), In).docs


@pytest.mark.parametrize("wrong", [int, "In", list[In]])
def test_a_return_type_that_is_none_is_refused_before_anything_is_sent(wrong):
    with pytest.raises(TypeError, match=r"neither DocList\[X\] nor X"):
        Client(port=1).post("/", In(text="a"), return_type=wrong)


def test_what_is_returned_is_what_was_asked_for():
    documents = installed()
    one, two = DocList[In]([In(text="a")]), DocList[In]([In(text="b")])

    assert documents.joined([one], In) == one[0]
    assert documents.joined([one, two], In).doc_type is In
    assert len(documents.joined([one, two], DocList[In])) == 2
    assert documents.shown(one, DocList[In]) is one


def test_pauses_grow_as_those_of_jinas_client():
    assert Post(on="/").max_backoff == 2.0
