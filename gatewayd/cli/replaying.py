"""
``gatewayd replay``: sends recorded requests again, and tells what differs in the answers.

Each request is a call of its own, over any protocol, so that one that fails does not end the others. They are
sent one after the other, at a rate, or when they came at the time.

A stream is read as far as its client did: one that its client left is left after as many answers.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import attrs
from google.protobuf.message import DecodeError

from gatewayd.cli.differing import Carried, Difference, Ignored, differences, parsed
from gatewayd.cli.differing_streams import differences_of_streams
from gatewayd.cli.output import fail, note
from gatewayd.cli.replay_report import Outcome, Report, Unsendable, show
from gatewayd.client.address import GatewayAddress
from gatewayd.client.errors import BadClientInput, BadServerFlow
from gatewayd.client.exchange import STREAMS, Arrived, Ended, Exchange
from gatewayd.client.hints import never_connected
from gatewayd.client.inputs import Message
from gatewayd.client.post import Post
from gatewayd.client.response import Response
from gatewayd.client.streaming import WINDOW, Arrive, Streamed, StreamExchange
from gatewayd.client.transport_handle import TransportHandle
from gatewayd.client.transports.base import Transport
from gatewayd.errors import GatewayError
from gatewayd.messages import wire
from gatewayd.messages.generations import Generation, generation_of
from gatewayd.messages.request import Request
from gatewayd.messages.single import contents_of
from gatewayd.messages.wire import Malformed
from gatewayd.recording import Answers, Heading, Kind, NotARecording, Recorded, heading_of, recorded_of

Pairs = tuple[tuple[str, str], ...]
Arrival = Arrived | Streamed | Ended

# With a rate, or the times of the recording: what is under way, and kept until its answer has been compared.
_MOST_UNDER_WAY: Final = 500
# Of the answers of a stream: those that are kept behind as many as were recorded. All are counted.
_MOST_EXTRA: Final = 100

# The exit codes: no connection can be made, so nothing is known of the answers; and answers are the same, but
# not all that is recorded can be sent over this protocol.
UNREACHABLE: Final = 2
NOT_ALL_SENT: Final = 3


# What Jina's gateways do with a stream over WebSocket is call the executor for one answer.
_NO_STREAMS: Final = "it is not answered with a stream: gateways of Jina's stream over grpc and http alone"


class _NobodyThere(Exception):
    """No connection can be made to the gateway; the text says why."""


@attrs.frozen
class Pace:
    """
    When requests are sent: ``rate`` a second, or as ``recorded``, ``speed`` times as fast; without either,
    each when the one before it is answered.
    """

    rate: float | None = None
    recorded: bool = False
    speed: float = 1.0

    @property
    def most_under_way(self) -> int:
        return _MOST_UNDER_WAY if self.recorded or self.rate else 1

    def due_s(self, index: int, recorded: Recorded, first: Recorded) -> float:
        """When a request is sent, in seconds after the first."""
        if self.rate:
            return index / self.rate
        return max(0.0, recorded.at - first.at) / self.speed if self.recorded else 0.0


def replay(
    file: Path,
    address: GatewayAddress,
    pace: Pace,
    *,
    headers: Pairs,
    timeout_s: float,
    ignore: tuple[str, ...],
    tolerance: float,
    limit: int | None = None,
) -> int:
    """
    Returns the exit code: 0 if all answers are the same, 1 if some differ, or the file cannot be read,
    UNREACHABLE as soon as no connection can be made, and NOT_ALL_SENT if all that could be sent is answered
    the same.

    At most ``limit`` requests are sent. Ctrl-C ends it with the report of those that were answered.
    """
    try:
        heading, lines = _opened(file)
        sending = _Sending(address, headers, timeout_s)
        ignored = _ignored(ignore, heading)
        if heading.redacted:
            note(
                f"recorded without {', '.join(heading.redacted)}: requests are sent without it, and what "
                "executors make of that may differ"
            )
        report = Report()
        try:
            for outcome in _replayed(islice(recorded_of(lines), limit), pace, sending, report):
                if isinstance(outcome, Unsendable):
                    report.refused(outcome)
                else:
                    report.add(outcome, compared(outcome, ignored, tolerance))
        except KeyboardInterrupt:
            note("stopped: this is of the requests that were answered")
        except _NobodyThere as error:
            if report.requests:
                show(report, address.protocol)
            return fail(f"the gateway cannot be reached: {error}", UNREACHABLE)
        finally:
            sending.close()
    except OSError as error:
        return fail(f"{file} cannot be read: {error.strerror or error}")
    except NotARecording as error:
        return fail(f"{file} is no recording: {error}")
    show(report, address.protocol)
    if not report.requests and not report.unsendable:
        return fail(f"{file} has no request that could be sent again")
    if report.differs:
        return 1
    return NOT_ALL_SENT if report.unsendable else 0


def compared(outcome: Outcome, ignored: Ignored, tolerance: float) -> list[Difference]:
    """How the answer is another than the recorded one."""
    recorded = outcome.recorded
    if recorded.answers is not None:
        return _stream_compared(outcome, recorded.answers, ignored, tolerance)
    before = recorded.error or recorded.outcome
    now = outcome.error if outcome.kind == "failed" else outcome.kind
    if recorded.kind != outcome.kind:
        return [Difference("outcome", before, now)]
    if recorded.response is None or outcome.message is None:
        return []  # both failed; whoever says why may say it in other words
    if recorded.kind == "executor_error" and outcome.carried is not Carried.ALL:
        return []  # that it raised, and in words that are the protocol's own
    try:
        return differences(
            recorded.response,
            outcome.message,
            ignored=ignored,
            tolerance=tolerance,
            carried=outcome.carried,
        )
    except DecodeError as error:
        return [Difference("response", "", f"cannot be read: {error}")]


_ENDINGS: Final = {"ok": "ended", "executor_error": "broken", "failed": "broken", "cancelled": "cancelled"}


def _stream_compared(
    outcome: Outcome, answers: Answers, ignored: Ignored, tolerance: float
) -> list[Difference]:
    recorded, found = outcome.recorded, []
    endings = _ENDINGS[recorded.kind], _ENDINGS[outcome.kind]
    if endings[0] != endings[1] and "outcome" not in ignored:
        told = (recorded.error or recorded.outcome, outcome.error or outcome.kind)
        found.append(Difference("outcome", *(
            f"{ending}: {why}" if ending == "broken" else ending
            for ending, why in zip(endings, told, strict=True)
        )))  # fmt: skip
    if answers.left_out and answers.count != outcome.count:
        found.append(Difference("answers.length", str(answers.count), str(outcome.count)))
    before, now = [message for _, message in answers.kept], outcome.answers
    if answers.left_out:
        now = now[: len(before)]
    try:
        if outcome.carried is Carried.DOCUMENTS or not now:
            # What an executor raised is no document; the end of the stream tells of it.
            before = [message for message in before if not parsed(message).header.status.code]
        found += differences_of_streams(
            before, now, ignored=ignored, tolerance=tolerance, carried=outcome.carried
        )
    except DecodeError as error:
        found.append(Difference("answers", "", f"cannot be read: {error}"))
    return found


def _ignored(ignore: tuple[str, ...], heading: Heading) -> Ignored:
    """What the user says, and what is not in the file, which cannot be compared."""
    rules = heading.redacted
    fields = [rule for rule in rules if rule.startswith("parameters")]
    if rules:
        fields += ["header.status.description", "header.status.exception.args"]
    names = (rule.removeprefix("fields.") for rule in rules if not rule.startswith("parameters"))
    return Ignored((*ignore, *fields), names)


def _opened(file: Path) -> tuple[Heading, Iterator[bytes]]:
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        raise NotARecording("it is empty")
    return heading_of(first), lines


def _lines(file: Path) -> Iterator[bytes]:
    """Those that are there now: the gateway may record into this very file what it is sent."""
    with file.open("rb") as opened:
        found = os.fstat(opened.fileno())
        left = found.st_size if stat.S_ISREG(found.st_mode) else sys.maxsize
        while left > 0 and (line := opened.readline(left)):
            left -= len(line)
            yield line


class _Sending:
    """Sends single requests with the Client's transports: one for each generation of documents."""

    def __init__(
        self, address: GatewayAddress, headers: tuple[tuple[str, str], ...], timeout_s: float
    ) -> None:
        self._address = address
        self._headers = headers
        self._timeout_s = timeout_s
        self._handles: dict[Generation | None, TransportHandle] = {}
        self._generation: Generation | None = None  # of the last request that told

    def under_way(self, recorded: Recorded) -> _UnderWay | _StreamUnderWay:
        """What ``send`` begins."""
        if recorded.answers is None:
            return _UnderWay(recorded, time.monotonic())
        is_websocket = self._address.protocol == "websocket"
        return _StreamUnderWay(recorded, time.monotonic(), is_websocket=is_websocket)

    def send(self, recorded: Recorded, put: Callable[[Arrival], None]) -> Exchange | StreamExchange:
        """Raises Malformed for a request that cannot be read, and BadClientInput for one that has no form."""
        request = wire.decode_request(recorded.request)
        loop, transport = self._handle(request).get()
        if recorded.answers is None:
            post = self._post(self._timeout_s)
            exchange = Exchange(loop, partial(transport.exchange, post), put)
            exchange.send(Message(request.request_id, transport.encode(request)))
            exchange.finish()
            return exchange
        # How long a stream takes is its own affair: as long as before, and what any answer may take.
        post = self._post(self._timeout_s + recorded.took_s)
        messages = [Message(each.request_id, transport.encode(each)) for each in self._parts(request)]
        return StreamExchange(loop, partial(_streams, transport, post, messages), put, WINDOW)

    def close(self) -> None:
        for handle in self._handles.values():
            if held := handle.take():
                loop, transport = held
                loop.run(loop.closed(transport))

    def _handle(self, request: Request) -> TransportHandle:
        self._generation = generation_of(request.documents) or self._generation
        handle = self._handles.get(self._generation)
        if handle is None:
            handle = self._handles[self._generation] = TransportHandle(self._address, self._generation)
        return handle

    def _post(self, timeout_s: float) -> Post:
        return Post(on="/", timeout=timeout_s, headers=dict(self._headers), stream=False)

    def _parts(self, request: Request) -> list[Request]:
        """Over gRPC, a call takes one document. The gateway, too, streams one after the other."""
        if self._address.protocol != "grpc":
            return [request]
        try:
            contents = contents_of(request.documents)
        except GatewayError as error:
            raise BadClientInput(str(error)) from error
        if not contents:
            raise BadClientInput("stream_doc takes one document, and the request of the stream has none")
        return [attrs.evolve(request, documents=each) for each in contents]


