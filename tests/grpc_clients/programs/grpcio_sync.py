"""Carries out calls (see ../conftest.py) with grpcio's threads."""

import base64
import json
import secrets
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc


def carry_out(channel, call):
    messages = [base64.b64decode(each) for each in call["messages"]]
    pairs = [(k, base64.b64decode(v) if k.endswith("-bin") else v) for k, v in call["metadata"]]
    if call["traceparent"]:
        pairs.append(("traceparent", f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"))
    given = {"metadata": pairs, "timeout": call["timeout_s"]}
    if call["kind"] == "unary":
        asked = channel.unary_unary(call["path"]).future(messages[0], **given)
    elif call["kind"] == "server":
        asked = channel.unary_stream(call["path"])(messages[0], **given)
    else:
        asked = channel.stream_stream(call["path"])(iter(messages), **given)
    if call["cancel_s"]:
        threading.Timer(call["cancel_s"], asked.cancel).start()
    answers = []
    try:
        if call["kind"] == "unary":
            answers.append(asked.result())
        else:
            for answer in asked:
                answers.append(answer)
                if len(answers) == call["answers"]:
                    asked.cancel()
    except (grpc.RpcError, grpc.FutureCancelledError):
        pass
    trailers = [
        [k, base64.b64encode(v).decode() if k.endswith("-bin") else v]
        for k, v in asked.trailing_metadata() or ()
    ]
    return {
        "code": asked.code().value[0],
        "details": asked.details() or "",
        "answers": [base64.b64encode(each).decode() for each in answers],
        "trailers": trailers,
    }


def main():
    with open(sys.argv[1]) as file:
        job = json.load(file)
    options = [("grpc.max_receive_message_length", -1)]
    if job["ca"]:
        with open(job["ca"], "rb") as file:
            channel = grpc.secure_channel(job["target"], grpc.ssl_channel_credentials(file.read()), options)
    else:
        channel = grpc.insecure_channel(job["target"], options)
    for call in job["calls"]:
        outcomes = []
        if call["at_once"]:
            with ThreadPoolExecutor(call["times"]) as pool:
                outcomes = list(pool.map(carry_out, [channel] * call["times"], [call] * call["times"]))
        else:
            for _ in range(call["times"]):
                outcomes.append(carry_out(channel, call))
        print(json.dumps({"name": call["name"], "outcomes": outcomes}), flush=True)
    channel.close()


main()
