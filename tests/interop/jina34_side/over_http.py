"""
The real client of Jina 3.34, which asks gateways over HTTP: that of the executor A, and that of S.

Run with their ports and the folder of the executors' source, for their documents. Prints a line of JSON:
``ANSWERS {case: what came of it}``.
"""

import asyncio
import json
import sys

a, s, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
answers, sys.stdout = sys.stdout, sys.stderr  # what the library prints must not come between
sys.path.insert(0, folder)

from docarray import DocList  # noqa: E402
from executors import In, Out, Rich  # noqa: E402
from jina import Client  # noqa: E402


def of(work):
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


async def streamed(on, document, return_type=Out, most=None):
    found = []
    client = Client(port=s, protocol="http", asyncio=True)
    try:
        async for one in client.stream_doc(on=on, inputs=document, return_type=return_type):
            found.append(one.text)
            if len(found) == most:
                break
    except Exception as error:
        found.append(type(error).__name__)
    return found


def main():
    client = Client(port=a, protocol="http")
    streams = Client(port=s, protocol="http")
    pair = DocList[In]([In(text="a"), In(text="b")])
    many = DocList[In]([In(text="x")] * 250)
    rich = Rich(title="t", by=b"x", tensor=[[1.0, 2.0]])
    top = {"top": 3}
    cases = {
        "ready": lambda: client.is_flow_ready(),
        "echo": lambda: list(client.post("/echo", pair, return_type=DocList[In]).text),
        "many": lambda: len(client.post("/echo", many, return_type=DocList[In], request_size=250)),
        "len": lambda: list(client.post("/len", pair, return_type=DocList[Out]).length),
        "single": lambda: list(client.post("/single", pair, return_type=DocList[Out]).length),
        "rich": lambda: client.post("/rich", rich, return_type=DocList[Rich])[0].tensor.tolist(),
        "params": lambda: client.post("/params", In(text="a"), return_type=Out, parameters=top).text,
        "no params": lambda: client.post("/params", In(text="a"), return_type=Out),
        "raise": lambda: client.post("/raise", In(text="a"), return_type=In),
        "target": lambda: client.post("/echo", In(text="a"), return_type=In, target_executor="zzz").text,
        "unbound": lambda: client.post("/nope", In(text="a"), return_type=In).text,
        "post to a stream": lambda: streams.post("/stream", In(text="a"), return_type=Out),
        "plain": lambda: streams.post("/plain", In(text="a"), return_type=Out).text,
        "stream": lambda: asyncio.run(streamed("/stream", In(text="hi", num=3))),
        "slow": lambda: asyncio.run(streamed("/slow", In(text="hi", num=3, price=0.01))),
        "stream left": lambda: asyncio.run(streamed("/slow", In(text="hi", num=50, price=0.01), most=2)),
        "unicode": lambda: asyncio.run(streamed("/unicode", In(text="hi"))),
        "empty": lambda: asyncio.run(streamed("/empty", In(text="hi"))),
        "midraise": lambda: asyncio.run(streamed("/midraise", In(text="hi"))),
        "raise at once": lambda: asyncio.run(streamed("/raise0", In(text="hi"))),
    }
    found = {name: of(work) for name, work in cases.items()}
    print("ANSWERS", json.dumps(found), file=answers, flush=True)


main()
