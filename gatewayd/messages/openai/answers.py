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


class UnfitAnswer(GatewayError):
    """What ``executor`` answered cannot be told in OpenAI's form; ``why`` names the field."""

    def __init__(self, executor: str, endpoint: str, why: str) -> None:
        super().__init__(f"the answer of {executor} at {endpoint} has no form in OpenAI's API: {why}")


def documents_of(response: Response, form: Form) -> list[Answered]:
    """Raises ExecutorRaised, NotBound, and UnfitAnswer for documents that cannot be read or told."""
    if response.status:
        raise ExecutorRaised(_said(response.status))
    if response.hint:  # no executor worked on it: the documents are the client's own
        raise NotBound(response.endpoint)
    try:
        found = form.read(response.documents)
        for each in found:
            each.check_facts()
    except GatewayError as error:
        raise UnfitAnswer(answered_by(response), response.endpoint, str(error)) from error
    return found


def answered_by(response: Response) -> str:
    """The executor that has answered last, by its name."""
    # Those without an end were passed over, or nobody waits for them.
    names = [each.executor for each in response.routes[1:] if each.end_time is not None]
    return names[-1] if names else "an executor"


def _said(serialised: bytes) -> str:
    try:
        status = StatusProto.FromString(serialised)
    except DecodeError:
        return "an executor failed"
    return status.description or status.exception.name or "an executor failed"
