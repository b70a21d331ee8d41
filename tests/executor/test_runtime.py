"""A replica's process, spoken to over a real socket with gRPC's own client."""

import json
import signal
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gatewayd.pb import (
    DataRequestListProto,
    DataRequestProto,
    EndpointsProto,
    JinaInfoProto,
    StatusProto,
)
from tests.paths import GOLDEN, ROOT
from tests.processes import Child, runs
from tests.waiting import until

PARENTS = ROOT / "tests" / "parents.py"

pytestmark = pytest.mark.slow

SERVICES = json.loads((GOLDEN / "grpc_services.json").read_text())["executor"]
DIRECT = [
    case
    for case in json.loads((GOLDEN / "grpc" / "manifest.json").read_text())
    if case["topology"] == "the executor process itself"
]
SINGLE = "/jina.JinaSingleDataRequestRPC/process_single_data"


def ask(channel, endpoint, *texts, parameters=None, method=SINGLE, timeout=10):
    request = DataRequestProto()
    request.header.request_id = "r"
    request.header.exec_endpoint = endpoint
    request.parameters.update(parameters or {})
    request.data.docs.SetInParent()
    for number, text in enumerate(texts):
        request.data.docs.docs.add(id=f"d{number}", text=text)
    answer, call = channel.unary_unary(method).with_call(request.SerializeToString(), timeout=timeout)
    return DataRequestProto.FromString(answer), dict(call.trailing_metadata())


@pytest.mark.parametrize("case", DIRECT, ids=lambda case: case["name"])
def test_a_recorded_request_gets_the_recorded_answer(rec, case):
    request = (GOLDEN / case["request_file"]).read_bytes()
    expected = DataRequestProto.FromString((GOLDEN / case["response_file"]).read_bytes())

    answer, call = rec.unary_unary(case["method"]).with_call(
        request, metadata=[tuple(pair) for pair in case["request_metadata"]], timeout=10
    )

    answer = DataRequestProto.FromString(answer)
    if answer.header.status.exception.stacks:
        answer.header.status.exception.stacks[:] = ["<volatile>"]
    assert answer == expected
    assert [list(pair) for pair in call.trailing_metadata()] == case["trailing_metadata"]


def test_the_rich_documents_are_the_recorded_ones(rec):
    answer, _ = ask(rec, "/rich")

    recorded = DataRequestProto.FromString((GOLDEN / "grpc" / "10_resp.bin").read_bytes())
    assert answer.data.docs == recorded.data.docs


def test_reflection_lists_what_a_reference_gateway_accepts(rec):
    stub = reflection_pb2_grpc.ServerReflectionStub(rec)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="jina.JinaRPC"),
        reflection_pb2.ServerReflectionRequest(file_by_filename="docarray.proto"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="nobody.Knows"),
    ]

    services, jina, docarray, unknown = stub.ServerReflectionInfo(iter(asked), timeout=10)

    expected = SERVICES["reflection"]
    assert sorted(one.name for one in services.list_services_response.service) == expected["list_services"]
    assert _files(jina) == expected["file_containing_symbol jina.JinaRPC"]
    assert _files(docarray) == expected["file_by_filename docarray.proto"]
    assert (unknown.error_response.error_code, unknown.error_response.error_message) == (5, "not found")


def _files(response):
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    return [
        FileDescriptorProto.FromString(data).name
        for data in response.file_descriptor_response.file_descriptor_proto
    ]


@pytest.mark.parametrize(("service", "expected"), SERVICES["health"].items())
def test_health_is_known_for_each_service(rec, service, expected):
    request = health_pb2.HealthCheckRequest(service="" if service == "(empty)" else service)
    try:
        status = health_pb2_grpc.HealthStub(rec).Check(request, timeout=10).status
        found = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    except grpc.RpcError as error:
        found = f"{error.code().name} {error.details()!r}"

    assert found == expected


def test_endpoint_discovery_lists_endpoints_in_order_of_definition(rec):
    answer = rec.unary_unary("/jina.JinaDiscoverEndpointsRPC/endpoint_discovery")(b"", timeout=10)

    assert list(EndpointsProto.FromString(answer).endpoints) == SERVICES["endpoint_discovery"]["endpoints"]


def test_endpoint_discovery_has_the_docstrings_of_methods(start_replica):
    with start_replica("Documented", name="documented").channel() as channel:
        told = channel.unary_unary("/jina.JinaDiscoverEndpointsRPC/endpoint_discovery")(b"")

    found = EndpointsProto.FromString(told)
    assert list(found.endpoints) == ["/one", "/two", "/long", "/plain", "_jina_dry_run_"]
    assert dict(found.descriptions) == {
        "/one": "One line.\n\n    Indented more.",
        "/two": "One line.\n\n    Indented more.",
        "/long": "x" * 10_000,
    }


