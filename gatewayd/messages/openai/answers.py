"""The documents of an answer, or what kept executors from giving one."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from gatewayd.errors import ExecutorRaised, GatewayError
from gatewayd.messages.openai.forms import Answered, Form
from gatewayd.messages.request import Response
from gatewayd.pb import StatusProto


class NotBound(GatewayError):
    """No executor works on the endpoint that the gateway's settings name."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(f"no executor binds {endpoint} (gateway.openai); the operator has to mend that")


def documents_of(response: Response, form: Form) -> list[Answered]:
    """Raises ExecutorRaised, NotBound, and GatewayError for documents that cannot be read."""
    if response.status:
        raise ExecutorRaised(_said(response.status))
    if response.hint:  # no executor worked on it: the documents are the client's own
        raise NotBound(response.endpoint)
    return form.read(response.documents)


def _said(serialised: bytes) -> str:
    try:
        status = StatusProto.FromString(serialised)
    except DecodeError:
        return "an executor failed"
    return status.description or status.exception.name or "an executor failed"
