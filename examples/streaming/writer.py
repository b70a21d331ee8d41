"""
A stand-in for a language model: it answers a question token by token, with typed documents.

It needs docarray 0.40 or later: pip install 'gatewayd[docarray2]'. Its Flow is ``flow.yml`` beside it.
"""

import asyncio
import random
from collections.abc import AsyncIterator

from docarray import BaseDoc
from pydantic import BaseModel

from gatewayd import Executor, requests


class Question(BaseDoc):
    text: str


class Token(BaseDoc):
    """A piece of the answer; ``number`` counts from 0."""

    text: str
    number: int


class Settings(BaseModel):
    """``pause_s`` is how long each token takes, ``seed`` chooses among the answers."""

    pause_s: float = 0.05
    most_tokens: int = 50
    seed: int = 0


class Writer(Executor):
    """Repeats the question's words in an order of its own, as if it had thought about them."""

    @requests(on="/write")
    async def write(self, doc: Question, parameters: Settings, **kwargs: object) -> AsyncIterator[Token]:
        """Tokens, one by one."""
        words = doc.text.split()
        random.Random(parameters.seed).shuffle(words)
        for number, word in enumerate(words[: parameters.most_tokens]):
            await asyncio.sleep(parameters.pause_s)
            yield Token(text=word, number=number)

    @requests(on="/count")
    def count(self, doc: Question, **kwargs: object) -> Token:
        """The number of tokens that an answer will have."""
        return Token(text=doc.text, number=len(doc.text.split()))
