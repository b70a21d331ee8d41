"""
Who may call an executor that listens on a network: whoever knows the secret of the gateway's start.

Executors of one machine listen at sockets that only their user can reach. On other machines they listen at a
port; there every call, health and reflection included, has to carry the secret as gRPC metadata.
"""

from __future__ import annotations

import hmac

from gatewayd.messages.headers import SECRET_HEADER
from gatewayd.rpc.server.call import ServerCall

_REFUSED = f"this executor answers only the gateway that it was started for ({SECRET_HEADER})"


class Callers:
    """
    Asks each call for ``secret``, if that is not None.

    Another thread may replace it: a gateway that takes over an executor that runs has a secret of its own.
    """

    def __init__(self, secret: str | None) -> None:
        self.secret = secret

    def identify(self, call: ServerCall) -> None:
        """Fail a call without it."""
        secret = self.secret
        if secret is None:
            return
        wanted = secret.encode()
        for name, value in call.head.metadata:
            if name == SECRET_HEADER:
                shown = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
                if hmac.compare_digest(shown, wanted):
                    return
        call.fail("UNAUTHENTICATED", _REFUSED)
