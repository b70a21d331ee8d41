"""Executors with docarray 0.40 and later, whose documents have fields by name."""

from typing import Any

from docarray import BaseDoc, DocList
from docarray.typing import NdArray
from pydantic import BaseModel

from gatewayd import Executor, requests


class Turn(BaseDoc):
    text: str = ""
    messages: list[dict[str, Any]] = []  # noqa: RUF012 (a field of pydantic's, which copies it)


class Piece(BaseDoc):
    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, int] | None = None


class Settings(BaseModel):
    model: str
    max_tokens: int = 100
    temperature: float = 1.0


class Text(BaseDoc):
    text: str


class Vector(BaseDoc):
    embedding: NdArray


class Typed(Executor):
    @requests(on="/chat")
    async def chat(self, doc: Turn, parameters: Settings, **kwargs) -> Piece:
        words = [message["content"] for message in doc.messages]
        for word in words[: parameters.max_tokens]:
            yield Piece(text=f"{word} ")
        yield Piece(finish_reason="length", usage={"prompt_tokens": len(words)})

    @requests(on="/embed")
    def embed(self, docs: DocList[Text], **kwargs) -> DocList[Vector]:
        return DocList[Vector]([Vector(embedding=[len(doc.text), 0.5]) for doc in docs])
