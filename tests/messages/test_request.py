"""Values by hand are the same as those of ``attrs.evolve``."""

from __future__ import annotations

import attrs

from gatewayd.messages.caller import Caller
from gatewayd.messages.journey import Journey
from gatewayd.messages.request import Request

ALL = Request("r", "/a", "t", b"p", b"d", (b"r",), 1.5, (("x-a", "1"),), Caller("c"))


def test_a_request_that_is_watched_is_the_same_otherwise() -> None:
    journey = Journey()
    found = ALL.watched((("x-b", "2"),), journey)

    assert {field.name for field in attrs.fields(Request) if getattr(ALL, field.name) == field.default} == {
        "journey"
    }
    assert found == attrs.evolve(ALL, headers=(("x-b", "2"),), journey=journey)
    assert found.journey is journey
