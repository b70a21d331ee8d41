"""What of a request for a chat completion becomes parameters and a document, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gatewayd.errors import InvalidField, Unparsable
from gatewayd.messages.discovery import TypedEndpoint
from gatewayd.messages.openai.chat import Chat, decode_chat
from gatewayd.messages.openai.first import FirstForm
from gatewayd.messages.openai.forms import UnfitDocuments
from gatewayd.messages.openai.second import SecondForm
from gatewayd.messages.structs import parameters_of, read_struct
from gatewayd.pb import DataContentProto
from gatewayd.pb.second import DataContentProto as SecondContent

HELLO = {"role": "user", "content": "hello"}


def decoded(**fields: Any) -> Chat:
    return decode_chat(json.dumps({"model": "m", "messages": [HELLO], **fields}).encode())


def test_the_text_is_that_of_the_users_last_message() -> None:
    messages = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": None},
    ]
    chat = decoded(messages=messages)
    assert chat.text == "three"
    assert chat.messages == messages


def test_the_text_of_a_message_in_parts_leaves_out_what_is_no_text() -> None:
    parts = [
        {"type": "text", "text": "what is"},
        {"type": "image_url", "image_url": {"url": "data:,"}},
        {"type": "text", "text": "this?"},
    ]
    assert decoded(messages=[{"role": "user", "content": parts}]).text == "what is\nthis?"


def test_without_a_message_of_the_users_there_is_no_text() -> None:
    assert decoded(messages=[{"role": "system", "content": "x"}]).text == ""


def test_what_says_how_to_answer_becomes_parameters() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    given = {
        "temperature": 1,
        "top_p": 0.5,
        "seed": 7,
        "presence_penalty": -1.5,
        "tools": tools,
        "tool_choice": "auto",
        "user": "u1",
        "response_format": {"type": "json_object"},
    }
    assert decoded(**given).parameters == {"model": "m", **given}


def test_a_single_stop_is_a_list_and_the_new_name_of_max_tokens_counts() -> None:
    found = decoded(stop="\n", max_completion_tokens=5, max_tokens=9).parameters
    assert found == {"model": "m", "stop": ["\n"], "max_tokens": 5}


def test_null_counts_as_missing_and_unknown_fields_are_ignored() -> None:
    chat = decoded(temperature=None, stream=None, stream_options=None, n=None, store=True, top_k=3)
    assert chat.parameters == {"model": "m"}
    assert not chat.stream


def test_streams_and_usage_are_no_parameters() -> None:
    chat = decoded(stream=True, stream_options={"include_usage": True}, n=1)
    assert chat.stream
    assert chat.include_usage
    assert chat.parameters == {"model": "m"}


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"model": 1}, "model", "a string is wanted"),
        ({"model": "m" * 257}, "model", "at most 256 characters"),
        ({"model": None}, "model", "missing"),
        ({"messages": None}, "messages", "missing"),
        ({"messages": []}, "messages", "there is none"),
        ({"messages": "hello"}, "messages", "a list of objects"),
        ({"messages": [HELLO, "x"]}, "messages", "a list of objects"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "a string is wanted"),
        ({"messages": [HELLO, {"role": "user", "content": 1}]}, "messages[1].content", "a list of parts"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content", "a list of objects"),
        ({"temperature": "hot"}, "temperature", "a number from 0 to 2"),
        ({"temperature": True}, "temperature", "a number from 0 to 2"),
        ({"temperature": 2.1}, "temperature", "a number from 0 to 2"),
        ({"max_tokens": 0}, "max_tokens", "an integer from 1 up"),
        ({"max_tokens": 1.5}, "max_tokens", "an integer from 1 up"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens", "an integer from 1 up"),
        ({"stop": [1]}, "stop", "a list of strings"),
        ({"n": 2}, "n", "one completion"),
        ({"tools": {}}, "tools", "a list of objects"),
        ({"tool_choice": 1}, "tool_choice", "a string or an object"),
        ({"logit_bias": []}, "logit_bias", "an object"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"stream_options": True}, "stream_options", "an object"),
        ({"user": 5}, "user", "a string"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused_by_name(fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidField, match=words) as caught:
        decoded(**fields)
    assert caught.value.param == param


def test_what_is_no_json_object_is_refused() -> None:
    with pytest.raises(Unparsable):
        decode_chat(b"{")
    with pytest.raises(InvalidField, match="no JSON object"):
        decode_chat(b"[]")


# -- documents -----------------------------------------------------------------------------------------

SYSTEM = {"role": "system", "content": "be short"}
MESSAGES = [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "hi"}], "n": 3}]


def test_in_the_first_generation_messages_are_a_tag() -> None:
    request = FirstForm("/chat").of_chat("hi", MESSAGES, {"model": "m", "stop": ["a"]}, "id1")
    (document,) = DataContentProto.FromString(bytes(request.documents)).docs.docs
    assert document.text == "hi"
    assert read_struct(document.tags) == {"messages": MESSAGES}
    assert len(document.id) == 32
    assert parameters_of(request.parameters) == {"model": "m", "stop": ["a"]}
    assert (request.request_id, request.endpoint) == ("id1", "/chat")


def endpoint(*names: str, parameters: dict[str, Any] | None = None) -> TypedEndpoint:
    """One whose documents have the fields ``names``."""
    kinds = {
        "id": {"type": "string"},
        "text": {"type": "string"},
        "messages": {"type": "array", "items": {"type": "object"}},
        "tags": {"type": "object"},
        "number": {"type": "integer"},
    }
    schema = {"title": "Turn", "type": "object", "properties": {name: kinds[name] for name in names}}
    return TypedEndpoint(schema, schema, "Turn", "Turn", parameters=parameters)


def second(*names: str, **more: Any) -> SecondForm:
    return SecondForm.of("/chat", endpoint(*names, **more))


def fields_of(form: SecondForm) -> dict[str, Any]:
    request = form.of_chat("hi", MESSAGES, {"model": "m"}, "id1")
    (document,) = SecondContent.FromString(bytes(request.documents)).docs.docs
    return dict(document.data)


def test_in_the_second_generation_a_conversation_fills_the_fields_that_there_are() -> None:
    data = fields_of(second("id", "text", "messages", "number"))
    assert set(data) == {"id", "text", "messages"}
    assert data["text"].text == "hi"
    assert data["messages"].list.data[0].dict.data["content"].text == "be short"
    assert set(fields_of(second("messages"))) == {"messages"}
    assert set(fields_of(second("text"))) == {"text"}


def test_messages_without_a_field_of_their_own_are_among_the_tags() -> None:
    data = fields_of(second("text", "tags"))
    assert data["tags"].dict.data["messages"].list.data[0].dict.data["role"].text == "system"
    assert set(fields_of(second("messages", "tags"))) == {"messages"}


def test_documents_without_a_field_for_them_are_told_by_name() -> None:
    with pytest.raises(UnfitDocuments, match=r"/chat \(Turn\) have no field messages or text"):
        fields_of(second("number"))


def test_parameters_that_executors_describe_are_checked_by_that() -> None:
    schema = {"title": "P", "type": "object", "properties": {"temperature": {"type": "integer"}}}
    form = SecondForm.of("/chat", endpoint("text", parameters=schema))
    with pytest.raises(InvalidField) as caught:
        form.of_chat("hi", MESSAGES, {"model": "m", "temperature": 0.5}, "id1")
    assert caught.value.param == "temperature"


@pytest.mark.parametrize("form", [FirstForm("/chat"), second("messages")], ids=["first", "second"])
def test_messages_that_are_nested_too_deeply_are_refused(form: Any) -> None:
    deep: Any = {}
    for _ in range(200):
        deep = {"a": deep}
    with pytest.raises(InvalidField):
        form.of_chat("hi", [{"role": "user", "content": "hi", "deep": deep}], {}, "id1")


def test_documents_that_hold_their_like_are_filled_as_others() -> None:
    turn = {"type": "object", "properties": {"text": {"type": "string"}, "next": {"$ref": "#/$defs/Turn"}}}
    schema = {"$ref": "#/$defs/Turn", "$defs": {"Turn": turn}}
    form = SecondForm.of("/chat", TypedEndpoint(schema, schema, "Turn", "Turn"))
    assert fields_of(form)["text"].text == "hi"


def test_documents_of_which_nothing_is_known_get_the_text_and_the_messages() -> None:
    form = SecondForm.of("/chat", TypedEndpoint({}, {}, "Turn", "Turn"))
    data = fields_of(form)
    assert data["text"].text == "hi"
    assert data["messages"].list.data[0].dict.data["content"].text == "be short"