async def _streams(transport: Transport, post: Post, messages: list[Message], arrive: Arrive) -> None:
    for message in messages:
        await transport.stream(post, message, arrive)


def _replayed(
    requests: Iterator[Recorded], pace: Pace, sending: _Sending, report: Report
) -> Iterator[Outcome | Unsendable]:
    """Send the requests when they are due, and give what comes of each when it has come."""
    inbox: SimpleQueue[tuple[int, float, Arrival]] = SimpleQueue()
    under_way: dict[int, _UnderWay | _StreamUnderWay] = {}
    first: Recorded | None = None
    began_s = time.monotonic()
    index = 0

    def put(number: int, arrival: Arrival) -> None:
        inbox.put((number, time.monotonic(), arrival))

    def wait(timeout_s: float | None) -> Iterator[Outcome | Unsendable]:
        """What arrives within the time, one arrival at most."""
        try:
            number, now_s, arrival = inbox.get(timeout=timeout_s)
        except Empty:
            return
        entry = under_way.get(number)
        if entry is None:
            return  # of a stream that was left
        outcome = entry.outcome(arrival, now_s)
        if outcome is not None:
            del under_way[number]
            yield outcome

    try:
        for recorded in requests:
            answers = recorded.answers
            if recorded.kind == "cancelled" and not (answers is not None and answers.count):
                report.skipped += 1
                continue
            first = first or recorded
            due_s = began_s + pace.due_s(index, recorded, first)
            while (left_s := due_s - time.monotonic()) > 0:
                yield from wait(left_s)
            while len(under_way) >= pace.most_under_way:
                yield from wait(None)
            entry = under_way[index] = sending.under_way(recorded)
            try:
                entry.exchange = sending.send(recorded, partial(put, index))
            except Malformed as error:
                del under_way[index]
                yield Outcome(recorded, "failed", 0.0, error=f"the recorded request is malformed: {error}")
            except BadClientInput as error:
                del under_way[index]
                yield Unsendable(recorded, str(error))
            index += 1
        while under_way:
            yield from wait(None)
    finally:
        for each in under_way.values():
            if each.exchange is not None:
                each.exchange.cancel()


