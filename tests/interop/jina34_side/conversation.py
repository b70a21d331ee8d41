"""
The real client of Jina 3.34, which asks the gateways at two ports: that of the executor A, and that of S.

Run with those ports and the folder of the executors' source, for their documents. Prints a line of JSON:
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
    client = Client(port=s, protocol="grpc", asyncio=True)
    try:
        async for one in client.stream_doc(on=on, inputs=document, return_type=return_type):
            found.append(one.text)
            if len(found) == most:
                break
    except Exception as error:
        found.append(f"{type(error).__name__}: {error}")
    return found


def main():
    client = Client(port=a, protocol="grpc")
    pair = DocList[In]([In(text="a"), In(text="b")])
    top = {"top": 3}
    cases = {
        "ready": lambda: client.is_flow_ready(),
        "echo": lambda: list(client.post("/echo", pair, return_type=DocList[In]).text),
        "len": lambda: list(client.post("/len", pair, return_type=DocList[Out]).length),
        "single": lambda: list(client.post("/single", pair, return_type=DocList[Out]).length),
        "rich": lambda: client.post("/rich", Rich(title="t", by=b"x"), return_type=DocList[Rich])[0].title,
        "params": lambda: client.post("/params", pair, parameters=top, return_type=DocList[Out])[0].text,
        "params missing": lambda: client.post("/params", pair, return_type=DocList[Out]),
        "optparams": lambda: client.post("/optparams", pair, return_type=DocList[Out])[0].text,
        "raise": lambda: client.post("/raise", pair, return_type=DocList[In]),
        "unbound": lambda: list(client.post("/nope", pair, return_type=DocList[In]).text),
        "stream": lambda: asyncio.run(streamed("/stream", In(text="hi"))),
        "plain stream": lambda: asyncio.run(streamed("/syncstream", In(text="hi"))),
        "stream of rich": lambda: len(asyncio.run(streamed("/big", In(text="hi")))[0]),
        "stream left": lambda: asyncio.run(streamed("/slow", In(text="hi", price=0.05, num=1000), most=2)),
        "stream raises": lambda: asyncio.run(streamed("/midraise", In(text="hi"))),
        "stream of another class": lambda: asyncio.run(streamed("/wrongtype", In(text="hi"))),
    }
    print("ANSWERS", json.dumps({name: of(case) for name, case in cases.items()}), file=answers, flush=True)


main()
