"""Executors that demand a secret of their callers."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from gatewayd.executor.callers import Callers
from gatewayd.messages.headers import SECRET_HEADER, is_reserved
from gatewayd.rpc.server.head import RequestHead


@attrs.define
class FakeCall:
    """A call with the metadata of its head; ``failed`` is how it was ended."""

    head: RequestHead
    failed: tuple[str, str] | None = None

    def fail(self, code: str, text: str) -> None:
        self.failed = code, text


def asked(callers: Callers, *metadata: tuple[str, str]) -> FakeCall:
    call: Any = FakeCall(RequestHead("/a/b", metadata))
    callers.identify(call)
    return call  # type: ignore[no-any-return]


@pytest.mark.parametrize("metadata", [(), (("other", "s3cret"),), ((SECRET_HEADER, "s3cre"),)])
def test_calls_without_the_secret_are_refused(metadata: Any) -> None:
    failed = asked(Callers("s3cret"), *metadata).failed

    assert failed is not None
    assert failed[0] == "UNAUTHENTICATED"
    assert "s3cret" not in failed[1]


def test_calls_with_it_are_served_and_a_new_gateway_has_its_own() -> None:
    callers = Callers("s3cret")
    assert asked(callers, ("x", "y"), (SECRET_HEADER, "s3cret")).failed is None
    callers.secret = "another"
    assert asked(callers, (SECRET_HEADER, "s3cret")).failed is not None
    assert asked(callers, (SECRET_HEADER, "another")).failed is None


def test_without_a_secret_everybody_may_call() -> None:
    assert asked(Callers(None)).failed is None


def test_clients_cannot_forward_one() -> None:
    assert is_reserved(SECRET_HEADER)