def test_status_has_the_recorded_keys(rec):
    info = JinaInfoProto.FromString(rec.unary_unary("/jina.JinaInfoRPC/_status")(b"", timeout=10))

    assert set(SERVICES["_status keys"]["jina"]) <= set(info.jina)
    assert set(SERVICES["_status keys"]["envs"]) <= set(info.envs)


@pytest.mark.parametrize(
    "method", ["/jina.JinaGatewayDryRunRPC/dry_run", "/grpc.reflection.v1.ServerReflection/Nothing"]
)
def test_a_method_that_executors_do_not_have_is_unimplemented(rec, method):
    with pytest.raises(grpc.RpcError) as caught:
        rec.unary_unary(method)(b"", timeout=10)

    assert (caught.value.code().name, caught.value.details()) == ("UNIMPLEMENTED", "Method not found!")


def test_several_requests_make_one_answer_of_all_documents(rec):
    requests = DataRequestListProto()
    for text in ("1", "2"):
        request = requests.requests.add()
        request.header.request_id, request.header.exec_endpoint = f"r{text}", "/tag"
        request.data.docs.docs.add(id="ab"[int(text) - 1], text=text)

    answer = rec.unary_unary("/jina.JinaDataRequestRPC/process_data")(
        requests.SerializeToString(), timeout=10
    )

    expected = DataRequestProto()
    expected.header.request_id, expected.header.exec_endpoint = "r1", "/tag"
    expected.routes.add(executor="exec_a")
    for name, text in (("a", "1A"), ("b", "2A")):
        expected.data.docs.docs.add(id=name, text=text).tags.update({"A": 2.0})
    assert DataRequestProto.FromString(answer) == expected


def test_a_stream_is_answered_in_order_and_goes_on_after_a_failure(rec):
    def messages():
        for number, endpoint in enumerate(["/tag", "/raise", "/tag"]):
            request = DataRequestProto()
            request.header.request_id, request.header.exec_endpoint = f"r{number}", endpoint
            yield request.SerializeToString()

    answers = [
        DataRequestProto.FromString(data) for data in rec.stream_stream("/jina.JinaRPC/Call")(messages())
    ]

    assert [answer.header.request_id for answer in answers] == ["r0", "r1", "r2"]
    assert [answer.header.status.code for answer in answers] == [
        StatusProto.SUCCESS,
        StatusProto.ERROR,
        StatusProto.SUCCESS,
    ]


