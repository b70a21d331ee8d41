"""The process that speaks with Ray, against a Ray that the test plays."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from gatewayd.placement.ray_driver import Driver
from tests.waiting import until_in_loop


class RayError(Exception):
    """Of Ray's own, as all that it raises for actors."""


class Unavailable(RayError):
    """The connection to an actor broke."""


class FakeMethod:
    """Calls of one method; each waits until the test answers."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._answers: asyncio.Queue[Any] = asyncio.Queue()

    def answer(self, value: Any) -> None:
        self._answers.put_nowait(value)

    def remote(self, *arguments: Any) -> Any:
        self.calls.append(arguments)
        return self._answer()

    async def _answer(self) -> Any:
        value = await self._answers.get()
        if isinstance(value, Exception):
            raise value
        return value


class FakeActor:
    """``options`` are those that it was made with."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.start, self.events, self.serves, self.stop = (FakeMethod() for _ in range(4))

    @property
    def node(self) -> Any:
        """The node that it was made for, None for any."""
        return getattr(self.options.get("scheduling_strategy"), "node", None)


class FakeRay:
    """A cluster of the nodes ``n1`` and ``n2``."""

    def __init__(self) -> None:
        self.actors: list[FakeActor] = []
        self.killed: list[FakeActor] = []
        self.exceptions = SimpleNamespace(
            RayError=RayError,
            RayActorError=Unavailable,
            ActorUnavailableError=Unavailable,
            RuntimeEnvSetupError=type("RuntimeEnvSetupError", (RayError,), {}),
            RayTaskError=type("RayTaskError", (RayError,), {}),
        )
        strategies = SimpleNamespace(
            NodeAffinitySchedulingStrategy=lambda node, **more: SimpleNamespace(node=node)
        )
        self.util = SimpleNamespace(scheduling_strategies=strategies)

    def remote(self, _actor: object) -> FakeRay:
        return self

    def options(self, **options: Any) -> Any:
        def made() -> FakeActor:
            self.actors.append(FakeActor(options))
            return self.actors[-1]

        return SimpleNamespace(remote=made)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": each, "Alive": True, "Resources": {"CPU": 4.0}} for each in ("n1", "n2")]

    def kill(self, actor: FakeActor, no_restart: bool) -> None:
        self.killed.append(actor)


class Setup:
    """A driver, on the running loop."""

    def __init__(self) -> None:
        self.ray = FakeRay()
        self.told: list[dict[str, Any]] = []
        self.broken: list[BaseException] = []
        self.driver = Driver(
            self.ray, "tests", lambda event: self.told.append(dict(event)), self.broken.append
        )

    async def up(self, key: str, node: str) -> FakeActor:
        """A replica is placed, and serves."""
        count = len(self.ray.actors)
        self.driver.obey(
            {
                "do": "place",
                "id": key,
                "name": "a/rep-0",
                "spec": "{}",
                "environment": {},
                "options": {"num_cpus": 1.0},
                "demand": {"CPU": 1.0},
                "detached": False,
                "node_affinity": None,
            }
        )
        await until_in_loop(lambda: len(self.ray.actors) > count)
        actor = self.ray.actors[-1]
        actor.start.answer({"address": "10.0.0.1:5", "node": node, "ip": "10.0.0.1", "pid": 5})
        await until_in_loop(lambda: bool(actor.events.calls))
        return actor

    def lost(self) -> list[str]:
        return [event["error"] for event in self.told if event["event"] == "lost"]


def test_the_end_of_a_node_is_told_at_once_and_nothing_is_placed_there_for_a_while() -> None:
    async def scenario() -> None:
        setup = Setup()
        actor = await setup.up("a#1", "n1")
        assert actor.node is None
        actor.events.answer((1, [{"ended": "its Ray node has ended", "lines": [], "node": True}]))
        await until_in_loop(lambda: actor in setup.ray.killed)
        assert setup.lost() == ["its Ray node has ended"]

        assert (await setup.up("a#2", "n2")).node == "n2"

    asyncio.run(scenario())


def test_a_process_that_ends_says_nothing_against_its_node() -> None:
    async def scenario() -> None:
        setup = Setup()
        actor = await setup.up("a#1", "n1")
        actor.events.answer((1, [{"ended": "exit code 1", "lines": ["no memory"]}]))
        await until_in_loop(lambda: actor in setup.ray.killed)
        assert setup.lost() == ["exit code 1\nno memory"]

        assert (await setup.up("a#2", "n1")).node is None

    asyncio.run(scenario())


def test_one_that_the_gateway_cannot_reach_is_lost_if_ray_cannot_either() -> None:
    async def scenario() -> None:
        setup = Setup()
        actor = await setup.up("a#1", "n1")
        setup.driver.obey({"do": "look", "id": "a#1"})
        await until_in_loop(lambda: len(actor.serves.calls) == 1)
        actor.serves.answer({"address": "10.0.0.1:5"})
        setup.driver.obey({"do": "look", "id": "a#1"})
        await until_in_loop(lambda: len(actor.serves.calls) == 2)
        assert setup.lost() == []
        actor.serves.answer(Unavailable("it does not answer"))
        await until_in_loop(lambda: actor in setup.ray.killed)

        assert setup.lost() == ["neither the gateway nor Ray can reach its node"]
        assert (await setup.up("a#2", "n2")).node == "n2"

    asyncio.run(scenario())


def test_the_end_of_the_connection_to_the_cluster_ends_the_driver() -> None:
    async def scenario() -> None:
        setup = Setup()
        actor = await setup.up("a#1", "n1")
        actor.events.answer(ConnectionError("the client has disconnected"))
        await until_in_loop(lambda: bool(setup.broken))

        assert [str(each) for each in setup.broken] == ["the client has disconnected"]

    asyncio.run(scenario())
