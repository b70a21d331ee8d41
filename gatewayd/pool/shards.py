"""
A Deployment with shards: what the reference's head process does, done in the gateway.

    call ──> uses_before ──> one shard, or all of them ──> uses_after, or the answers merged ──> answer

Which shards are called depends on the endpoint (spec dispatch.md, Shards and heads). A shard is a set of
replicas. When all are called, those that fail are left out and counted, as long as one answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Final

import attrs
from google.protobuf.message import DecodeError
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from gatewayd.clocks import Clock
from gatewayd.deadlines import deadline_after, left_s
from gatewayd.errors import BadRequest, DeadlineExceeded, GatewayError
from gatewayd.messages import wire
from gatewayd.messages.discovery import DRY_RUN, Told, of_chain, united
from gatewayd.messages.formats import DocumentFormat
from gatewayd.messages.headers import Headers, unique
from gatewayd.messages.request import Answer, Call
from gatewayd.messages.rope import Content
from gatewayd.offload import Offload, here_or_offloaded
from gatewayd.pb import Struct
from gatewayd.pool.events import Decisions
from gatewayd.pool.sender import Sender

_RESULTS: Final = "__results__"
# Where the Flow does not name the endpoint; a dry run is meant to find out whether every shard works.
_POLLING: Final = {"/search": "all", "/index": "any", DRY_RUN: "all"}


class Shards:
    """The shards of one Deployment, and the executors before and after them."""

    def __init__(
        self,
        deployment: str,
        shards: Sequence[Sender],
        *,
        before: Sender | None,
        after: Sender | None,
        polling: Mapping[str, str],
        clock: Clock,
        offload: Offload,
        decisions: Decisions,
        format: Callable[[], DocumentFormat],
    ) -> None:
        self.deployment = deployment
        self._shards = tuple(shards)
        self._before = before
        self._after = after
        self._polling = polling
        self._clock = clock
        self._offload = offload
        self._decisions = decisions
        self._format = format
        self._turn = -1
        self._all = (*shards, *(sender for sender in (before, after) if sender is not None))
        self._said: tuple[Told | None, ...] = (None,) * len(self._all)  # by each, when _told was made
        self._told: Told | None = None

    def serves(self, endpoint: str) -> bool:
        """Whether an executor here binds ``endpoint``, also one before or after; True while not known."""
        return any(sender.serves(endpoint) for sender in self._all)

    @property
    def told(self) -> Told | None:
        """What the executors here tell of themselves; None while none of them has."""
        told = tuple(sender.told for sender in self._all)
        if any(new is not old for new, old in zip(told, self._said, strict=True)):
            self._said = told
            shards = united(each.told for each in self._shards if each.told is not None)
            heads = [None if head is None else head.told for head in (self._before, self._after)]
            self._told = of_chain((heads[0], shards, heads[1]))
        return self._told

    @property
    def heard(self) -> bool:
        """Whether some executor here has said what it binds, even one that is not called."""
        return any(sender.heard for sender in self._all)

    @property
    def undecided(self) -> bool:
        """Whether no shard has said what it binds, and one soon may."""
        return not self.heard and any(shard.undecided for shard in self._shards)

    def streams(self, endpoint: str) -> bool:
        """Whether ``endpoint`` streams on the shards; False while that is not known."""
        return any(shard.streams(endpoint) for shard in self._shards)

    def for_stream(self, endpoint: str) -> Sender:
        """
        The shard that a stream comes from: each in turn. Raises BadRequest where that would not be the answer
        of the Deployment.
        """
        if self._before is not None or self._after is not None:
            raise BadRequest(
                f"{endpoint} of {self.deployment} streams, and streams do not pass through uses_before and "
                "uses_after: make deployments of their own of them in the Flow file"
            )
        if self._polling_of(endpoint) != "any":
            raise BadRequest(
                f"{endpoint} of {self.deployment} streams, and a stream comes from one shard: set its "
                f"polling to ANY in the Flow file (polling: {{{endpoint}: ANY}})"
            )
        self._turn = (self._turn + 1) % len(self._shards)
        return self._shards[self._turn]

    def send(self, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        """As Sender.send. Also fails with UnreadableDocuments, or Malformed, when merging."""
        return Deferred.fromCoroutine(self._send(call, timeout_s))

    async def _send(self, call: Call, timeout_s: float | None) -> Answer:
        deadline_s = deadline_after(timeout_s, self._clock.seconds())
        # Executors after the first get the answer of the one before, with the request's id and endpoint.
        request_id = wire.request_id_of(call.messages[0])
        before: Headers = ()
        if self._before is not None:
            answer = await self._before.send(call, timeout_s)
            if answer.failed:
                return answer
            before = answer.headers
            message = wire.encode_call(request_id, call.endpoint, answer)
            call = Call((message,), call.endpoint, False, call.headers, call.visit)
        answers = await self._call_shards(call, self._left_s(deadline_s))
        if answers[0].failed:
            return _with_headers(answers[0], before)
        if self._after is not None:
            messages = tuple(wire.encode_call(request_id, call.endpoint, answer) for answer in answers)
            listed = Call(messages, call.endpoint, True, call.headers, call.visit)
            answer = await self._after.send(listed, self._left_s(deadline_s))
            return _with_headers(answer, before, *(each.headers for each in answers))
        if len(answers) == 1:
            return _with_headers(answers[0], before)
        size_bytes = sum(len(answer.documents) for answer in answers)
        merged = await here_or_offloaded(
            self._offload, size_bytes, merge_answers, answers, self._format(), call.messages
        )
        return _with_headers(merged, before)

    async def _call_shards(self, call: Call, timeout_s: float | None) -> list[Answer]:
        """The good answers in the order of the shards, or else a single failed one."""
        if self._polling_of(call.endpoint) == "any":
            self._turn = (self._turn + 1) % len(self._shards)
            return [await self._shards[self._turn].send(call, timeout_s)]
        # DeferredList goes on after failures; cancelling it cancels every call in flight.
        outcomes = await DeferredList(
            [shard.send(call, timeout_s) for shard in self._shards], consumeErrors=True
        )
        good: list[Answer] = []
        raised: list[Answer] = []
        errors: list[Failure] = []
        for _, outcome in outcomes:
            if isinstance(outcome, Failure):
                errors.append(outcome)
            elif outcome.failed:
                raised.append(outcome)
            else:
                good.append(outcome)
        for error in errors:
            if not error.check(GatewayError):
                error.raiseException()
        if good and len(good) < len(self._shards):
            why = errors[0].getErrorMessage() if errors else "an executor raised"
            self._decisions.request("partial failure", why)
        if good:
            return good
        if raised:
            return raised[:1]
        return errors[0].raiseException()

    def _polling_of(self, endpoint: str) -> str:
        polling = self._polling
        return polling.get(endpoint) or _POLLING.get(endpoint) or polling.get("*", "any")

    def _left_s(self, deadline_s: float | None) -> float | None:
        rest_s = left_s(deadline_s, self._clock.seconds())
        if rest_s is not None and rest_s <= 0:
            raise DeadlineExceeded(self.deployment, (), "Deadline Exceeded")
        return rest_s


def merge_answers(answers: Sequence[Answer], documents: DocumentFormat, sent: Sequence[Content]) -> Answer:
    """
    Make one answer: documents merged as at a join, ``__results__`` and headers united, the rest of the first.

    ``sent`` are the messages that every shard was sent. Raises UnreadableDocuments, or Malformed where
    parameters are not a Struct.
    """
    # Serialised messages behind each other are one message, with the documents of all.
    asked: Content = b""
    if documents.in_graph_order:
        asked = b"".join([bytes(wire.decode_answer(message).documents) for message in sent])
    return attrs.evolve(
        answers[0],
        documents=documents.merge([answer.documents for answer in answers], [asked] * len(answers)),
        parameters=_with_all_results([answer.parameters for answer in answers]),
        headers=unique(header for answer in answers for header in answer.headers),
    )


def _with_headers(answer: Answer, *earlier: Headers) -> Answer:
    """``answer`` with the headers of those before it in front of its own."""
    if not any(earlier):
        return answer
    return attrs.evolve(answer, headers=unique(chain(*earlier, answer.headers)))


def _with_all_results(parameters: Sequence[bytes]) -> bytes:
    key = _RESULTS.encode()
    if not any(key in raw for raw in parameters[1:]):
        return parameters[0]
    try:
        structs = [Struct.FromString(raw) for raw in parameters]
    except DecodeError as error:
        raise wire.Malformed(f"an executor's parameters are no Struct: {error}") from error
    whole = structs[0]
    for other in structs[1:]:
        if _RESULTS in other.fields:
            results = whole.fields[_RESULTS].struct_value
            for name, value in other.fields[_RESULTS].struct_value.fields.items():
                results.fields[name].CopyFrom(value)
    return whole.SerializeToString()
