"""The table of errors has every code that a client may see, and the protocols have none of their own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gatewayd import errors
from gatewayd.errors import Codes, codes_for, codes_of
from tests.paths import ROOT

PROTOCOLS = sorted((ROOT / "gatewayd" / "protocols").rglob("*.py"))
STATUSES = range(400, 600)
CLOSE_CODES = range(1000, 1016)


def kinds(base: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from kinds(kind)


@pytest.mark.parametrize("kind", sorted(kinds(errors.GatewayError), key=lambda kind: kind.__name__))
def test_every_error_has_a_row(kind: type[errors.GatewayError]) -> None:
    # Two have the codes of what they stand for.
    others = (errors.CallFailed, errors.WithheldNetworkError, errors.HttpRefusal)
    assert kind in errors.TABLE or kind in others


@pytest.mark.parametrize("kind", sorted(kinds(errors.GatewayError), key=lambda kind: kind.__name__))
def test_the_tree_in_the_docstring_names_every_error(kind: type[errors.GatewayError]) -> None:
    assert f" {kind.__name__}" in (errors.__doc__ or "")


def test_what_a_row_leaves_out_is_that_of_its_base() -> None:
    assert codes_of(errors.Unparsable) == Codes(422, "INVALID_ARGUMENT", 1007)
    assert codes_of(errors.PathNotFound) == Codes(404, "INVALID_ARGUMENT", 1008)
    assert codes_of(errors.ExecutorUnreachable) == Codes(503, "UNAVAILABLE", 1011)


def test_an_error_without_a_row_has_the_codes_of_its_base() -> None:
    class Odd(errors.Overloaded):
        pass

    assert codes_for(Odd("full")) == Codes(503, "RESOURCE_EXHAUSTED", 1013)
    assert codes_for(errors.GatewayError("?")) == Codes(500, "INTERNAL", 1011)


def test_a_failed_call_ends_a_grpc_call_with_the_code_of_the_executor() -> None:
    error = errors.CallFailed("exec_a", ["h:1"], "no", "PERMISSION_DENIED")
    assert codes_for(error) == Codes(500, "PERMISSION_DENIED", 1011)


def test_what_is_not_in_the_tree_is_a_bug() -> None:
    assert codes_for(RuntimeError("secret")) == codes_of(errors.InternalError)


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_protocol_has_an_error_code_of_its_own(path: Path) -> None:
    assert not list(codes_in(path.read_text()))


@pytest.mark.parametrize(
    "source", ["respond(404)", "close(1011, b'')", "abort(grpc.StatusCode.INTERNAL)", "HTTPStatus.NOT_FOUND"]
)
def test_a_code_that_is_spelt_out_is_noticed(source: str) -> None:
    assert list(codes_in(source))


def codes_in(source: str) -> Iterator[str]:
    """HTTP statuses of errors, WebSocket close codes and gRPC codes that a source spells out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and type(node.value) is int:
            if node.value in STATUSES or node.value in CLOSE_CODES:
                yield f"line {node.lineno}: {node.value}"
        elif isinstance(node, ast.Attribute) and node.attr.isupper():
            owner = ast.unparse(node.value).rpartition(".")[2]
            if owner in ("StatusCode", "HTTPStatus", "ConnectionDeny") or "CLOSE_STATUS" in node.attr:
                yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    "make",
    [lambda *call: errors.CallFailed(*call, "UNKNOWN"), lambda *call: errors.ForeignExecutor(*call)],
    ids=["failed", "foreign"],
)
def test_a_call_that_fails_is_told_by_the_name_of_its_deployment(make: Any) -> None:
    error = make("exec_a", ["unix:/run/x/exec_a.0"], "mid boom")
    for text in (str(error), error.summary()):
        assert "exec_a" in text
        assert "/run/x" not in text
    assert "at address(es) {'h:1'}" in str(make("exec_a", ["h:1"], "mid boom"))


def test_what_an_executor_says_of_its_failure_stands_in_a_short_explanation_too() -> None:
    error = errors.CallFailed("exec_a", ["h:1"], "mid boom", "UNKNOWN")
    assert error.summary() == "UNKNOWN from deployment exec_a: mid boom"


def test_an_executor_that_is_called_by_a_socket_is_told_without_its_path() -> None:
    error = errors.ExecutorUnreachable("exec_a", ["unix:/run/x/exec_a.0"], "connection lost")
    for text in (str(error), error.summary()):
        assert "exec_a" in text
        assert "/run/x" not in text
        assert "Head" not in text
    assert "connection lost |Gateway: Communication error with deployment exec_a" in str(error)
