"""
The real client of the second generation, driven over standard input: a JSON command, a JSON answer a line.

A command calls once: ``{"port", "protocol", "asyncio", "call", "on", "docs", "class", "return", "parameters",
...}``, where ``class`` and ``return`` name classes of the executors' file. The answer tells what came of it:
``got`` (documents as mappings of their fields), ``called`` (what callbacks saw) or ``raised``.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "golden34"))

import executors
from docarray import DocList
from jina import Client
from pydantic import BaseModel

answers = sys.stdout
sys.stdout = sys.stderr  # what the library prints must not come between our lines


def shown(result):
    if isinstance(result, DocList):
        return [field_texts(doc) for doc in result]
    if isinstance(result, list):
        return [one for part in result for one in shown(part)]
    return [field_texts(result)]


def field_texts(doc):
    """A document as a mapping; what is no plain value as its text."""
    plain = (str, int, float, bool, type(None))
    fields = {name: getattr(doc, name) for name in type(doc).__fields__ or {}}
    fields.update(getattr(doc, "__dict__", {}))
    return {name: value if isinstance(value, plain) else str(value) for name, value in fields.items()}


def typed(command):
    kind = getattr(executors, command["class"])
    docs = [kind(**fields) for fields in command["docs"]]
    return docs[0] if command.get("single") else DocList[kind](docs)


def arguments(command, called):
    args = dict(command.get("args", {}))
    if command.get("docs") is not None:
        args["inputs"] = typed(command)
    if "return" in command:
        kind = getattr(executors, command["return"])
        args["return_type"] = kind if command.get("return single") else DocList[kind]
    if "parameters" in command:
        args["parameters"] = command["parameters"]
    for name in command.get("callbacks", ()):
        args[name] = lambda response, name=name: called.update([name])
    return args


async def posted(client, command, args):
    return [part async for part in client.post(on=command["on"], **args)]


async def streamed(client, command, args):
    """What came, and when, until the end, an error, or as many as the command wants."""
    began, got, error = time.monotonic(), [], None
    try:
        async for doc in client.stream_doc(on=command["on"], **args):
            got.append({**field_texts(doc), "at_s": round(time.monotonic() - began, 3)})
            if len(got) == command.get("leave after"):
                break
    except BaseException as problem:
        error = problem
    return got, error


def run(command):
    called = Counter()
    asynchronous = command.get("asyncio", False) or command["call"] == "stream_doc"
    client = Client(
        host="127.0.0.1", port=command["port"], protocol=command["protocol"], asyncio=asynchronous
    )
    if command["call"] == "is_flow_ready":
        got = client.is_flow_ready()
        return {"got": asyncio.run(got) if asynchronous else got}
    args = arguments(command, called)
    if command["call"] == "stream_doc":
        if "return_type" in args:
            args["return_type"] = getattr(executors, command["return"])
        got, error = asyncio.run(streamed(client, command, args))
        return {"got": got, **({} if error is None else raised(error))}
    if asynchronous:
        got = asyncio.run(posted(client, command, args))
    else:
        got = client.post(on=command["on"], **args)
    return {"got": shown(got), "called": dict(called)}


def raised(error):
    return {"raised": type(error).__name__, "message": str(error)}


assert issubclass(executors.Params, BaseModel)
for line in sys.stdin:
    try:
        answer = run(json.loads(line))
    except BaseException as error:
        answer = raised(error)
    print("ANSWER " + json.dumps(answer, default=str), file=answers, flush=True)
