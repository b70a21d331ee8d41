"""Whatever a client sends in OpenAI's form is a request, or is refused with a reason."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import GatewayError
from gatewayd.messages.discovery import TypedEndpoint
from gatewayd.messages.openai.chat import decode_chat
from gatewayd.messages.openai.embeddings import decode_embeddings
from gatewayd.messages.openai.first import FirstForm
from gatewayd.messages.openai.second import SecondForm

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=10)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
MESSAGE = st.fixed_dictionaries({"role": TEXT}, optional={"content": VALUES, "tool_calls": VALUES})
OPTIONS = (
    *("temperature", "max_tokens", "max_completion_tokens", "stop", "seed", "n", "user", "logit_bias"),
    *("tools", "tool_choice", "response_format", "stream", "stream_options"),
)
CHAT = st.fixed_dictionaries(
    {"model": TEXT | VALUES, "messages": st.lists(MESSAGE, max_size=3) | VALUES},
    optional=dict.fromkeys(OPTIONS, VALUES),
)
EMBEDDINGS = st.fixed_dictionaries(
    {"model": TEXT | VALUES, "input": st.lists(TEXT, max_size=3) | VALUES},
    optional=dict.fromkeys(("dimensions", "encoding_format", "user"), VALUES),
)
SCHEMA = {
    "title": "Turn",
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "messages": {"type": "array", "items": {"type": "object"}},
    },
}
FORMS = [
    FirstForm("/chat"),
    SecondForm.of("/chat", TypedEndpoint(SCHEMA, SCHEMA, "Turn", "Turn")),
]


@given(form=st.sampled_from(FORMS), asked=CHAT)
def test_a_chat(form: Any, asked: dict[str, Any]) -> None:
    try:
        chat = decode_chat(orjson.dumps(asked))
        request = form.of_chat(chat.text, chat.messages, chat.parameters, "id1")
    except GatewayError:
        return
    assert len(form.read(request.documents)) == 1


@given(form=st.sampled_from(FORMS), asked=EMBEDDINGS)
def test_embeddings(form: Any, asked: dict[str, Any]) -> None:
    try:
        wanted = decode_embeddings(orjson.dumps(asked), 10)
        request = form.of_texts(wanted.texts, wanted.parameters, "id1")
    except GatewayError:
        return
    assert [each.text for each in form.read(request.documents)] == wanted.texts


@given(body=st.binary(max_size=40))
def test_bytes(body: bytes) -> None:
    for decode in (decode_chat, lambda body: decode_embeddings(body, 10)):
        with pytest.raises(GatewayError):
            decode(body)
