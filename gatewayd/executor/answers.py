"""
What is answered: the messages of requests and answers, cut into fields, and the status of what has failed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs

from gatewayd.allowance import Bounded
from gatewayd.errors import IllegalHeader
from gatewayd.executor.documents import Documents
from gatewayd.executor.spec import BRIEF, ExecutorSpec
from gatewayd.executor.tracebacks import user_traceback
from gatewayd.messages.headers import Headers, given
from gatewayd.messages.structs import parameters_of, with_result
from gatewayd.messages.wire import DATA, HEADER, PARAMETERS, ROUTE, field, split
from gatewayd.pb import HeaderProto, RouteProto, StatusProto

log = logging.getLogger(__name__)
log.addFilter(Bounded())  # clients can make methods fail as often as they like


@attrs.frozen
class Handled:
    """
    One answer. ``failed`` says that the method raised; ``fatal`` is what it raised, if that ends the executor
    (``exit_on_exceptions``). ``headers`` are those that the method gave.
    """

    message: bytes
    failed: bool = False
    fatal: str | None = None
    headers: Headers = attrs.field(default=(), repr=False)


class Outlet(Protocol):
    """Where the answers of a generator go."""

    async def send(self, message: bytes) -> None:
        """Send a SingleDocumentRequestProto. Returns once the next may be sent."""

    def finished(self, failure: BaseException | None, headers: Headers) -> None:
        """There will be no more; ``failure`` is why, if something is wrong."""


@attrs.frozen
class Message:
    """One DataRequestProto, or SingleDocumentRequestProto, cut into its fields, each still serialised."""

    header: bytes
    parameters: bytes
    routes: tuple[bytes, ...]
    data: bytes

    @classmethod
    def cut(cls, message: bytes) -> Message:
        header, parameters, routes, data = split(message)
        return cls(header, parameters or b"", routes, data or b"")

    def join(self) -> bytes:
        parts: list[bytes] = [*field(HEADER, self.header)] if self.header else []
        if self.parameters:
            parts += field(PARAMETERS, self.parameters)
        for route in self.routes:
            parts += field(ROUTE, route)
        if self.data:
            parts += field(DATA, self.data)
        return b"".join(parts)

    def parameters_for(self, name: str) -> dict[str, Any]:
        """What an executor called ``name`` gets as its parameters. Raises ValueError."""
        parameters = parameters_of(self.parameters)
        own = parameters.get(name)
        return {**parameters, **own} if isinstance(own, dict) else parameters


class Answers:
    """Makes the answers of one executor, whose class is called ``class_name``."""

    def __init__(self, documents: Documents, spec: ExecutorSpec, class_name: str) -> None:
        self._documents = documents
        self._spec = spec
        self._class_name = class_name
        self._route = RouteProto(executor=spec.route_name).SerializeToString()

    def success(
        self, message: Message, documents: Any, returned: Any, headers: Mapping[str, Any] | None
    ) -> Handled:
        """Raises what an answer of the wrong type, or headers that cannot be sent, are refused with."""
        answer = self._answer(message, documents, returned)
        return Handled(answer, headers=given(headers)) if headers else Handled(answer)

    def _answer(self, message: Message, documents: Any, returned: Any) -> bytes:
        parameters = message.parameters
        if isinstance(returned, dict):
            parameters = with_result(parameters, self._spec.runtime_name, returned)
        elif self._documents.is_array(returned):
            documents = returned
        elif returned is not None:
            raise TypeError(
                f"The return type must be {self._documents.array} / Dict / `None`, but getting {returned!r}"
            )
        data = self._documents.write(documents, self._spec.executor.output_array_type)
        return self.signed(attrs.evolve(message, parameters=parameters, data=data)).join()

    def signed(self, message: Message) -> Message:
        """With the route of this executor."""
        return attrs.evolve(message, routes=(*message.routes, self._route))

    def failure(
        self,
        message: Message,
        error: BaseException,
        headers: Mapping[str, Any] | None = None,
        *,
        unread: bool = False,
    ) -> Handled:
        """
        The request as it was received, with the exception as its status, and the method's headers.

        ``unread`` ones failed before the method was called: what was sent does not fit it.
        """
        header = HeaderProto.FromString(message.header)
        status = self.told(header, error, unread=unread)
        header.status.CopyFrom(status)
        failed = attrs.evolve(message, header=header.SerializeToString())
        fatal = self.fatal(status)
        try:
            answered = given(headers or {})
        except IllegalHeader:  # it is what was raised, or less important than that
            answered = ()
        return Handled(failed.join(), failed=True, fatal=fatal, headers=answered)

    def told(self, header: HeaderProto, error: BaseException, *, unread: bool = False) -> StatusProto:
        """The status of a request that failed, which is logged; see ``failure``."""
        name = type(error).__name__
        # No line of a traceback is the user's, or helps whoever has sent what cannot be read.
        lines = [] if unread else [safely(str, line) for line in user_traceback(error)]
        # A Flow in Python raises the traceback where the request was made, and shows what is logged here.
        log.error(
            "%s failed on %r: %s%s",
            self._spec.runtime_name,
            header.exec_endpoint,
            lines[-1].strip() if lines else f"{name}: {safely(str, error)}",
            "" if unread or os.environ.get(BRIEF) else "".join(["\n", *lines]).rstrip(),
            extra={"request_id": header.request_id},
        )
        status = StatusProto(code=StatusProto.ERROR, description=safely(repr, error))
        status.exception.name = name
        status.exception.args.extend(safely(str, argument) for argument in error.args)
        status.exception.stacks.extend(lines)
        status.exception.executor = self._class_name
        return status

    def fatal(self, status: StatusProto) -> str | None:
        """Why the executor has to end after a failure, if it has to."""
        return status.description if status.exception.name in self._spec.executor.exit_on_exceptions else None


def safely(form: Callable[[object], str], value: object) -> str:
    """``form(value)`` as valid text for protobuf, even if a user's ``__repr__`` raises."""
    try:
        text = form(value)
    except Exception as error:
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
    return text.encode("utf-8", "replace").decode()
