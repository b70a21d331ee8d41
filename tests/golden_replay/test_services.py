"""The recorded reflection, health and other services of a gateway's gRPC port."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gatewayd.pb import JinaInfoProto, StatusProto
from tests.golden_replay.departures import MORE_STATUS_KEYS
from tests.golden_replay.speaking import TIMEOUT_S, load

pytestmark = pytest.mark.slow

RECORDED = load("grpc_services.json")["gateway"]
REFLECTION, HEALTH = RECORDED["reflection"], RECORDED["health"]


@pytest.fixture(scope="module")
def channel(gateway_for):
    with grpc.insecure_channel(f"127.0.0.1:{gateway_for('one').ports['grpc']}") as channel:
        yield channel


def reflect(channel, **asked):
    request = reflection_pb2.ServerReflectionRequest(**asked)
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT_S)
    return answer


def test_reflection_lists_the_recorded_services(channel):
    listed = reflect(channel, list_services="").list_services_response.service

    assert sorted(service.name for service in listed) == REFLECTION["list_services"]


@pytest.mark.parametrize(
    "asked", [{"file_containing_symbol": "jina.JinaRPC"}, {"file_by_filename": "docarray.proto"}], ids=str
)
def test_reflection_gives_the_recorded_number_of_files(channel, asked):
    files = reflect(channel, **asked).file_descriptor_response.file_descriptor_proto

    ((kind, name),) = asked.items()
    assert len(files) == len(REFLECTION[f"{kind} {name}"])


def test_reflection_does_not_know_other_symbols(channel):
    error = reflect(channel, file_containing_symbol="nobody.Knows").error_response

    assert error.error_code == REFLECTION["unknown symbol"]["error_code"]
    assert REFLECTION["unknown symbol"]["error_message"] in error.error_message.lower()


@pytest.mark.parametrize("service", HEALTH)
def test_health_answers_as_recorded(channel, service):
    asked = health_pb2.HealthCheckRequest(service="" if service == "(empty)" else service)
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=TIMEOUT_S)
        found = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    except grpc.RpcError as error:
        found = f"{error.code().name} {error.details()!r}"

    assert found == HEALTH[service]


def test_status_has_the_recorded_keys(channel):
    answer = JinaInfoProto.FromString(
        channel.unary_unary("/jina.JinaInfoRPC/_status")(b"", timeout=TIMEOUT_S)
    )

    found = {"jina": sorted(answer.jina.keys()), "envs": sorted(answer.envs.keys())}
    assert {
        key: [one for one in keys if one not in MORE_STATUS_KEYS] for key, keys in found.items()
    } == RECORDED["_status keys"]


def test_a_dry_run_is_a_status_without_bytes(channel):
    answer = channel.unary_unary("/jina.JinaGatewayDryRunRPC/dry_run")(b"", timeout=TIMEOUT_S)

    assert answer.hex() == RECORDED["dry_run"]["hex"]
    assert StatusProto.FromString(answer).code == RECORDED["dry_run"]["code"]


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("endpoint_discovery", "/jina.JinaDiscoverEndpointsRPC/endpoint_discovery"),
        ("process_data", "/jina.JinaDataRequestRPC/process_data"),
    ],
)
def test_what_only_executors_serve_is_unimplemented(channel, name, method):
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary(method)(b"", timeout=TIMEOUT_S)

    assert [failed.value.code().name, failed.value.details()] == RECORDED[name]
