"""Which endpoints the OpenAI-style paths lead to, and how that is written in a Flow file."""

from __future__ import annotations

from typing import Any, Final

import attrs

from gatewayd.config.kinds import TEXT, TEXTS, Refused, ValueKind, read_map
from gatewayd.messages.endpoints import fault_of

_ACCEPTED: Final = "a map such as {chat: /chat, embeddings: /embed, models: [mine]}"


@attrs.frozen
class OpenAIConfig:
    """
    The endpoints of ``/v1/chat/completions`` and ``/v1/embeddings``, None for no such path.

    Requests may name one of the ``models``, and others are refused; without any, all are passed on.
    """

    chat: str | None = None
    embeddings: str | None = None
    models: tuple[str, ...] = ()


def _endpoint(value: Any) -> str:
    endpoint = str(TEXT.read(value))
    if fault := fault_of(endpoint):
        raise Refused(message=f"{endpoint[:80]!r} {fault}; no executor can be called with it")
    if not endpoint.startswith("/"):
        raise Refused
    return endpoint


def _models(value: Any) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(TEXTS.read(value)))
    if not all(names):
        raise Refused(message="the name of a model is empty")
    return names


_ENDPOINT: Final = ValueKind("an endpoint of the executors, such as /chat", _endpoint)
_KINDS: Final = {
    "chat": _ENDPOINT,
    "embeddings": _ENDPOINT,
    "models": ValueKind("a list of names", _models),
}


def _openai(value: Any) -> OpenAIConfig:
    found = OpenAIConfig(**read_map(value, _KINDS))
    if found.chat is None and found.embeddings is None:
        raise Refused(message=f"it leads nowhere: give chat, embeddings, or both; accepted: {_ACCEPTED}")
    return found


OPENAI: Final = ValueKind(_ACCEPTED, _openai, annotation="Mapping[str, Any]")
