"""Which namespaces an operator may change the level of."""

import logging

import pytest
from twisted.internet.defer import Deferred

from gatewayd.errors import BadRequest
from gatewayd.service.log_levels import log_level_action


def changed(namespace, configured=()):
    """What comes of it, and what was set."""
    found = []
    action = log_level_action(lambda *what: found.append(what), lambda: {"encoder", "ranker"}, configured)
    answer = action.run({"level": "debug", "namespace": namespace})
    assert isinstance(answer, Deferred)
    return answer, found


@pytest.mark.parametrize(
    "namespace",
    [
        "",
        "executor",
        "executor.encoder",
        "gatewayd",
        "gatewayd.pool",
        "gatewayd.pool.dns",
        "gatewayd.access",
        "twisted",
        "twisted.web.http",
        "asyncio",
        "an.own.logger",
    ],
)
def test_what_may_be_in_the_log_has_a_level(namespace):
    logging.getLogger("an.own.logger")
    answer, found = changed(namespace)

    assert answer.result == f"{namespace or 'all'}: debug"
    assert found == [("debug", namespace)]


@pytest.mark.parametrize(
    ("namespace", "reason"),
    [
        ("executor.nosuch", r"no executor 'nosuch' .* there are: encoder, ranker"),
        ("gatewayd.pol", r"nothing is called 'gatewayd\.pol'"),
        ("gatewayd.pool.", "nothing is called"),
        ("gatewayd...", "nothing is called"),
        ("gatewayd./etc", "nothing is called"),
        ("twsted", "nothing is called"),
        (".", "nothing is called"),
        ("no such\n", "nothing is called"),
    ],
)
def test_what_nothing_is_called_is_refused(namespace, reason):
    answer, found = changed(namespace)

    errors = []
    answer.addErrback(lambda failure: errors.append(failure.value))
    with pytest.raises(BadRequest, match=reason):
        raise errors[0]
    assert found == []


def test_what_the_flow_file_names_is_known():
    assert changed("of a worker", {"of a worker": "info"})[1] == [("debug", "of a worker")]
