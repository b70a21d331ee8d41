"""
The real openai client: reads a call on each line of its input, and prints what came of it.

    {"base_url": ..., "api_key": ..., "asyncio": bool, "method": "chat.completions.create", "options": {...},
     "stream": bool, "leave_after": chunks or null, "max_retries": 0}

    ANSWER {"value": ..., "chunks": [...],
            "error": {"class", "status", "message", "body", "retry_after"} or null}
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import reduce
from typing import Any

import openai


def client_of(kind: Any, call: dict[str, Any]) -> Any:
    return kind(
        base_url=call["base_url"],
        api_key=call.get("api_key") or "none",
        max_retries=call.get("max_retries", 0),
        timeout=30,
    )


def shown(value: Any) -> Any:
    # Not everything of the answer is in the client's model: what is beside it counts as well.
    return value.model_dump(mode="json", exclude_unset=True)


def told(error: openai.APIError) -> dict[str, Any]:
    response = getattr(error, "response", None)
    return {
        "class": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "message": error.message,
        "body": error.body,
        "retry_after": None if response is None else response.headers.get("retry-after"),
    }


def made(call: dict[str, Any], found: dict[str, Any]) -> None:
    with client_of(openai.OpenAI, call) as client:
        method = reduce(getattr, call["method"].split("."), client)
        result = method(**call["options"])
        if not call.get("stream"):
            found["value"] = shown(result)
            return
        with result:
            for chunk in result:
                found["chunks"].append(shown(chunk))
                if len(found["chunks"]) == call.get("leave_after"):
                    return


async def made_async(call: dict[str, Any], found: dict[str, Any]) -> None:
    async with client_of(openai.AsyncOpenAI, call) as client:
        method = reduce(getattr, call["method"].split("."), client)
        result = await method(**call["options"])
        if not call.get("stream"):
            found["value"] = shown(result)
            return
        async with result:
            async for chunk in result:
                found["chunks"].append(shown(chunk))
                if len(found["chunks"]) == call.get("leave_after"):
                    return


def answer(call: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"value": None, "chunks": [], "error": None}
    try:
        if call.get("asyncio"):
            asyncio.run(made_async(call, found))
        else:
            made(call, found)
    except openai.APIError as error:
        found["error"] = told(error)
    return found


for line in sys.stdin:
    sys.stdout.write(f"ANSWER {json.dumps(answer(json.loads(line)))}\n")
    sys.stdout.flush()
