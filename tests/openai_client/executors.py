"""Executors that speak, one document at a time, for the real openai client."""

from docarray import Document

from gatewayd import Executor, requests


class Speaking(Executor):
    """Each endpoint answers with the words of the question, one at a time."""

    @requests(on="/chat")
    async def chat(self, doc, parameters, **kwargs):
        words = doc.text.split()
        if parameters.get("user") == "raises":
            raise ValueError("nothing to say")
        for number, word in enumerate(words[: int(parameters.get("max_tokens", 100))]):
            if parameters.get("user") == "breaks" and number:
                raise ValueError("lost for words")
            yield Document(text=f"{word} ")
        yield Document(tags={"finish_reason": "length", "usage": {"prompt_tokens": len(words)}})

    @requests(on="/embed")
    def embed(self, docs, **kwargs):
        for doc in docs:
            doc.embedding = [float(len(doc.text)), 1.0]


class Loud(Executor):
    """Behind the other: what it says, in capitals."""

    @requests(on="/chat")
    def shout(self, docs, **kwargs):
        for doc in docs:
            doc.text = doc.text.upper()
