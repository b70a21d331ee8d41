"""A pool answered by hand, and values that many tests of the engine share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gatewayd.config import DeploymentConfig
from gatewayd.dispatch.dispatcher import Dispatcher
from gatewayd.dispatch.topology import Topology
from gatewayd.messages.discovery import Endpoints, Told, of_flow
from gatewayd.messages.formats import FIRST, DocumentFormat
from gatewayd.messages.generations import Generation
from gatewayd.messages.request import Answer, Call, Request
from gatewayd.messages.wire import decode_answer
from gatewayd.pb import DataContentProto, StatusProto, Struct


@attrs.frozen(eq=False)
class Sent:
    """One call that a FakePool was asked to make."""

    deployment: str
    call: Call
    timeout_s: float | None
    waiting: Deferred[Answer]


class FakePool:
    """Makes no call: the test answers each of them, in the order it likes."""

    def __init__(
        self, bound: Mapping[str, tuple[str, ...]] | None = None, format: DocumentFormat = FIRST
    ) -> None:
        self.format = format
        self.sent: list[Sent] = []
        self.cancelled: list[str] = []
        self.undecided: frozenset[str] = frozenset()
        self._deciding: dict[Deferred[None], frozenset[str]] = {}
        self._open: dict[str, list[Sent]] = {}
        self._bound = bound or {}
        self.generation: Generation | None = (
            None if format is FIRST else format.generation
        )  # the pool's first is a guess

    def send(self, deployment: str, call: Call, timeout_s: float | None) -> Deferred[Answer]:
        def cancelled(_: Deferred[Answer]) -> None:
            self.cancelled.append(deployment)
            self._open[deployment].remove(sent)

        sent = Sent(deployment, call, timeout_s, Deferred(cancelled))
        self.sent.append(sent)
        self._open.setdefault(deployment, []).append(sent)
        return sent.waiting

    def serves(self, deployment: str, endpoint: str) -> bool:
        return deployment not in self._bound or endpoint in self._bound[deployment]

    def streams(self, deployment: str, endpoint: str) -> bool:
        return False

    def decided(self, names: frozenset[str]) -> Deferred[None]:
        deciding: Deferred[None] = Deferred(self._deciding.pop)
        self._deciding[deciding] = names
        return deciding

    def decide(self) -> None:
        """All Deployments have told what they bind."""
        self.undecided = frozenset()
        deciding, self._deciding = self._deciding, {}
        for each in deciding:
            each.callback(None)

    @property
    def waited_for(self) -> list[frozenset[str]]:
        return list(self._deciding.values())

    def endpoints(self) -> Endpoints:
        return of_flow({name: Told(dict.fromkeys(bound, "")) for name, bound in self._bound.items()})

    @property
    def names(self) -> list[str]:
        """The Deployments called so far, in order."""
        return [each.deployment for each in self.sent]

    @property
    def waiting(self) -> list[str]:
        """The Deployments that owe an answer."""
        return [name for name, calls in self._open.items() for _ in calls]

    def take(self, deployment: str) -> Sent:
        return self._open[deployment].pop(0)

    def answer(self, deployment: str, answer: Answer | None = None) -> None:
        """Answer the oldest open call to ``deployment``, by default with what it was sent."""
        sent = self.take(deployment)
        sent.waiting.callback(answer or decode_answer(sent.call.messages[0]))

    def fail(self, deployment: str, error: Exception) -> None:
        self.take(deployment).waiting.errback(Failure(error))


class ByHand:
    """An ``offload`` whose work is done when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def __call__(self, function: Callable[..., Any], /, *args: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.waiting.append((lambda: function(*args), done))
        return done

    def run(self) -> None:
        function, done = self.waiting.pop(0)
        done.callback(function())


def build(
    pool: Any, *deployments: DeploymentConfig, clock: Clock | None = None, **options: Any
) -> Dispatcher:
    clock = clock or Clock()
    options.setdefault("offload", execute)
    return Dispatcher(
        Topology.from_deployments(deployments), pool, clock, wall_clock=clock.seconds, **options
    )


def deployment(name: str, *needs: str, **options: Any) -> DeploymentConfig:
    return DeploymentConfig(name, needs=needs or ("gateway",), **options)


def documents(*ids: str) -> bytes:
    content = DataContentProto()
    content.docs.SetInParent()
    for each in ids:
        content.docs.docs.add(id=each)
    return content.SerializeToString()


def ids(content: bytes) -> list[str]:
    return [each.id for each in DataContentProto.FromString(content).docs.docs]


def struct(**fields: Any) -> bytes:
    made = Struct()
    made.update(fields)
    return made.SerializeToString()


def failed(content: bytes = b"", name: str = "ValueError") -> Answer:
    status = StatusProto(code=StatusProto.ERROR, description=f"{name}('boom')")
    status.exception.name = name
    return Answer(content, status=status.SerializeToString(), failed=True)


REQUEST = Request("r1", "/x", documents=documents("d0", "d1"))
CHAIN = (deployment("a"), deployment("b", "a"), deployment("c", "b"))
DIAMOND = (deployment("a"), deployment("b"), deployment("c", "a", "b"))
