"""The logger of executors: the standard library's, with what those for the reference call besides."""

import copy
import logging
import pickle

import pytest

from gatewayd import Executor
from gatewayd.logging.logger import JinaLogger


def test_an_executor_has_one_with_its_name(caplog):
    logger = Executor(metas={"name": "mine"}).logger

    with caplog.at_level(logging.INFO):
        logger.success("found %d", 3)
        logger.info("told", extra={"about": "a request"})
        logger.debug("not told")

    assert isinstance(logger, JinaLogger)
    found = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert found == [("mine", "SUCCESS", "found 3"), ("mine", "INFO", "told")]
    assert {record.filename for record in caplog.records} == {"test_logger.py"}
    assert caplog.records[1].about == "a request"


@pytest.mark.parametrize("level", ["debug", "info", "success", "warning", "error", "critical", "exception"])
def test_every_method_writes_unless_it_is_quiet(caplog, level):
    for quiet in (False, True):
        with caplog.at_level(logging.DEBUG), JinaLogger("module", quiet=quiet, log_config="x") as logger:
            getattr(logger, level)("said")
        assert len(caplog.records) == (0 if quiet else 1)
        caplog.clear()


def test_it_has_the_rest_of_a_logger():
    logger = JinaLogger("module.part")

    assert (logger.name, logger.logger) == ("module.part", logging.getLogger("module.part"))
    assert logger.getEffectiveLevel() == logging.getLogger().level
    assert logger.handlers == []
    with pytest.raises(AttributeError, match="nope"):
        _ = logger.nope
    for same in (copy.copy(logger), copy.deepcopy(logger), pickle.loads(pickle.dumps(logger))):
        assert same.logger is logger.logger
