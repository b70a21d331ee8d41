"""gatewayd: the front door of a Flow of executors."""

__version__ = "0.1.0"
