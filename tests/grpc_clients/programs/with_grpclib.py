"""Carries out calls (see ../conftest.py) with grpclib."""

import asyncio
import base64
import json
import secrets
import ssl
import sys

from grpclib.client import Channel, StreamStreamMethod, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError

KINDS = {"unary": UnaryUnaryMethod, "server": UnaryStreamMethod, "bidi": StreamStreamMethod}


class Bytes(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message, message_type):
        return message

    def decode(self, data, message_type):
        return data


async def carry_out(channel, call):
    messages = [base64.b64decode(each) for each in call["messages"]]
    pairs = [(k, base64.b64decode(v) if k.endswith("-bin") else v) for k, v in call["metadata"]]
    if call["traceparent"]:
        pairs.append(("traceparent", f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"))
    method = KINDS[call["kind"]](channel, call["path"], bytes, bytes)
    answers, trailers, code, details = [], [], 0, ""

    async def ask():
        async with method.open(timeout=call["timeout_s"], metadata=pairs) as stream:
            try:
                for number, message in enumerate(messages, 1):
                    await stream.send_message(message, end=number == len(messages))
                while (answer := await stream.recv_message()) is not None:
                    answers.append(answer)
                    if len(answers) == call["answers"]:
                        await stream.cancel()
                        raise asyncio.CancelledError
                await stream.recv_trailing_metadata()
            finally:
                trailers.extend((stream.trailing_metadata or stream.initial_metadata or {}).items())

    task = asyncio.ensure_future(ask())
    if call["cancel_s"]:
        asyncio.get_running_loop().call_later(call["cancel_s"], task.cancel)
    try:
        await task
    except GRPCError as error:
        code, details = error.status.value, error.message or ""
    except asyncio.CancelledError:
        code = 1
    except TimeoutError:
        code = 4
    except StreamTerminatedError as error:
        code, details = 14, str(error)
    return {
        "code": code,
        "details": details,
        "answers": [base64.b64encode(each).decode() for each in answers],
        "trailers": [[k, base64.b64encode(v).decode() if k.endswith("-bin") else v] for k, v in trailers],
    }


async def main():
    with open(sys.argv[1]) as file:
        job = json.load(file)
    host, _, port = job["target"].rpartition(":")
    context = None
    if job["ca"]:
        context = ssl.create_default_context(cafile=job["ca"])
        context.set_alpn_protocols(["h2"])
    channel = Channel(host, int(port), codec=Bytes(), ssl=context)
    for call in job["calls"]:
        if call["at_once"]:
            outcomes = await asyncio.gather(*(carry_out(channel, call) for _ in range(call["times"])))
        else:
            outcomes = [await carry_out(channel, call) for _ in range(call["times"])]
        print(json.dumps({"name": call["name"], "outcomes": outcomes}), flush=True)
    channel.close()


asyncio.run(main())
