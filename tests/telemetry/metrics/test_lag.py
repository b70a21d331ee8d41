"""The lag of the reactor is how late its timers are."""

from twisted.internet.task import Clock

from gatewayd.telemetry.metrics import table
from gatewayd.telemetry.metrics.lag import ReactorLag


def test_a_turn_that_takes_long_is_seen():
    clock = Clock()
    lag = ReactorLag(clock)
    lag.start()
    clock.advance(0.25)
    clock.advance(0.25 + 0.4)
    clock.advance(0.25)
    lag.stop()
    clock.advance(10.0)

    value = lag.seen.value()
    assert sum(value.counts) == 3
    assert value.counts[table.LAG.bounds.index(0.5)] == 1
    assert not clock.getDelayedCalls()
