"""
The real Jina client, driven over standard input: one JSON command a line, one JSON answer a line.

A command posts once: ``{"port", "protocol", "asyncio", "call", "args"}``. The answer tells what the call
returned (``got``), what the callbacks saw (``called``) or what was raised (``raised``). Documents are
shown as ``[id, text]``; in large results only their number and the first and last of them.
"""

import asyncio
import json
import sys
from collections import Counter

from docarray import Document, DocumentArray
from jina import Client

answers = sys.stdout
sys.stdout = sys.stderr  # what the library prints must not come between our lines


def documents(wanted):
    """``None``, a number of documents, or what one large document holds."""
    if wanted is None:
        return None
    if isinstance(wanted, dict):
        return DocumentArray([Document(id="large", blob=bytes(wanted["bytes"]))])
    return (Document(id=f"d{number:05}", text="x") for number in range(wanted))


async def documents_async(wanted):
    for one in documents(wanted):
        yield one


def shown(result):
    if result is None:
        return None
    if isinstance(result, DocumentArray):
        pairs = [[doc.id, doc.text] for doc in result]
        whole = {"documents": pairs if len(pairs) <= 10 else [*pairs[:2], *pairs[-2:]], "count": len(pairs)}
        whole["texts"] = dict(Counter(doc.text for doc in result))
        whole["in order"] = [doc.id for doc in result] == sorted(doc.id for doc in result)
        whole["tags"] = [doc.tags for doc in result[:4]]
        whole["blob bytes"] = sum(len(doc.blob or b"") for doc in result)
        return whole
    return [
        {
            "count": len(one.docs),
            "first": one.docs[0].id if len(one.docs) else None,
            "parameters": one.parameters,
            "routes": [route.executor for route in one.routes],
            "code": one.status.code,
        }
        for one in result
    ]


def run(command):
    called = Counter()
    args = dict(command.get("args", {}))
    for name in command.get("callbacks", ()):
        args[name] = lambda response, name=name: called.update([name])
    if command.get("callback raises"):
        args["on_done"] = lambda response: 1 / 0
    where = {key: command[key] for key in ("host", "port", "protocol") if key in command}
    client = Client(**{"host": "127.0.0.1", **where}, asyncio=command.get("asyncio", False))
    inputs = command.get("inputs", 0)
    if "metadata" in args:
        args["metadata"] = tuple(tuple(pair) for pair in args["metadata"])
    if command["call"] in ("is_flow_ready", "dry_run", "profiling"):
        call = getattr(client, command["call"])
        got = call(**args)
        if command.get("asyncio"):
            got = asyncio.run(got)
        return {"got": got, "called": {}}
    if command["call"] == "post":
        args["on"] = command["on"]
    call = getattr(client, command["call"])
    if command.get("asyncio"):
        got = asyncio.run(collect(call, inputs, args))
    else:
        got = call(inputs=documents(inputs), **args)
    return {"got": shown(got), "called": dict(called)}


async def collect(call, inputs, args):
    streamed = documents_async(inputs) if isinstance(inputs, int) else documents(inputs)
    parts = [part async for part in call(inputs=streamed, **args)]
    if args.get("return_responses"):
        return parts
    return DocumentArray([doc for part in parts for doc in part])


for line in sys.stdin:
    try:
        answer = run(json.loads(line))
    except BaseException as error:  # a failing input generator is a CancelledError there
        bases = [base.__module__ + "." + base.__name__ for base in type(error).__mro__]
        answer = {"raised": type(error).__name__, "message": str(error), "bases": bases}
    print("ANSWER " + json.dumps(answer, default=str), file=answers, flush=True)
