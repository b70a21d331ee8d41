"""The real Jina client, sync and asyncio, posts to our gateway over every protocol."""

import pytest

from tests.interop.conftest import EXECUTORS
from tests.paths import ROOT
from tests.processes import PROTOCOLS, external, free_ports

pytestmark = pytest.mark.interop

TELLING = ROOT / "tests" / "equivalence" / "header_executors.py"
REC = {"name": "exec_a", "uses": "Rec", "py_modules": [str(EXECUTORS)]}
FLOW = {"executors": [REC, {"name": "exec_b", "uses": "Rec", "py_modules": [str(EXECUTORS)]}]}
DOWN = {"gateway": {"timeout_send": 10_000}, "executors": [external("exec_x", free_ports(1)[0])]}


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["sync", "asyncio"])
def ask(request, client, gateway, protocol):
    """Posts to a chain of two executors; further arguments go to the client."""

    def call(on, inputs=0, *, flow=FLOW, call="post", callbacks=(), **args):
        return client.ask(
            port=gateway(flow).ports[protocol],
            protocol=protocol,
            asyncio=request.param,
            call=call,
            on=on,
            inputs=inputs,
            callbacks=callbacks,
            args=args,
        )

    return call


def _is_swallowed(answer, protocol):
    """
    Whether the client returned nothing where it should have raised.

    Over WebSocket it mostly does, whatever the gateway; where its machine is busy it raises now and then, as
    two tasks of its own race for the answer.
    """
    return protocol == "websocket" and "got" in answer and answer["got"]["count"] == 0


def test_no_documents_give_no_documents(ask):
    assert ask("/tag", None)["got"]["count"] == 0


def test_an_executor_can_answer_a_request_without_documents(ask):
    assert ask("/new", None)["got"]["documents"] == [["nB", "new B"]]


def test_one_document_goes_through_the_chain(ask):
    assert ask("/tag", 1)["got"]["documents"] == [["d00000", "xAB"]]


def test_its_metadata_and_headers_reach_executors_and_its_answers_may_have_some(ask, protocol):
    told = {"name": "told", "uses": "Told", "py_modules": [str(TELLING)]}
    flow = {"gateway": {"forward_headers": "x-*"}, "executors": [told]}
    sent = {"metadata": [["x-tenant", "a"]]} if protocol == "grpc" else {"headers": {"X-Tenant": "a"}}

    (answer,) = ask("/tell", 1, flow=flow, return_responses=True, **sent)["got"]

    assert answer["parameters"]["__results__"]["told/rep-0"] == {"headers": {"x-tenant": "a"}}
    assert answer["code"] == 0


def test_ten_thousand_documents_go_in_batches(ask):
    answer = ask("/tag", 10_000, request_size=100)

    assert answer["got"]["texts"] == {"xAB": 10_000}
    assert answer["got"]["tags"][0] == {"A": 100.0, "B": 100.0}


def test_results_come_in_order_when_asked_for(ask):
    answer = ask("/tag", 1000, request_size=10, results_in_order=True)

    assert (answer["got"]["count"], answer["got"]["in order"]) == (1000, True)


def test_parameters_reach_the_executor_they_are_for(ask):
    answer = ask("/params", None, parameters={"k": 1, "exec_b__k": "only b"})

    assert [tags["params"]["k"] for tags in answer["got"]["tags"]] == ["only b", 1.0]


def test_a_target_executor_is_the_only_one_called(ask):
    assert ask("/tag", 1, target_executor="exec_b")["got"]["documents"] == [["d00000", "xB"]]


def test_responses_tell_routes_and_results(ask):
    answer = ask("/results", 25, request_size=10, return_responses=True)

    assert sorted(one["count"] for one in answer["got"]) == [5, 10, 10]
    for one in answer["got"]:
        assert one["routes"] == ["gateway", "exec_a", "exec_b"]
        n = float(one["count"])
        assert one["parameters"]["__results__"] == {
            "exec_a/rep-0": {"n": n, "who": "A"},
            "exec_b/rep-0": {"n": n, "who": "B"},
        }


def test_callbacks_are_called_for_what_succeeds(ask):
    answer = ask("/tag", 30, request_size=10, callbacks=("on_done", "on_error", "on_always"))

    assert answer["called"] == {"on_done": 3, "on_always": 3}


def test_callbacks_are_called_for_what_fails(ask):
    answer = ask("/raise", 30, request_size=10, callbacks=("on_done", "on_error", "on_always"))

    assert answer["called"] == {"on_error": 3, "on_always": 3}


def test_an_executor_that_raises_is_a_bad_server(ask, protocol):
    answer = ask("/raise", 1)

    if not _is_swallowed(answer, protocol):
        assert answer["raised"] == "BadServer"
        assert "boom" in answer["message"]


