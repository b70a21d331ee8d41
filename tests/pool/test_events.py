"""What the log says of the pool's decisions."""

from collections import Counter

import pytest
from twisted.logger import capturedLogs, formatEvent

from gatewayd.pool.events import Decisions


@pytest.mark.parametrize(
    ("why", "text"),
    [("", "rank: queued 1 time(s)"), ("no room", "rank: queued 1 time(s); the last: no room")],
)
def test_a_decision_without_a_reason_ends_with_what_happened(why, text):
    with capturedLogs() as events:
        Decisions("rank", Counter(), lambda: 1.0).request("queued", why)

    assert [formatEvent(event) for event in events] == [text]
