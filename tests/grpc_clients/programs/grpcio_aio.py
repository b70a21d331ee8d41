"""Carries out calls (see ../conftest.py) with grpcio's asyncio."""

import asyncio
import base64
import json
import secrets
import sys

import grpc.aio


async def carry_out(channel, call):
    messages = [base64.b64decode(each) for each in call["messages"]]
    pairs = [(k, base64.b64decode(v) if k.endswith("-bin") else v) for k, v in call["metadata"]]
    if call["traceparent"]:
        pairs.append(("traceparent", f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"))
    given = {"metadata": pairs, "timeout": call["timeout_s"]}
    if call["kind"] == "unary":
        asked = channel.unary_unary(call["path"])(messages[0], **given)
    elif call["kind"] == "server":
        asked = channel.unary_stream(call["path"])(messages[0], **given)
    else:
        asked = channel.stream_stream(call["path"])(iter(messages), **given)
    if call["cancel_s"]:
        asyncio.get_running_loop().call_later(call["cancel_s"], asked.cancel)
    answers = []
    try:
        if call["kind"] == "unary":
            answers.append(await asked)
        else:
            async for answer in asked:
                answers.append(answer)
                if len(answers) == call["answers"]:
                    asked.cancel()
    except (grpc.RpcError, asyncio.CancelledError):
        pass
    trailers = [
        [k, base64.b64encode(v).decode() if k.endswith("-bin") else v]
        for k, v in await asked.trailing_metadata() or ()
    ]
    return {
        "code": (await asked.code()).value[0],
        "details": await asked.details() or "",
        "answers": [base64.b64encode(each).decode() for each in answers],
        "trailers": trailers,
    }


async def main():
    with open(sys.argv[1]) as file:
        job = json.load(file)
    options = [("grpc.max_receive_message_length", -1)]
    if job["ca"]:
        with open(job["ca"], "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        channel = grpc.aio.secure_channel(job["target"], credentials, options)
    else:
        channel = grpc.aio.insecure_channel(job["target"], options)
    for call in job["calls"]:
        if call["at_once"]:
            outcomes = await asyncio.gather(*(carry_out(channel, call) for _ in range(call["times"])))
        else:
            outcomes = [await carry_out(channel, call) for _ in range(call["times"])]
        print(json.dumps({"name": call["name"], "outcomes": outcomes}), flush=True)
    await channel.close()


asyncio.run(main())
