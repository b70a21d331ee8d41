"""
An executor, a Flow and its clients with complete types: this file passes ``mypy --strict``.

    python examples/typed/greeting.py
"""

from __future__ import annotations

import asyncio
from typing import Any

from docarray import Document, DocumentArray

from gatewayd import Client, Executor, Flow, requests


class Greeter(Executor):
    """Greets whoever is named."""

    def __init__(self, greeting: str = "Hello", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.greeting = greeting

    @requests(on="/greet")
    async def greet(self, docs: DocumentArray, parameters: dict[str, Any], **kwargs: Any) -> None:
        """``parameters["mark"]`` ends the greeting."""
        for doc in docs:
            doc.text = f"{self.greeting}, {doc.text}{parameters.get('mark', '.')}"

    @requests(on="/count")
    def count(self, docs: DocumentArray, **kwargs: Any) -> dict[str, Any]:
        """Counts the letters; what is no documents arrives in the answer's parameters."""
        return {"letters": sum(len(doc.text) for doc in docs)}


def greeted(port: int, names: list[str]) -> list[str]:
    """With the client that waits."""
    with Client(port=port) as client:
        docs = client.post("/greet", [Document(text=name) for name in names], parameters={"mark": "!"})
        texts: list[str] = docs.texts
        return texts


def routes(flow: Flow) -> list[str]:
    """What a Flow's own ``post`` returns follows from its keywords: with these, Responses."""
    responses = flow.post("/greet", Document(text="Ada"), return_responses=True)
    return [route.executor for response in responses for route in response.routes]


async def counted(port: int, names: list[str]) -> int:
    """With the client for asyncio."""
    async with Client(port=port, asyncio=True) as client:
        answers = client.post("/count", [Document(text=name) for name in names], return_responses=True)
        results = [answer.parameters["__results__"] async for answer in answers]
        return sum(int(result["greeter/rep-0"]["letters"]) for result in results)


def main() -> None:
    """Start the Flow, ask it, end it."""
    with Flow().add(name="greeter", uses=Greeter, uses_with={"greeting": "Good day"}) as flow:
        assert isinstance(flow.port, int)
        print(greeted(flow.port, ["Ada", "Alan"]))  # noqa: T201
        print(routes(flow))  # noqa: T201
        print(asyncio.run(counted(flow.port, ["Ada", "Alan"])))  # noqa: T201


if __name__ == "__main__":
    main()
