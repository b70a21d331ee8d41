"""A client that asks as fast as it can, under a rate: it is refused, and the others are served."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from typing import Any

import pytest

from tests.security.conftest import MB, Bystander

pytestmark = pytest.mark.security

FLOOD_S = 4.0
BODY = b'{"data": [{"text": "hello"}], "execEndpoint": "/"}'


def flood(port: int, source: str, until_s: float, statuses: Counter[int]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10, source_address=(source, 0))
    while time.monotonic() < until_s:
        connection.request("POST", "/post", BODY, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        statuses[answer.status] += 1
    connection.close()


def test_a_flood_of_requests_is_held_to_its_rate(attack: Any) -> None:
    victim = attack(rates=[{"requests": 100, "by": "address"}])
    statuses: Counter[int] = Counter()
    until_s = time.monotonic() + FLOOD_S
    flooders = [
        threading.Thread(target=flood, args=(victim.ports["http"], "127.0.0.2", until_s, statuses))
        for _ in range(4)
    ]

    with Bystander(victim) as bystander:
        for flooder in flooders:
            flooder.start()
        for flooder in flooders:
            flooder.join()

    assert statuses.keys() == {200, 429}
    # A burst, and what came back since.
    assert statuses[200] <= 100 * (FLOOD_S + 2)
    assert statuses[429] > statuses[200]
    assert bystander.statuses == {200}
    assert bystander.percentile_s(0.99) < 1.0
    assert bystander.most_bytes < 30 * MB
