"""Chat completions, whole and in chunks, of the documents that executors answer."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gatewayd.errors import ExecutorRaised
from gatewayd.messages.discovery import TypedEndpoint
from gatewayd.messages.openai.answers import NotBound, UnfitAnswer, documents_of
from gatewayd.messages.openai.completion import Completion
from gatewayd.messages.openai.first import FirstForm
from gatewayd.messages.openai.forms import Answered, UnfitDocuments, usage_of
from gatewayd.messages.openai.second import SecondForm
from gatewayd.messages.request import Response, Route
from gatewayd.pb import DataContentProto, DocumentProto, StatusProto
from gatewayd.pb.second import DataContentProto as SecondContent

USAGE = {"prompt_tokens": 3.0, "completion_tokens": 2.0}
COUNTED = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def completion(*, include_usage: bool = False) -> Completion:
    return Completion("id1", "m", 1700000000.9, include_usage=include_usage)


def whole(*documents: Answered) -> dict[str, Any]:
    made = completion()
    made.answered(documents)
    found: dict[str, Any] = json.loads(made.whole())
    return found


def chunks(*documents: Answered, include_usage: bool = False) -> list[dict[str, Any]]:
    """The chunks of a stream of ``documents``, one at a time."""
    made = completion(include_usage=include_usage)
    found = [json.loads(chunk) for document in documents for chunk in made.chunks([document])]
    return found + [json.loads(chunk) for chunk in made.ending()]


def test_the_texts_of_all_documents_are_the_content() -> None:
    assert whole(Answered("Hel"), Answered("lo")) == {
        "id": "chatcmpl-id1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
    }


def test_executors_may_say_why_they_ended_and_how_many_tokens_there_were() -> None:
    found = whole(Answered("a"), Answered("b", facts={"finish_reason": "length", "usage": USAGE}))
    assert found["choices"][0]["finish_reason"] == "length"
    assert found["usage"] == COUNTED


def test_calls_of_tools_are_passed_on() -> None:
    (choice,) = whole(Answered("", facts={"tool_calls": [CALL]}))["choices"]
    assert choice["message"]["tool_calls"] == [{**CALL, "index": 0}]
    assert choice["finish_reason"] == "tool_calls"


def test_the_first_chunk_tells_the_role_and_each_document_makes_one() -> None:
    found = chunks(Answered("Hel"), Answered("lo"))
    assert {chunk["object"] for chunk in found} == {"chat.completion.chunk"}
    assert {chunk["id"] for chunk in found} == {"chatcmpl-id1"}
    choices = [chunk["choices"][0] for chunk in found]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]


def test_an_empty_stream_has_a_beginning_and_an_end() -> None:
    assert [chunk["choices"][0]["delta"] for chunk in chunks()] == [{"role": "assistant", "content": ""}, {}]


def test_usage_is_told_in_a_chunk_of_its_own_to_those_who_ask() -> None:
    documents = Answered("a", facts={"usage": USAGE}), Answered("", facts={"finish_reason": "length"})
    assert all("usage" not in chunk for chunk in chunks(*documents))
    found = chunks(*documents, include_usage=True)
    assert [chunk["usage"] for chunk in found] == [None] * (len(found) - 1) + [COUNTED]
    assert found[-1]["choices"] == []
    assert found[-2]["choices"][0]["finish_reason"] == "length"


def test_executors_that_count_no_tokens_have_no_such_chunk() -> None:
    assert chunks(Answered("a"), include_usage=True)[-1]["choices"] != []


def test_each_call_of_a_tool_has_an_index() -> None:
    found = chunks(Answered("", facts={"tool_calls": [CALL]}), Answered("", facts={"tool_calls": [CALL]}))
    deltas = [chunk["choices"][0]["delta"] for chunk in found]
    assert [call["index"] for delta in deltas for call in delta.get("tool_calls", ())] == [0, 1]


@pytest.mark.parametrize("facts", [{}, {"usage": None}, {"usage": 3}, {"usage": {"prompt_tokens": "3"}}])
def test_what_counts_nothing_is_no_usage(facts: dict[str, Any]) -> None:
    assert usage_of(facts) == {}


# -- documents ------------------------------------------------------------------------------------------


def test_documents_of_the_first_generation_are_read() -> None:
    content = DataContentProto()
    document = content.docs.docs.add()
    document.text = "hello"
    document.tags.update({"finish_reason": "stop", "usage": USAGE})
    (found,) = FirstForm("/chat").read(content.SerializeToString())
    assert found.text == "hello"
    assert found.facts == {"finish_reason": "stop", "usage": USAGE}
    assert found.embedding is None
    assert FirstForm("/chat").read(b"") == []


SCHEMA = {"title": "Turn", "type": "object", "properties": {"text": {"type": "string"}}}
SECOND = SecondForm.of("/chat", TypedEndpoint(SCHEMA, SCHEMA, "Turn", "Turn"))


def test_documents_of_the_second_generation_are_read() -> None:
    content = SecondContent()
    data = content.docs.docs.add().data
    data["text"].text = "hello"
    data["finish_reason"].text = "length"
    data["usage"].dict.data["prompt_tokens"].integer = 3
    data["tags"].dict.data["usage"].text = "the field counts more"
    data["tool_calls"].list.data.add().dict.data["id"].text = "c1"
    (found,) = SECOND.read(content.SerializeToString())
    assert found.text == "hello"
    assert found.facts == {
        "finish_reason": "length",
        "usage": {"prompt_tokens": 3},
        "tool_calls": [{"id": "c1"}],
    }


def test_a_document_of_the_second_generation_without_text_has_an_empty_one() -> None:
    content = SecondContent()
    content.docs.docs.add().data["other"].integer = 1
    assert SECOND.read(content.SerializeToString()) == [Answered()]


def test_malformed_documents_are_told() -> None:
    with pytest.raises(UnfitDocuments, match="malformed"):
        SECOND.read(b"\xff")


def test_an_executor_that_raised_is_an_error_with_what_it_says() -> None:
    status = StatusProto(code=StatusProto.ERROR, description="ValueError('no')").SerializeToString()
    answer = DataContentProto()
    answer.docs.docs.append(DocumentProto(text="what was asked"))
    response = Response("id1", "/chat", answer.SerializeToString(), status=status)
    with pytest.raises(ExecutorRaised, match=r"ValueError\('no'\)"):
        documents_of(response, FirstForm("/chat"))


def test_what_no_executor_worked_on_is_no_answer() -> None:
    answer = DataContentProto()
    answer.docs.docs.append(DocumentProto(text="what was asked"))
    response = Response("id1", "/chat", answer.SerializeToString(), hint="no executor binds '/chat'")
    with pytest.raises(NotBound, match="no executor binds /chat"):
        documents_of(response, FirstForm("/chat"))


def test_what_an_executor_does_not_know_is_left_out() -> None:
    told = Answered("hi", facts={"usage": {"prompt_tokens": None}, "tool_calls": [{**CALL, "index": None}]})
    told.check_facts()
    assert whole(told)["choices"][0]["message"]["tool_calls"] == [{**CALL, "index": 0}]
    assert "usage" not in whole(told)
    assert chunks(told, include_usage=True)[1]["choices"][0]["delta"]["tool_calls"][0]["index"] == 0
    Answered("hi", facts={"usage": None, "tool_calls": None, "finish_reason": None}).check_facts()


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), 1e300, -1.0, True, "3", []])
@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("usage.prompt_tokens", lambda odd: {"usage": {"prompt_tokens": odd}}),
        ("tool_calls[1].index", lambda odd: {"tool_calls": [CALL, {**CALL, "index": odd}]}),
    ],
)
def test_what_is_no_number_in_an_executors_facts_is_told(odd: object, name: str, facts: Any) -> None:
    with pytest.raises(UnfitDocuments, match=rf"^{re.escape(name)} is .*, and a number from 0 up is wanted"):
        Answered("hi", facts=facts(odd)).check_facts()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"finish_reason": 1.0}, "finish_reason is 1.0, and a string is wanted"),
        ({"finish_reason": ["stop"]}, "finish_reason is a list, and a string is wanted"),
        ({"usage": "12"}, "usage is a string, and an object with counts of tokens is wanted"),
        ({"usage": []}, "usage is a list, and an object with counts of tokens is wanted"),
        ({"tool_calls": ["f"]}, "tool_calls[0] is a string, and an object is wanted"),
        ({"tool_calls": {"name": "f"}}, "tool_calls is an object, and a list of objects is wanted"),
        ({"tool_calls": True}, "tool_calls is a boolean, and a list of objects is wanted"),
    ],
)
def test_facts_of_another_kind_are_told_by_name(facts: dict[str, Any], words: str) -> None:
    with pytest.raises(UnfitDocuments, match=f"^{re.escape(words)}$"):
        Answered("hi", facts=facts).check_facts()


def test_the_executor_that_answers_what_cannot_be_told_is_named() -> None:
    content = DataContentProto()
    content.docs.docs.add().tags.update({"tool_calls": ["f"]})
    routes = (
        Route("gateway", 0.0, 1.0),
        Route("tools", 0.0, 1.0),
        Route("llm", 0.0, 1.0),
        Route("skipped", 0.0),
    )
    response = Response("id1", "/chat", content.SerializeToString(), routes=routes)
    with pytest.raises(
        UnfitAnswer, match=r"^the answer of llm at /chat has no form .*: tool_calls\[0\] is a"
    ):
        documents_of(response, FirstForm("/chat"))


def test_a_content_of_the_second_generation_that_is_no_text_is_told() -> None:
    content = SecondContent()
    content.docs.docs.add().data["text"].list.data.add().text = "hello"
    with pytest.raises(UnfitDocuments, match="text is a list, and a string is wanted"):
        SECOND.read(content.SerializeToString())


def test_an_array_without_a_json_form_is_told_by_its_field() -> None:
    content = SecondContent()
    dense = content.docs.docs.add().data["tool_calls"].ndarray.dense
    dense.buffer, dense.dtype = b"a", "|S1"
    dense.shape.append(1)
    with pytest.raises(UnfitDocuments, match="tool_calls: an array of dtype"):
        SECOND.read(content.SerializeToString())
    first = DataContentProto()
    embedding = first.docs.docs.add().embedding
    embedding.cls_name = "numpy"
    embedding.dense.CopyFrom(type(embedding.dense)(buffer=b"a", dtype="|S1", shape=[1]))
    with pytest.raises(UnfitDocuments, match="embedding: an array of dtype"):
        FirstForm("/embed").read(first.SerializeToString())


def test_calls_of_tools_may_be_documents_of_their_own() -> None:
    content = SecondContent()
    content.docs.docs.add().data["tool_calls"].doc_array.docs.add().data["id"].text = "c1"
    (found,) = SECOND.read(content.SerializeToString())
    assert found.facts == {"tool_calls": [{"id": "c1"}]}


def test_arrays_in_an_executors_facts_are_lists() -> None:
    numpy = pytest.importorskip("numpy")
    told = Answered(facts={"tool_calls": [{"scores": numpy.zeros(2)}]})
    assert whole(told)["choices"][0]["message"]["tool_calls"] == [{"scores": [0.0, 0.0], "index": 0}]
