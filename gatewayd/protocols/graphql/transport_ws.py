"""
One connection of GraphQL over WebSocket, decided without I/O: the protocol graphql-transport-ws.

    connected ── connection_init ──► acknowledged ── subscribe ──► operation ── next* ──► complete, or error
        └── too late: closed                             └── complete (of the client) ──► cancelled

Both sides send JSON objects with a ``type``. What breaks the protocol closes the connection with a code of
its own (https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md); what is wrong with one operation
is an ``error`` of that operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs
import orjson

SUBPROTOCOL: Final = "graphql-transport-ws"

# The protocol's own close codes.
INVALID_MESSAGE: Final = 4400
UNAUTHORIZED: Final = 4401
INIT_TIMEOUT: Final = 4408
ID_IN_USE: Final = 4409
TOO_MANY_INITS: Final = 4429

# Each result repeats it; that of clients is a UUID, or a number.
_LONGEST_ID: Final = 1024

_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


@attrs.frozen
class Reply:
    """Send this message."""

    message: bytes


@attrs.frozen
class Begin:
    """Execute an operation; its values are not checked yet and may be any JSON."""

    name: str
    query: Any
    variables: Any
    operation: Any


@attrs.frozen
class Cancel:
    """The client wants no more of an operation."""

    name: str


@attrs.frozen
class End:
    """Close the connection."""

    code: int
    reason: str


Event = Reply | Begin | Cancel | End


class TransportWs:
    """
    What follows from each message of a client. At most ``most_operations`` are under way at a time.

    Tell it by ``ended`` when an operation has ended by itself.
    """

    def __init__(self, most_operations: int) -> None:
        self._most_operations = most_operations
        self._operations: set[str] = set()
        self.is_acknowledged = False

    def received(self, payload: bytes) -> Event | None:
        """A text message of the client's; None if nothing follows."""
        try:
            message = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return End(INVALID_MESSAGE, "a message is a JSON object")
        kind = message.get("type") if isinstance(message, dict) else None
        match kind:
            case "connection_init":
                if self.is_acknowledged:
                    return End(TOO_MANY_INITS, "Too many initialisation requests")
                self.is_acknowledged = True
                return Reply(b'{"type":"connection_ack"}')
            case "ping":
                return Reply(b'{"type":"pong"}')
            case "pong":
                return None
            case "subscribe":
                return self._subscribe(message)
            case "complete":
                return self._complete(message.get("id"))
        return End(INVALID_MESSAGE, "a message has one of the types of graphql-transport-ws")

    def ended(self, name: str) -> None:
        """The operation is over; its name may be used again."""
        self._operations.discard(name)

    def _subscribe(self, message: dict[str, Any]) -> Event:
        if not self.is_acknowledged:
            return End(UNAUTHORIZED, "Unauthorized")
        name, fields = message.get("id"), message.get("payload")
        if not isinstance(name, str) or not name or not isinstance(fields, dict):
            return End(INVALID_MESSAGE, "subscribe has an id, which is a text, and a payload, an object")
        if len(name) > _LONGEST_ID:
            return End(INVALID_MESSAGE, f"an id has at most {_LONGEST_ID} characters")
        if name in self._operations:
            # The words are the protocol's; a name of any length would not fit.
            return End(ID_IN_USE, f"Subscriber for {name[:60]} already exists")
        if len(self._operations) >= self._most_operations:
            text = (
                f"{self._most_operations} operations are under way on this connection, and no more may be "
                "(gateway.graphql_max_operations); complete one of them, or open another connection"
            )
            return Reply(error_message(name, [{"message": text}]))
        self._operations.add(name)
        return Begin(name, fields.get("query"), fields.get("variables"), fields.get("operationName"))

    def _complete(self, name: object) -> Event | None:
        if not isinstance(name, str) or not name:
            return End(INVALID_MESSAGE, "complete has an id, which is a text")
        if name not in self._operations:
            return None  # it ended while the message was on its way
        self._operations.discard(name)
        return Cancel(name)


def next_message(name: str, result: bytes) -> bytes:
    """A result of an operation, which is JSON already."""
    return b'{"id":%s,"type":"next","payload":%s}' % (orjson.dumps(name), result)


def complete_message(name: str) -> bytes:
    """The operation has ended well."""
    return orjson.dumps({"id": name, "type": "complete"})


def error_message(name: str, errors: Sequence[Any]) -> bytes:
    """The operation has ended with these errors, each as in the answer to a query."""
    return orjson.dumps({"id": name, "type": "error", "payload": errors}, default=str, option=_OPTIONS)
