"""
A Deployment with shards: what the reference's head process does, done in the gateway.

    call ──> uses_before ──> one shard, or all of them ──> uses_after, or the answers merged ──> answer

Which shards are asked depends on the endpoint (spec dispatch.md, Shards and heads). A shard is a set of
replicas. When all are asked, those that fail are left out and counted, unless none is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

import attrs
from google.protobuf.message import DecodeError
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from gatewayd.clocks import Clock
from gatewayd.config.around import around as around
from gatewayd.errors import GatewayError, TimedOut
from gatewayd.messages import wire
from gatewayd.messages.documents import merge
from gatewayd.messages.request import Answer, Call
from gatewayd.pb import Struct
from gatewayd.pool.events import Decisions
from gatewayd.pool.replica_set import ReplicaSet

log = Logger()

T = TypeVar("T")

_RESULTS: Final = "__results__"
# Unless the Flow names the endpoint itself; a dry run is to find out whether all of it works.
_POLLING: Final = {"/search": "all", "/index": "any", "_jina_dry_run_": "all"}
# Fewer bytes are merged sooner than handed to another thread. By feel, as in dispatcher.py.
_OFFLOAD_BYTES: Final = 64 * 1024


class Offload(Protocol):
    """Runs a pure function where it does not hold up the reactor thread."""

    def __call__(self, function: Callable[..., T], /, *args: Any) -> Deferred[T]: ...


class Shards:
    """The shards of one Deployment, and the executors before and after them."""

    def __init__(
        self,
        deployment: str,
        shards: Sequence[ReplicaSet],
        *,
        before: ReplicaSet | None,
        after: ReplicaSet | None,
        polling: Mapping[str, str],
        clock: Clock,
        offload: Offload,
        decisions: Decisions,
    ) -> None:
        self.deployment = deployment
        self._shards = tuple(shards)
        self._before = before
        self._after = after
        self._polling = polling
        self._clock = clock
        self._offload = offload
        self._decisions = decisions
        self._turn = -1

    def serves(self, endpoint: str) -> bool:
        """Whether a shard binds ``endpoint``; True while none has told."""
        return any(shard.serves(endpoint) for shard in self._shards)

    def send(self, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        """As ReplicaSet.send. Also fails with UnreadableDocuments, or Malformed, when merging."""
        return Deferred.fromCoroutine(self._send(call, timeout_s))

    async def _send(self, call: Call, timeout_s: float | None) -> Answer:
        deadline = None if timeout_s is None else self._clock.seconds() + timeout_s
        # None of the executors behind another one sees more of it than its answer.
        request_id = wire.decode_request(call.messages[0]).request_id
        if self._before is not None:
            answer = await self._before.send(call, timeout_s)
            if answer.failed:
                return answer
            call = Call((wire.encode_call(request_id, call.endpoint, answer),), call.endpoint)
        answers = await self._ask(call, self._left_s(deadline))
        if answers[0].failed:
            return answers[0]
        if self._after is not None:
            messages = tuple(wire.encode_call(request_id, call.endpoint, answer) for answer in answers)
            return await self._after.send(Call(messages, call.endpoint, listed=True), self._left_s(deadline))
        if len(answers) == 1:
            return answers[0]
        if sum(len(answer.documents) for answer in answers) > _OFFLOAD_BYTES:
            return await self._offload(merge_answers, answers)
        return merge_answers(answers)

    async def _ask(self, call: Call, timeout_s: float | None) -> list[Answer]:
        """The answers of the shards in their order: good ones, or a single failed one."""
        if self._polling_of(call.endpoint) == "any":
            self._turn = (self._turn + 1) % len(self._shards)
            return [await self._shards[self._turn].send(call, timeout_s)]
        # DeferredList has no opinion on failures; cancelling it cancels every call that is under way.
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

    def _left_s(self, deadline: float | None) -> float | None:
        if deadline is None:
            return None
        left_s = deadline - self._clock.seconds()
        if left_s <= 0:
            raise TimedOut(self.deployment, (), "Deadline Exceeded")
        return left_s


def merge_answers(answers: Sequence[Answer]) -> Answer:
    """
    One answer of several: documents merged as at a join, ``__results__`` united, the rest the first's.

    Raises UnreadableDocuments, or Malformed where parameters are no Struct.
    """
    return attrs.evolve(
        answers[0],
        documents=merge([answer.documents for answer in answers]),
        parameters=_with_all_results([answer.parameters for answer in answers]),
    )


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
