"""A chat completion, whole or in chunks, from the documents that executors answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gatewayd.messages.json_form.groups import dumps
from gatewayd.messages.openai.forms import Answered, usage_of, whole_number


class Completion:
    """
    One completion, which is told each answered document in turn.

    ``request_id`` becomes its id; ``created_s`` is seconds since the epoch.
    """

    def __init__(self, request_id: str, model: str, created_s: float, *, include_usage: bool = False) -> None:
        self._id = f"chatcmpl-{request_id}"
        self._model = model
        self._created_s = int(created_s)
        self._include_usage = include_usage
        self._begun = False
        self._texts: list[str] = []
        self._tool_calls: list[Any] = []
        self._calls = 0
        self._finish_reason: str | None = None
        self._usage: dict[str, int] = {}

    def answered(self, documents: Iterable[Answered]) -> None:
        """Take up documents of a completion that is to be told whole."""
        for document in documents:
            self._texts.append(document.text)
            self._tool_calls += self._read(document)

    def whole(self) -> bytes:
        """The body of the answer."""
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._texts)}
        if self._tool_calls:
            message["tool_calls"] = self._tool_calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._reason()}
        found = self._object("chat.completion", [choice])
        if self._usage:
            found["usage"] = self._usage
        return dumps(found)

    def begun(self) -> Iterator[bytes]:
        """The chunk before all others, which tells whose message it is; nothing when it has been told."""
        if not self._begun:
            self._begun = True
            yield self._chunk({"role": "assistant", "content": ""})

    def chunks(self, documents: Iterable[Answered]) -> Iterator[bytes]:
        """Those of further documents. One without text and calls of tools makes none."""
        yield from self.begun()
        for document in documents:
            calls = self._read(document)
            delta: dict[str, Any] = {"content": document.text} if document.text else {}
            if calls:
                delta["tool_calls"] = calls
            if delta:
                yield self._chunk(delta)

    def ending(self) -> Iterator[bytes]:
        """The last ones, after all documents."""
        yield from self.begun()
        yield self._chunk({}, self._reason())
        if self._include_usage and self._usage:
            yield dumps({**self._object("chat.completion.chunk", []), "usage": self._usage})

    def _chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        found = self._object("chat.completion.chunk", [choice])
        if self._include_usage:
            found["usage"] = None
        return dumps(found)

    def _object(self, kind: str, choices: list[Any]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created_s,
            "model": self._model,
            "choices": choices,
        }

    def _read(self, document: Answered) -> list[Any]:
        """Remember what a document says of the whole; its calls of tools, each with an index."""
        facts = document.facts
        reason = facts.get("finish_reason")
        if isinstance(reason, str) and reason:
            self._finish_reason = reason
        # Executors may tell their count with each document, or at the end: the last word counts.
        self._usage = usage_of(facts) or self._usage
        calls = facts.get("tool_calls")
        found = []
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, Mapping):
                index = whole_number(call.get("index"))
                found.append({**call, "index": self._calls if index is None else index})
                self._calls += 1
        return found

    def _reason(self) -> str:
        return self._finish_reason or ("tool_calls" if self._calls else "stop")
