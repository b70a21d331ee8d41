"""Carries out a job (conftest.py) with gql, over its WebSocket transport."""

import asyncio
import json
import sys

from gql import Client, gql
from gql.transport.exceptions import TransportQueryError
from gql.transport.websockets import WebsocketsTransport


async def carried_out(session, operation):
    results = []
    stream = session.subscribe(gql(operation["query"]), variable_values=operation.get("variables"))
    try:
        async for data in stream:
            results.append({"data": data})
            if len(results) == operation.get("most"):
                break
        await stream.aclose()
    except TransportQueryError as error:
        return {"results": results, "errors": error.errors}
    return {"results": results, "errors": None}


async def main(job):
    transport = WebsocketsTransport(
        url=job["url"],
        subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        ping_interval=0.02,
        pong_timeout=5,
    )
    async with Client(transport=transport) as session:
        if job["at_once"]:
            found = await asyncio.gather(*[carried_out(session, each) for each in job["operations"]])
        else:
            found = [await carried_out(session, each) for each in job["operations"]]
    print(json.dumps({"operations": found, "connections": 1}))


asyncio.run(main(json.loads(sys.argv[1])))
