"""What counts of a stream that crosses to gRPC's loop, without threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.python.failure import Failure

from gatewayd.bridge import Bridge
from gatewayd.buffers import Buffers
from gatewayd.errors import Overloaded
from gatewayd.messages.request import Request
from gatewayd.protocols.grpc.crossing import Crossing
from tests.protocols.fake_streams import Streaming


class SameThread:
    """A bridge between a thread and itself."""

    def tell(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)

    tell_reactor = tell_loop = tell_loop_soon = tell


def test_parameters_of_a_request_count_in_the_buffers_as_its_documents_do() -> None:
    engine, buffers, found = Streaming(), Buffers(1000), list[Any]()
    bridge = cast(Bridge, SameThread())
    request = Request("r", "/chat", documents=b"d" * 300, parameters=b"p" * 300)

    first = Crossing(bridge, engine, buffers, request, None, found.append)
    assert buffers.held_bytes == 600
    Crossing(bridge, engine, buffers, request, None, found.append)
    (failure,) = found
    assert isinstance(failure, Failure)
    assert failure.check(Overloaded)
    first.close()
    assert (buffers.held_bytes, engine.begun[0].cancelled) == (0, True)