def test_the_stream_goes_on_after_a_failure(ask):
    answer = ask("/raise_if", 20, request_size=10, parameters={"who": "B"}, continue_on_error=True)

    assert answer["got"]["count"] == 20


def test_an_executor_that_is_down_is_a_connection_error(ask):
    answer = ask("/tag", 1, flow=DOWN)

    assert answer["raised"] == "ConnectionError"
    assert "127.0.0.1" in answer["message"]


def test_a_large_document_goes_there_and_back(ask, protocol):
    size = 20 * 1024 * 1024
    # The client itself takes no WebSocket answer above 4 MiB: there the large document only goes in.
    endpoint = "/new" if protocol == "websocket" else "/identity"

    answer = ask(endpoint, {"bytes": size})["got"]

    assert (answer["count"], answer["blob bytes"]) == (1, 0 if protocol == "websocket" else size)


def test_who_asks_too_often_learns_why(ask, protocol):
    limited = {**FLOW, "gateway": {"rates": [{"requests": 1, "per": 1000}]}}

    ask("/tag", 1, flow=limited)
    answer = ask("/tag", 1, flow=limited)

    if protocol == "websocket":
        assert answer["raised"] == "CancelledError"  # that client knows the close code 1011 alone
    else:
        assert answer["raised"] == {"grpc": "BadServerFlow", "http": "ValueError"}[protocol]
        assert "more than 1 requests in 1000 s" in answer["message"]


@pytest.mark.parametrize("call", ["index", "search", "update", "delete"])
def test_the_crud_calls_reach_their_endpoints(ask, call):
    assert ask(None, 1, call=call)["got"]["documents"] == [["d00000", "xAB"]]


def test_a_flow_that_serves_is_ready(ask):
    assert ask(None, call="is_flow_ready")["got"] is True
    assert ask(None, call="dry_run")["got"] is True


def test_a_flow_whose_executor_is_down_is_not_ready(ask):
    assert ask(None, call="is_flow_ready", flow=DOWN)["got"] is False


def test_in_production_posts_work_and_readiness_needs_the_dry_run(ask):
    closed = {**FLOW, "gateway": {"production": True}}
    asked = {**FLOW, "gateway": {"production": True, "expose_dry_run": True}}

    assert ask("/tag", 1, flow=closed)["got"]["documents"] == [["d00000", "xAB"]]
    assert ask(None, call="is_flow_ready", flow=closed)["got"] is False
    assert ask(None, call="is_flow_ready", flow=asked)["got"] is True


def test_in_production_an_executor_that_raises_is_a_bad_server_without_a_reason(ask, protocol):
    answer = ask("/raise", 1, flow={**FLOW, "gateway": {"production": True}})

    if not _is_swallowed(answer, protocol):
        assert answer["raised"] == "BadServer"
        assert "the log has it as request" in answer["message"]
        assert "boom" not in answer["message"]


def test_in_production_callbacks_are_called_for_what_fails(ask):
    answer = ask(
        "/raise", 3, flow={**FLOW, "gateway": {"production": True}}, callbacks=("on_error", "on_always")
    )

    assert answer["called"] == {"on_error": 1, "on_always": 1}


@pytest.mark.parametrize("production", [False, True])
def test_in_production_an_executor_that_is_down_raises_the_same(ask, production):
    down = {**DOWN, "gateway": {**DOWN["gateway"], "production": production}}

    assert ask("/", 1, flow=down)["raised"] == "ConnectionError"


def test_profiling_names_every_executor(client, gateway, protocol):
    port = gateway(FLOW).ports[protocol]

    answer = client.ask(port=port, protocol=protocol, call="profiling", args={"show_table": False})

    times = answer["got"]
    assert {"Roundtrip", "exec_a", "exec_b"} <= times.keys()
    assert 0 <= times["exec_a"] <= times["Roundtrip"]


def test_grpc_takes_the_clients_options(client, gateway):
    answer = client.ask(
        port=gateway(FLOW).ports["grpc"],
        protocol="grpc",
        call="post",
        on="/tag",
        inputs=50,
        args={
            "request_size": 5,
            "prefetch": 2,
            "stream": False,
            "compression": "Gzip",
            "metadata": [["k", "v"]],
            "timeout": 30,
        },
    )

    assert answer["got"]["texts"] == {"xAB": 50}


def test_a_callback_that_raises_is_a_bad_client_callback(client, gateway):
    port = gateway(FLOW).ports["grpc"]

    answer = client.ask(
        port=port, protocol="grpc", call="post", on="/tag", inputs=1, **{"callback raises": True}
    )

    assert answer["raised"] == "BadClientCallback"


def test_a_client_finds_the_gateway_by_a_url(client, gateway):
    port = gateway(FLOW).ports["websocket"]

    answer = client.ask(host=f"ws://127.0.0.1:{port}", call="post", on="/tag", inputs=1)

    assert answer["got"]["texts"] == {"xAB": 1}