@attrs.define
class _UnderWay:
    """A request that was sent, and the answer, if it has come."""

    recorded: Recorded
    sent_s: float
    exchange: Any = None
    answered_s: float | None = None
    response: Any = None

    def outcome(self, arrival: Arrival, now_s: float) -> Outcome | Unsendable | None:
        """What came of it, when it has ended."""
        if not isinstance(arrival, Ended):
            self.answered_s, self.response = now_s, arrival
            return None
        took_s = (self.answered_s or now_s) - self.sent_s
        error = _checked(arrival.error)
        if (reason := _not_carried(error)) is not None:
            return Unsendable(self.recorded, reason)
        if self.response is not None and error is None:
            try:
                response = self.response.read()
            except Exception as failure:
                error = failure
            else:
                if response.is_part:
                    return Outcome(self.recorded, "failed", took_s, error=STREAMS)
                kind: Kind = "executor_error" if response.failed else "ok"
                return Outcome(self.recorded, kind, took_s, response.message(), carried=_carried(response))
        return Outcome(self.recorded, "failed", took_s, error=f"{type(error).__name__}: {error}")


@attrs.define
class _StreamUnderWay:
    """A stream, and the answers that have come."""

    recorded: Recorded
    sent_s: float
    exchange: Any = None
    count: int = 0
    first_s: float | None = None
    answers: list[bytes] = attrs.field(factory=list)
    is_websocket: bool = False
    failed: bool = False  # an executor says so in an answer
    routed: bool = False  # an answer has routes

    def outcome(self, arrival: Arrival, now_s: float) -> Outcome | Unsendable | None:
        """What came of it, when it has ended, or its client left it at the time."""
        recorded = self.recorded
        assert recorded.answers is not None
        if isinstance(arrival, Ended):
            error = _checked(arrival.error)
            if (reason := _not_carried(error)) is not None and not self.count:
                return Unsendable(recorded, reason)
            if error is not None:
                return self._ended("failed", now_s, f"{type(error).__name__}: {error}")
            return self._ended("executor_error" if self.failed else "ok", now_s)
        if self.first_s is None:
            self.first_s = now_s - self.sent_s
        self.count += 1
        self.exchange.taken(arrival)
        if len(self.answers) < len(recorded.answers.kept) + _MOST_EXTRA:
            try:
                response = arrival.read()
            except Exception as failure:
                self.exchange.cancel()
                return self._ended("failed", now_s, f"{type(failure).__name__}: {failure}")
            if self.is_websocket and not response.is_part:
                self.exchange.cancel()
                self.count -= 1
                if response.failed:  # by an executor that was called as if it did not stream
                    return Unsendable(recorded, _NO_STREAMS)
                return self._ended("failed", now_s, "it is answered with one answer, and not with a stream")
            self.answers.append(response.message())
            self.failed = self.failed or response.failed
            self.routed = self.routed or len(response.routes) > 0
        if recorded.kind == "cancelled" and self.count == recorded.answers.count:
            self.exchange.cancel()
            return self._ended("cancelled", now_s)
        return None

    def _ended(self, kind: Kind, now_s: float, error: str = "") -> Outcome:
        return Outcome(
            self.recorded,
            kind,
            now_s - self.sent_s,
            error=error,
            carried=Carried.ALL if self.routed or not self.answers else Carried.DOCUMENTS,
            answers=tuple(self.answers),
            count=self.count,
            first_s=self.first_s,
        )


def _checked(error: Exception | None) -> Exception | None:
    """Raises _NobodyThere where there was no connection."""
    if error is not None and never_connected(error):
        raise _NobodyThere(str(error))
    return error


def _not_carried(error: Exception | None) -> str | None:
    """Why a request cannot be sent, if that is what failed; None otherwise."""
    if isinstance(error, BadServerFlow) and error.code == "UNIMPLEMENTED":
        return f"the gateway has no method that takes it: {error}"
    return str(error) if isinstance(error, BadClientInput) else None


def _carried(response: Response) -> Carried:
    """Gateways of Jina 3.34 leave routes, and half of the header, out of their JSON (spec 34/http.md)."""
    is_json = response.headers.get("content-type", "").startswith("application/json")
    return Carried.BODY if is_json and not response.routes else Carried.ALL
