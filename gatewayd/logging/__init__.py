"""The path of an import in executors for the reference: ``gatewayd.logging.logger``."""
