"""
For the tests of executors and Flows: a whole Flow in the test's own process, without ports.

    from gatewayd.testing import LocalFlow

    def test_shouting():
        with LocalFlow(Shout, uses_with={"mark": "!"}) as flow:
            assert flow.post("/", Document(text="hello")).texts == ["HELLO!"]

Everything between the client's ``post`` and the executor's method is what serves in production: the
requests of the client, the walk through the Flow, joins and conditions, replicas and shards, the messages
as bytes, and the handling of each call. Only connections and processes are left out.
"""

from gatewayd.testing.local_flow import AsyncLocalClient, LocalClient, LocalFlow

__all__ = ["AsyncLocalClient", "LocalClient", "LocalFlow"]