def test_a_message_that_is_no_protobuf_is_refused_and_the_process_lives(rec):
    with pytest.raises(grpc.RpcError) as caught:
        rec.unary_unary(SINGLE)(b"\xff\xff\xff", timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    assert ask(rec, "/tag", "x")[0].data.docs.docs[0].text == "xA"


def test_a_plain_method_that_takes_long_does_not_hold_up_health_checks(rec):
    request = DataRequestProto()
    request.header.exec_endpoint = "/sleep"
    request.parameters.update({"t": 1.5})
    sleeping = rec.unary_unary(SINGLE).future(request.SerializeToString(), timeout=10)

    health_pb2_grpc.HealthStub(rec).Check(health_pb2.HealthCheckRequest(), timeout=10)

    assert not sleeping.done()
    assert sleeping.result()


def test_without_a_class_every_request_is_passed_on(start_replica):
    with start_replica(None, name="passer").channel() as channel:
        answer, _ = ask(channel, "/any", "x")

    assert [doc.text for doc in answer.data.docs.docs] == ["x"]
    assert [route.executor for route in answer.routes] == ["passer"]


def test_a_bare_handler_answers_every_endpoint_and_shows_as_default(start_replica):
    with start_replica("Echo", name="echo").channel() as channel:
        answer, _ = ask(channel, "/any", "x")
        discovered = channel.unary_unary("/jina.JinaDiscoverEndpointsRPC/endpoint_discovery")(b"")

    assert [doc.text for doc in answer.data.docs.docs] == ["x", "foo was called"]
    assert list(EndpointsProto.FromString(discovered).endpoints) == ["/default", "_jina_dry_run_"]


def test_sigterm_lets_a_running_call_finish_and_ends_with_0(start_replica):
    replica = start_replica()
    with replica.channel() as channel:
        ask(channel, "/tag")
        request = DataRequestProto()
        request.header.exec_endpoint = "/asleep"
        request.parameters.update({"t": 0.4})
        running = channel.unary_unary(SINGLE).future(request.SerializeToString(), timeout=10)
        # The answer to a later request on the same connection shows that this one has arrived.
        ask(channel, "/tag")

        replica.terminate()

        assert running.result()
    assert replica.wait() == 0


def test_the_end_of_standard_input_stops_the_process(start_replica):
    replica = start_replica()
    replica.report()

    replica.abandon()

    assert replica.wait() == 0


def test_an_exception_named_in_exit_on_exceptions_is_answered_and_ends_the_process(start_replica):
    replica = start_replica(exit_on_exceptions=("ValueError",))
    with replica.channel() as channel:
        answer, trailing = ask(channel, "/raise", "x")

    assert trailing == {"is-error": "true"}
    assert answer.header.status.exception.name == "ValueError"
    assert replica.wait() == 1
    assert "exit_on_exceptions" in replica.output()


@pytest.mark.parametrize(
    ("source", "uses", "expected"),
    [
        (
            "import nowhere_to_be_found",
            "X",
            ["broken.py cannot be imported", "ModuleNotFoundError", "line 1"],
        ),
        ("", "Missing", ["there is no Executor class Missing", "broken.py"]),
        (
            "from gatewayd import Executor\n"
            "class X(Executor):\n"
            "    def __init__(self, **kwargs):\n"
            "        raise OSError('no model here')\n",
            "X",
            ["broken.py: X cannot be created", "no model here", "line 4"],
        ),
        (
            "from gatewayd import Executor\nclass X(Executor):\n    def __init__(self): pass\n",
            "X",
            ["X.__init__ must accept **kwargs", "broken.py"],
        ),
    ],
    ids=["import", "class", "init", "signature"],
)
def test_an_executor_that_cannot_be_loaded_says_where_and_why(
    start_replica, tmp_path, source, uses, expected
):
    (tmp_path / "broken.py").write_text(source)
    replica = start_replica(uses, py_modules=(str(tmp_path / "broken.py"),))

    report = replica.report()

    assert report["event"] == "failed"
    assert [part for part in expected if part not in report["error"]] == []
    assert replica.wait() == 1


# -- the executor's own children ---------------------------------------------------------------------


@pytest.fixture
def start_parent(start_replica, tmp_path):
    """Starts a ``Parent``, and gives the replica and a function that waits for the pid of its child."""

    def start(**uses_with):
        pids = tmp_path / "pids"
        replica = start_replica(
            "Parent", py_modules=(str(PARENTS),), uses_with={"pids": str(pids), **uses_with}
        )
        return replica, lambda: int(
            until(lambda: pids.exists() and pids.read_text().endswith("\n") and pids.read_text())
        )

    return start


@pytest.mark.parametrize("endpoint", ["/end_one", "/end_one_on_the_loop"])
def test_an_executor_that_ends_a_forked_child_serves_on(start_parent, endpoint):
    replica, _ = start_parent()
    with replica.channel() as channel:
        for _ in range(3):
            answer, _ = ask(channel, endpoint, "x")
            assert not answer.header.status.code, answer.header.status.description
            assert answer.parameters["__results__"]["exec_a/rep-0"]["code"] == -signal.SIGTERM

        replica.terminate()
    assert replica.wait() == 0


def test_an_executor_that_is_served_alone_can_end_a_forked_child_too():
    settings = ["--uses", "Parent", "--py-modules", str(PARENTS), "--uses-with", "pids=none"]
    child = Child([sys.executable, "-m", "gatewayd", "executor", *settings])
    try:
        (match,) = child.line(r"serves at ([\d.:]+)")
        with grpc.insecure_channel(match[1]) as channel:
            for endpoint in ("/end_one", "/end_one_on_the_loop"):
                answer, _ = ask(channel, endpoint, "x")
                assert answer.parameters["__results__"]["executor0/rep-0"]["code"] == -signal.SIGTERM
    finally:
        assert child.stop() == 0


@pytest.mark.parametrize("kind", ["fork", "popen", "stubborn"])
def test_what_an_executor_started_ends_with_it_when_its_supervisor_is_gone(start_parent, kind):
    replica, child = start_parent(kind=kind)
    replica.report()
    assert runs(child())

    replica.abandon()

    replica.wait()
    until(lambda: not runs(child()))


def test_what_an_executor_started_while_it_loads_ends_with_it(start_parent):
    replica, child = start_parent(kind="popen", load_forever=True)
    assert runs(child())

    replica.abandon()

    assert replica.wait() == -signal.SIGTERM
    until(lambda: not runs(child()))
