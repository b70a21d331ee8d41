"""A request for a chat completion: what is checked, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from gatewayd.errors import InvalidField
from gatewayd.messages.openai.fields import (
    Check,
    Integer,
    Number,
    boolean,
    checked,
    fields_of,
    mapping,
    model_name,
    objects,
    stops,
    text,
    text_or_object,
)

# Names and bounds are those of OpenAI's reference (API reference, Chat, Create chat completion).
_PARAMETERS: Final[Mapping[str, Check]] = {
    "model": model_name,
    "temperature": Number(0, 2),
    "top_p": Number(0, 1),
    "max_tokens": Integer(1),
    "stop": stops,
    "seed": Integer(-(2**63), 2**63 - 1),
    "presence_penalty": Number(-2, 2),
    "frequency_penalty": Number(-2, 2),
    "logit_bias": mapping,
    "tools": objects,
    "tool_choice": text_or_object,
    "parallel_tool_calls": boolean,
    "response_format": mapping,
    "reasoning_effort": text,
    "user": text,
}


@attrs.frozen
class Chat:
    """
    What a client asks.

    ``text`` is that of the last message of the user's, empty without one. ``parameters`` are those for
    executors, ``model`` among them. ``include_usage`` is for streams.
    """

    model: str
    messages: Sequence[Mapping[str, Any]] = attrs.field(repr=False)
    text: str = attrs.field(repr=False)
    parameters: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    stream: bool = False
    include_usage: bool = False


def decode_chat(body: bytes) -> Chat:
    """Raises Unparsable, InvalidField."""
    fields = dict(fields_of(body))
    for name in ("model", "messages"):
        if name not in fields:
            raise InvalidField("it is missing", name)
    if "max_completion_tokens" in fields:  # the newer name of the same
        fields["max_tokens"] = Integer(1)(fields["max_completion_tokens"], "max_completion_tokens")
    if fields.get("n", 1) != 1:
        raise InvalidField("one completion is made for a request; ask several times for several", "n")
    options = mapping(fields.get("stream_options", {}), "stream_options")
    parameters = checked(fields, _PARAMETERS)
    messages = _messages(fields["messages"])
    return Chat(
        model=parameters["model"],
        messages=messages,
        text=_asked(messages),
        parameters=parameters,
        stream=boolean(fields.get("stream", False), "stream"),
        include_usage=options.get("include_usage") is True,
    )


def _messages(value: Any) -> list[Mapping[str, Any]]:
    messages = objects(value, "messages")
    if not messages:
        raise InvalidField("there is none", "messages")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if type(message.get("role")) is not str:
            raise InvalidField("a string is wanted, such as user", f"{where}.role")
        content = message.get("content")
        if type(content) is list:
            objects(content, f"{where}.content")
        elif content is not None and type(content) is not str:
            raise InvalidField("a string or a list of parts is wanted", f"{where}.content")
    return messages


def _asked(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the last message of the user's; its parts that are no texts are left out."""
    for message in reversed(messages):
        if message["role"] == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            parts = (part.get("text") for part in content or ())
            return "\n".join(part for part in parts if isinstance(part, str))
    return ""
