"""Which reactor the processes of a gateway run."""

from __future__ import annotations

import sys

from twisted.internet.main import installReactor


def install_reactor() -> None:
    """
    Ours, unless there is one: with twistd's --reactor, that is the one which was asked for.

    Where a system has no epoll, the choice is Twisted's.
    """
    if "twisted.internet.reactor" in sys.modules:
        return
    try:
        from gatewayd.service.epoll import GatewayReactor
    except ImportError:
        return
    installReactor(GatewayReactor())
