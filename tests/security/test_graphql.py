"""GraphQL queries, at the limits and beyond, that take far more time or memory than their text."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from graphql import parse

from tests.security.conftest import MB, Bystander, Victim
from tests.security.test_documents import post

pytestmark = pytest.mark.security

TOKENS = 4980  # and some around them
UNKNOWN = "".join(f"q{n}:1 " for n in range(TOKENS // 3))


def fragments(count: int) -> str:
    return "".join(f" fragment f{n} on StrawberryDocument {{ id }}" for n in range(count))


def nested(depth: int) -> str:
    return "id" if not depth else f"chunks {{ {nested(depth - 1)} }} chunks {{ {nested(depth - 1)} }}"


# What costs graphql-core the most for its text: where it is not refused, it is as large as the limits allow.
HOSTILE = {
    "tokens": "{ docs(parameters: [" + "1 " * 130_000 + "]) { id } }",
    "comments": "#\n" * 130_000 + "{ docs { id } }",
    "values": "{ docs(parameters: [" + "1 " * TOKENS + "]) { id } }",
    "objects": "{ docs(parameters: [" + "{a:1} " * (TOKENS // 5) + "]) { id } }",
    "documents": "{ docs(data: [" + "{} " * (TOKENS // 2) + "]) { id } }",
    "directives": "{ docs { id " + "@a " * (TOKENS // 2) + "} }",
    "variables": "query(" + "$a: Int " * (TOKENS // 4) + ") { docs { id } }",
    "operations": "".join(f"query a{n} {{ docs {{ id }} }}" for n in range(TOKENS // 8)),
    "fragments": "{ docs { id } }" + fragments(700),
    "spreads": "{ docs { " + " ".join(f"...f{n}" for n in range(99)) + "} }" + fragments(99),
    "inline fragments": "{ docs { " + "... { id } " * 900 + "} }",
    "aliases": "{ docs { " + " ".join(f"a{n}: id" for n in range(900)) + "} }",
    "the same field": "{ docs { " + "a: id " * 900 + "} }",
    "the same objects": "{ docs { " + "chunks { id } " * 450 + "} }",
    "two of each": "{ docs { " + nested(8) + " } }",
    "unknown fields": "{ docs(data: [{ " + UNKNOWN + "}]) { id } }",
    "unknown arguments": "{ docs(" + UNKNOWN + ") { id } }",
    "long names": "{ docs(data: [{ " + " ".join(f"{'q' * 4000}{n}: 1" for n in range(50)) + " }]) { id } }",
    "a long text": '{ docs(targetExecutor: "' + "\\u0041" * 40_000 + '") { id } }',
    "depth": "{ docs " + "{ chunks " * 2000,
}


def ask(victim: Victim, query: str) -> bytes:
    _, answer = post(victim.ports["http"], "/graphql", json.dumps({"query": query}).encode())
    return answer


def parsing_s() -> float:
    """What graphql-core takes on this machine to parse an ordinary query of as many tokens."""
    query = "{ docs { " + "a: id " * (TOKENS // 3) + "} }"
    took_s = []
    for _ in range(5):
        before = time.process_time()
        parse(query)
        took_s.append(time.process_time() - before)
    return min(took_s)


def test_no_query_takes_far_more_than_parsing_its_tokens(attack: Callable[..., Victim]) -> None:
    victim = attack(expose_graphql_endpoint=True)
    ask(victim, "{ docs { id } }")
    took_s = {}
    for name, query in HOSTILE.items():
        before = victim.cpu_s()
        for number in range(5):
            assert b'"data"' in ask(victim, query + " " * number)
        took_s[name] = (victim.cpu_s() - before) / 5
    limit_s = 12 * parsing_s()
    assert {name: seconds for name, seconds in took_s.items() if seconds > limit_s} == {}, limit_s


def test_many_hostile_queries_delay_no_other_client(attack: Callable[..., Victim]) -> None:
    victim = attack(expose_graphql_endpoint=True)
    with Bystander(victim) as bystander:
        for _ in range(3):
            for query in HOSTILE.values():
                ask(victim, query)
    assert bystander.statuses == {200}
    assert bystander.percentile_s(0.99) < 0.5
    assert bystander.most_bytes < 100 * MB


def repeated(endpoint: str, field: str, around: str = "") -> str:
    fields = " ".join(f"a{n}: {field}" for n in range(900))
    return f'{{ docs(execEndpoint: "{endpoint}") {{ {around} {{ {fields} }} }} }}'


@pytest.mark.parametrize(
    "query",
    [
        repeated("/documents", "id", "chunks"),
        repeated("/large", "text", "..."),
        repeated("/values", "tags", "..."),
    ],
    ids=["documents", "text", "tags"],
)
def test_an_answer_a_thousand_times_as_large_as_what_executors_answered(
    attack: Callable[..., Victim], query: str
) -> None:
    victim = attack(expose_graphql_endpoint=True)
    with Bystander(victim, 0.005) as bystander:
        assert b"the answer has more than" in ask(victim, query)
    assert bystander.statuses == {200}
    assert bystander.most_bytes < 300 * MB
