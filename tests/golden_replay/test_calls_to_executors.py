"""What an executor sees of a gateway's calls, as it was recorded: methods, metadata, deadline and body."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from grpc_reflection.v1alpha import reflection

from gatewayd.pb import DataRequestProto, EndpointsProto
from tests.golden_replay.speaking import http_exchange, load
from tests.processes import Gateway, external

pytestmark = pytest.mark.slow

RECORDED = load("gateway_to_executor.json")["calls seen by the executors (deduplicated)"]
SINGLE = "/jina.JinaSingleDataRequestRPC/process_single_data"
CALL = "/jina.JinaRPC/Call"
DISCOVERY = "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery"
SERVED = {"full": (SINGLE, CALL, DISCOVERY), "single_only": (SINGLE,), "call_only": (CALL,)}


class Recorder(grpc.GenericRpcHandler):
    """An executor that answers with the request, and remembers every request that was not a probe."""

    def __init__(self, methods):
        self.seen = []
        answers = {
            SINGLE: grpc.unary_unary_rpc_method_handler(self._single),
            CALL: grpc.stream_stream_rpc_method_handler(self._call),
            DISCOVERY: grpc.unary_unary_rpc_method_handler(self._discovery),
        }
        self._handlers = {method: answers[method] for method in methods}
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((self,))
        names = [method.split("/")[1] for method in methods]
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def service(self, handler_call_details):
        return self._handlers.get(handler_call_details.method)

    def stop(self):
        self._server.stop(None).wait()

    def _note(self, method, message, context):
        metadata = [list(pair) for pair in context.invocation_metadata() if pair[0] != "user-agent"]
        request = DataRequestProto.FromString(message)
        self.seen.append((method, metadata, request, context.time_remaining()))
        return message

    def _single(self, message, context):
        return self._note(SINGLE, message, context)

    def _call(self, messages, context):
        for message in messages:
            yield self._note(CALL, message, context)

    def _discovery(self, _message, _context):
        return EndpointsProto(endpoints=["/x"]).SerializeToString()


@pytest.fixture(scope="module", params=SERVED)
def seen(request):
    """The name of an executor, and what it saw of one request."""
    recorder = Recorder(SERVED[request.param])
    full = request.param == "full"
    entry = external("exec_a", recorder.port, **({"grpc_metadata": {"k": "v"}} if full else {}))
    settings = {"timeout_send": 5000, "compression": "Gzip"} if full else {}
    gateway = Gateway({"gateway": settings, "executors": [entry]}, protocols=("http",))
    try:
        body = {"execEndpoint": "/x", "parameters": {"a": 1}, "targetExecutor": ".*", "data": [{"id": "d0"}]}
        answer, _ = http_exchange(gateway.ports["http"], {"method": "POST", "path": "/post", "json": body})
        assert answer["status"] == 200, answer
    finally:
        gateway.stop()
        recorder.stop()
    return request.param, recorder.seen


def test_the_recorded_method_is_called_once_with_the_recorded_metadata(seen):
    name, calls = seen
    recorded = [one for one in RECORDED if one["exec"] == name and one.get("method") in (SINGLE, CALL)]

    ((method, metadata, _, _),) = calls
    expected = [pair for pair in recorded[0]["metadata"] if pair[0] != "user-agent"]
    assert (method, metadata) == (recorded[0]["method"], expected)


def test_the_executor_sees_the_recorded_body(seen):
    _, ((_, _, request, _),) = seen

    assert MessageToDict(request.parameters) == {"a": 1.0}
    assert request.header.target_executor == ""
    assert [route.executor for route in request.routes] == ["gateway"]


def test_timeout_send_is_the_deadline_of_the_call(seen):
    name, ((_, _, _, left_s),) = seen

    # gRPC's own way to say that there is no deadline is one at the end of all time.
    assert (3.0 < left_s < 5.1) if name == "full" else left_s > 1e9
