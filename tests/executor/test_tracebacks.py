"""Tracebacks without the frames of gatewayd."""

import gatewayd.executor.handling as own
from gatewayd.executor.first import FirstDocuments
from gatewayd.executor.tracebacks import user_traceback


def fail(kind, cause=None):
    raise kind from cause


def failure(call):
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_users_frames_stay_with_their_source():
    lines = user_traceback(failure(lambda: fail(ValueError("mine"))))

    assert any("in fail" in line and "raise kind from cause" in line for line in lines)
    assert lines[-1] == "ValueError: mine\n"


def test_the_frames_of_gatewayd_are_left_out_of_causes_and_groups_too():
    inner = failure(lambda: own._gathered(FirstDocuments(), [5]))
    error = failure(lambda: fail(ExceptionGroup("several", [inner]), inner))

    text = "".join(user_traceback(error))

    assert text.count("A generator must yield") == 2
    assert "handling.py" not in text
    assert "in fail" in text


def test_an_exception_that_is_its_own_cause_ends():
    error = ValueError("round")
    error.__cause__ = error.__context__ = failure(lambda: fail(KeyError("and"), error))

    assert "round" in "".join(user_traceback(error))
