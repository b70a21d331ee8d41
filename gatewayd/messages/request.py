"""
What moves through the gateway: Request, Call, Answer, Route, Response.

All are values that nobody changes (``gatewayd.values``). What the gateway does not need to read stays
serialised: ``documents`` is the content of field 4 of a DataRequestProto, ``parameters`` a
``google.protobuf.Struct``, ``status`` a ``StatusProto``, each as the bytes that came from the wire (spec
wire.md). Empty bytes are the empty message, and a status of no bytes is success. Long documents and messages
are ropes (``rope.py``).
"""

from __future__ import annotations

from typing import Final

import attrs

from gatewayd.errors import BadRequest
from gatewayd.messages.caller import ANONYMOUS, Caller
from gatewayd.messages.headers import Headers
from gatewayd.messages.journey import Journey, Visit
from gatewayd.messages.rope import Content
from gatewayd.values import value


@value
class Request:
    """
    What a client sends.

    ``endpoint`` is the exec endpoint (``""`` when the client named none); ``target`` a regular
    expression over Deployment names, ``""`` for all. ``routes`` are serialised RouteProtos that came
    with the request. ``timeout_s`` is how long the client is willing to wait, None for no limit.
    ``headers`` are those that its protocol brought and that every executor gets (``messages/headers.py``).
    ``caller`` is filled in where the gateway asks who calls (``gatewayd.access``). What becomes of it is
    written into the ``journey``, if the request has one.
    """

    request_id: str
    endpoint: str
    target: str = ""
    parameters: bytes = b""
    documents: Content = b""
    routes: tuple[bytes, ...] = ()
    timeout_s: float | None = None
    headers: Headers = attrs.field(default=(), repr=False)
    caller: Caller = ANONYMOUS
    journey: Journey | None = attrs.field(default=None, repr=False, eq=False)

    def watched(self, headers: Headers, journey: Journey | None) -> Request:
        """The same with other ``headers``, and a ``journey``. By hand: a third of ``attrs.evolve``."""
        return Request(
            self.request_id,
            self.endpoint,
            self.target,
            self.parameters,
            self.documents,
            self.routes,
            self.timeout_s,
            headers,
            self.caller,
            journey,
        )


# Of a request's id, endpoint and target: each call to an executor and each answer of a stream repeats them.
LONGEST_NAME: Final = 4096


def check_names(request_id: str, endpoint: str, target: str = "") -> None:
    """Raises BadRequest if one of them has more than LONGEST_NAME characters."""
    for text, what in ((request_id, "id"), (endpoint, "endpoint"), (target, "target executor")):
        if len(text) > LONGEST_NAME:
            raise BadRequest(
                f"the request's {what} has {len(text)} characters, and {LONGEST_NAME} are the most"
            )


def content_bytes(of: Request | Response) -> int:
    """How much there is to convert of a request or a response: documents and parameters."""
    return len(of.documents) + len(of.parameters or b"")


@value
class Answer:
    """
    What an Executor answered, or what it passes on from the Executor before it.

    ``failed`` means that the Executor raised; then ``status`` has its error, and ``documents`` are its
    input documents. ``routes`` are the serialised RouteProtos of the answer, ``headers`` those for the
    client.
    """

    documents: Content
    parameters: bytes = b""
    routes: tuple[bytes, ...] = ()
    status: bytes = b""
    failed: bool = False
    headers: Headers = attrs.field(default=(), repr=False)


@value
class Call:
    """
    What goes to one Deployment: serialised DataRequestProtos, and the endpoint for the call's metadata.

    With ``listed`` the call is ``process_data`` with a DataRequestListProto of all messages (a join that
    must not be merged); without it, ``process_single_data`` with the only message. ``headers`` are those of
    the client's request. ``visit`` is where its journey is written down, if it is.
    """

    messages: tuple[Content, ...]
    endpoint: str
    listed: bool = False
    headers: Headers = attrs.field(default=(), repr=False)
    visit: Visit | None = attrs.field(default=None, repr=False, eq=False)


@value
class Route:
    """
    The record of one Deployment (or the gateway itself) handling one request.

    Times are seconds since the epoch, UTC. ``end_time`` is None when the Deployment was skipped, or
    is floating and has not answered yet.
    """

    executor: str
    start_time: float
    end_time: float | None = None
    status: bytes = b""


@value
class Response:
    """
    What the client gets. ``routes`` start with the gateway's own.

    ``parameters`` is None only where the reference leaves the field out (an empty Flow asked without
    parameters). ``headers`` are those that executors answered with. ``hint`` says why no executor worked on
    the request, where that is not as intended.
    """

    request_id: str
    endpoint: str
    documents: Content
    parameters: bytes | None = b""
    routes: tuple[Route, ...] = ()
    status: bytes = b""
    headers: Headers = attrs.field(default=(), repr=False)
    hint: str = ""

    def part_of(self, request_id: str, endpoint: str, *headers: tuple[str, str]) -> Response:
        """The same under other names, with ``headers`` besides its own. By hand, as ``Request.watched``."""
        return Response(
            request_id,
            endpoint,
            self.documents,
            self.parameters,
            self.routes,
            self.status,
            (*self.headers, *headers) if headers else self.headers,
            self.hint,
        )
