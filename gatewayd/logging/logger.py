"""The logger of executors, where the reference has it."""

from gatewayd.executor.logger import JinaLogger

__all__ = ["JinaLogger"]
