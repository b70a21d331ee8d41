"""What an operation of GraphQL is, however it comes: by HTTP or over a WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from gatewayd.messages.caller import Caller
from gatewayd.messages.headers import Headers


@attrs.frozen
class GraphqlRequest:
    """A request to /graphql; its values are not checked yet and may be any JSON."""

    query: Any
    variables: Any = None
    operation: Any = None


@attrs.frozen
class Sender:
    """What the Requests of an operation have of what brought it."""

    request_id: str
    headers: Headers
    caller: Caller
    # Takes room in the buffers for the whole answer; reactor thread only.
    hold: Callable[[int], None] = lambda size: None
